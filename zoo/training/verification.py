"""Verifies a zoo: checksums of its files, recorded metrics, fixed entries, and networks trained again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from zoo.data import Data
from zoo.devices import use_device
from zoo.errors import ZooError
from zoo.files import checksum_of
from zoo.progress import Log, ignore
from zoo.recipes.recipe import Recipe
from zoo.seeds import rng_for
from zoo.store.manifest import Mode
from zoo.store.networks import Networks
from zoo.store.zoo import Zoo
from zoo.training.engines import Engine, engine_for
from zoo.training.generation import check_fit, train_pairs
from zoo.training.modes import give_same_bits, mode_here
from zoo.training.ways import WAYS
from zoo.training.workers import fix_rounding

# Differences allowed between recorded and repeated measurements. Another processor rounds differently, which can change
# the predicted class of an example. The values are bounds by choice, not measured.
TOLERANCES: dict[str, dict[str, float]] = {
    "accuracy": {"rtol": 0.0, "atol": 0.005},
    "loss": {"rtol": 1e-3, "atol": 1e-3},
}


@dataclass(frozen=True)
class Verification:
    """Numbers of checks that passed.

    Attributes:
        files: Number of files whose checksum was compared.
        measured: Number of networks that were measured again.
        retrained: Number of networks that were trained again, with the same weights bit for bit.
        compared: Number of networks that were trained again in another mode, with the same initial weights and a
            similar loss after the first epoch.
    """

    files: int
    measured: int
    retrained: int
    compared: int


def verify(
    zoo: Zoo,
    *,
    data_dir: str | Path | None = None,
    sample: int = 32,
    retrain: int = 0,
    log: Log = ignore,
) -> Verification:
    """Check every file of a zoo, measure some of its networks again, and train some again.

    Trained weights are compared if this machine gives the same ones as the mode that was recorded. Otherwise rounding
    differs, and training amplifies it; then the initial weights and the loss after the first epoch are compared.
    Imported networks are measured on the test set only, since their training examples are not known, and diverged ones
    are left out.

    Arguments:
        zoo: Zoo to verify.
        data_dir: Folder with the data set's files; without it they come from the Hub.
        sample: Number of networks of each treatment to measure again.
        retrain: Number of networks to train again, over all treatments.
        log: Called with one line of text for each check.

    Raises:
        ZooError: If a check fails, or imported networks are to be trained again.
    """
    if retrain and (source := zoo.manifest.source) is not None:
        raise ZooError(
            f"{zoo.folder}: was imported ({source}), so its networks cannot be trained again; verify it without "
            "training"
        )
    for file in zoo.manifest.files:
        if checksum_of(zoo.folder / file.path) != file.sha256:
            raise ZooError(f"{zoo.folder / file.path}: was altered, its checksum differs; delete it and generate again")
    log(f"{len(zoo.manifest.files)} checksums match")
    recipe = Recipe.of(zoo)
    fix_rounding()
    zoo, data = Zoo(zoo.folder, data_dir), recipe.load_data(data_dir)
    rng = rng_for(recipe.seed, "verify")
    measured = sum(_check_sample(zoo, recipe, treatment, data, sample, rng) for treatment in zoo.treatments)
    log(f"{measured} networks measure as recorded")
    retrained = 0
    chosen = _in_random_order(zoo, rng)[:retrain]
    shards: dict[str, dict[str, Any]] = {}
    for treatment, pair in chosen:
        same = _retrain(zoo, recipe, treatment, pair, data, shards)
        retrained += same
        how = "" if same else "initial weights and, where it was measured, a similar first epoch (other mode)"
        log(f"{treatment}, pair {pair}: trained again, the same {how or 'weights bit for bit'}")
    return Verification(len(zoo.manifest.files), measured, retrained, len(chosen) - retrained)


def _check_sample(zoo: Zoo, recipe: Recipe, treatment: str, data: Data, sample: int, rng: np.random.Generator) -> int:
    """Check constants and metrics of randomly chosen networks of a treatment; return their number."""
    imported = recipe.imported is not None
    check_fit(recipe, treatment, data)
    every = zoo.networks(treatment, diverged=not imported)
    sampled = every[np.sort(rng.permutation(len(every))[:sample])]
    if not imported:
        _check_held(sampled, recipe)
    if len(sampled):
        _check_fixed(sampled)
        _measure_again(sampled, data, ("test",) if imported else ("train", "test"))
    return len(sampled)


def _in_random_order(zoo: Zoo, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Return treatment and pair of every network; treatments alternate, and the pairs of each are in random order."""
    orders = {treatment: rng.permutation(len(zoo)).tolist() for treatment in zoo.treatments}
    return [(treatment, orders[treatment][i]) for i in range(len(zoo)) for treatment in zoo.treatments]


def _check_held(networks: Networks, recipe: Recipe) -> None:
    """Check that the constants of the zoo are those that its recipe draws."""
    place, pairs = f"{networks.zoo.folder}: {networks.treatment}", networks.pairs.tolist()
    drawn, stored = recipe.treat(networks.treatment, pairs=pairs or (0,)).held, networks.treated.held
    if len(networks) and drawn.keys() != stored.keys():
        raise ZooError(f"{place} does not have the constants that the recipe says; generate it again")
    if not all(torch.allclose(drawn[name], tensor) for name, tensor in stored.items() if len(tensor)):
        raise ZooError(f"{place}'s constants are not those of the recipe; generate it again")


def _check_fixed(networks: Networks) -> None:
    """Check that the fixed entries of the networks equal their constants."""
    treated, rows = networks.treated, networks.weights[:]
    if treated.constants is not None and not torch.equal(
        rows.where(~treated.mask, 0), treated.constants.where(~treated.mask, 0).expand_as(rows)
    ):
        place = f"{networks.zoo.folder}: {networks.treatment}"
        raise ZooError(f"{place} has fixed entries that are not the constants; generate it again")


def _measure_again(networks: Networks, data: Data, splits: Sequence[Literal["train", "test"]]) -> None:
    """Measure the networks and compare with the recorded metrics; metrics that are not recorded are left out."""
    stack, place = networks.stack(), f"{networks.zoo.folder}: {networks.treatment}"
    examples = {"train": (data.train_x, data.train_y), "test": (data.test_x, data.test_y)}
    for split in splits:
        for name, measured in stack.evaluate(*examples[split])._asdict().items():
            if f"{split}_{name}" not in networks.columns:
                continue
            values, recorded = measured.numpy(), networks[f"{split}_{name}"]
            wrong = ~np.isclose(values, recorded, equal_nan=True, **TOLERANCES[name])
            if wrong.any():
                i = int(wrong.argmax())
                raise ZooError(
                    f"{place}, pair {networks.pairs[i]}: {split} {name} is {values[i]:.6g}, recorded as "
                    f"{recorded[i]:.6g}; check that the data are those of the recipe"
                )


def _retrain(
    zoo: Zoo, recipe: Recipe, treatment: str, pair: int, data: Data, shards: dict[str, dict[str, Any]]
) -> bool:
    """Train a network again and compare; return whether its weights were compared bit for bit.

    On a GPU, its whole shard trains again, because results depend on the stack; `shards` keeps those that have.
    """
    file = next(f for f in zoo.manifest.of(treatment) if f.pairs is not None and f.pairs[0] <= pair < f.pairs[1])
    engine, network = _engine_of(file.mode, recipe, treatment, data), zoo.networks(treatment, diverged=True)[[pair]]
    pairs = range(pair, pair + 1) if engine.device == "cpu" or file.pairs is None else range(*file.pairs)
    if engine.device == "cpu" or file.path not in shards:
        shards[file.path] = train_pairs(recipe, treatment, pairs, data, engine=engine)
    again = {name: values[[pairs.index(pair)]] for name, values in shards[file.path].items()}
    place = f"{zoo.folder}: {treatment}, pair {pair}, trained again:"
    if not np.array_equal(again["initial_weights"], network["initial_weights"]):
        raise ZooError(f"{place} other initial weights; another recipe made the zoo, generate it again")
    mode = mode_here(engine, data.digest, recipe.training.precision)
    promised = file.mode is not None and give_same_bits(file.mode, mode)
    same = promised and np.array_equal(again["weights"], network["weights"], equal_nan=True)
    if promised and not same and engine.device == "cpu":  # on a GPU, PyTorch may sum in another order, as for graphs
        raise ZooError(f"{place} other weights in the same mode; its recipe did not make the zoo, generate it again")
    if not same:
        now, recorded = again["curve_train_loss"][0, 0], network["curve_train_loss"][0, 0]
        if not np.isclose(now, recorded, rtol=0.1, equal_nan=True):
            fact = f"loss after the first epoch {now:.4g}, recorded as {recorded:.4g}"
            raise ZooError(f"{place} {fact}; its recipe did not make the zoo, generate it again")
    return same


def _engine_of(mode: Mode | None, recipe: Recipe, treatment: str, data: Data) -> Engine:
    """Return the engine of a mode, or the nearest that this machine has."""
    if mode is not None and mode.engine in WAYS and mode.device != "cpu" and torch.cuda.is_available():
        use_device("cuda")
        return Engine(mode.engine, "cuda", mode.stack)
    if mode is not None and mode.engine not in WAYS:
        return engine_for(recipe.treat(treatment), data, recipe.training)
    return Engine("torch")
