"""Checks that a zoo is what it says: checksums, recorded accuracies, fixed entries, and networks trained anew."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.data import Data
from zoo.errors import ZooError
from zoo.files import checksum_of
from zoo.recipes.recipe import Recipe
from zoo.seeds import rng_for
from zoo.store.zoo import Zoo
from zoo.training.engines import fix_rounding
from zoo.training.generation import check_fit, train_pairs
from zoo.training.modes import mode_here

# Of measurements on other processors, which round otherwise: that may tip an example.
TOLERANCES: dict[str, dict[str, float]] = {
    "accuracy": {"rtol": 0.0, "atol": 0.005},
    "loss": {"rtol": 1e-3, "atol": 1e-3},
}


@dataclass(frozen=True)
class Verification:
    """What was checked and held.

    Attributes:
        files: checksums compared.
        measured: networks measured again.
        retrained: networks trained again, their weights the same bit for bit.
        compared: networks trained again in another mode: the same initial weights, a like first epoch.
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
    progress: Callable[[str], None] = lambda line: None,
) -> Verification:
    """Check every file, measure `sample` networks of each treatment again, and train `retrain` networks again.

    Where the machine's mode is not the recorded one, trained weights cannot be compared: there rounding, which
    training amplifies, differs. Initial weights and the first epoch's loss are compared instead. Of imported networks
    those are measured that did not diverge, on the test set: on which examples others trained is not known.

    Raises:
        ZooError: for the first thing that does not hold, or if imported networks are to be trained again.
    """
    if retrain and (source := zoo.manifest.source) is not None:
        raise ZooError(
            f"{zoo.folder}: was imported ({source}), nothing here tells how to train its networks again; "
            "verify it without training"
        )
    for file in zoo.manifest.files:
        if checksum_of(zoo.folder / file.path) != file.sha256:
            raise ZooError(f"{zoo.folder / file.path}: altered, its checksum differs; delete it and generate again")
    progress(f"{len(zoo.manifest.files)} checksums hold")
    recipe = Recipe.of(zoo)
    imported = recipe.imported is not None
    fix_rounding()
    zoo, data = Zoo(zoo.folder, data_dir), recipe.load_data(data_dir)
    rng = rng_for(recipe.seed, "verify")
    measured = 0
    for treatment in zoo.treatments:
        check_fit(recipe, treatment, data)
        index = np.sort(rng.permutation(zoo.index(treatment, diverged=not imported))[:sample])
        if not imported:
            _check_held(zoo, recipe, treatment, index)
        if len(index):
            _check_fixed(zoo, treatment, index)
            _measure_again(zoo, treatment, index, data, ("test",) if imported else ("train", "test"))
        measured += len(index)
    progress(f"{measured} networks measure as recorded")
    retrained = 0
    chosen = _in_turn(zoo, rng)[:retrain]
    for treatment, pair in chosen:
        same = _retrain(zoo, recipe, treatment, pair, data)
        retrained += same
        how = "same weights bit for bit" if same else "same initial weights and a like first epoch (other mode)"
        progress(f"{treatment}, pair {pair}: trained again, the {how}")
    return Verification(len(zoo.manifest.files), measured, retrained, len(chosen) - retrained)


def _in_turn(zoo: Zoo, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Return every network, treatments taking turns, pairs in random order."""
    orders = {treatment: rng.permutation(len(zoo)).tolist() for treatment in zoo.treatments}
    return [(treatment, orders[treatment][i]) for i in range(len(zoo)) for treatment in zoo.treatments]


def _check_held(zoo: Zoo, recipe: Recipe, treatment: str, index: NDArray[np.int64]) -> None:
    """See to it that a zoo holds constant what its recipe draws."""
    drawn, stored = recipe.treat(treatment, pairs=index.tolist() or (0,)).held, zoo.treated(treatment, index).held
    if len(index) and drawn.keys() != stored.keys():
        raise ZooError(f"{zoo.folder}: {treatment} does not hold constant what its recipe says; generate it anew")
    if not all(torch.allclose(drawn[name], tensor) for name, tensor in stored.items() if len(tensor)):
        raise ZooError(f"{zoo.folder}: {treatment}'s constants are not those of the recipe; generate it anew")


def _check_fixed(zoo: Zoo, treatment: str, index: NDArray[np.int64]) -> None:
    """See to it that fixed entries are the constants."""
    treated, rows = zoo.treated(treatment, index), zoo.rows(treatment, index)
    if treated.constants is not None and not torch.equal(
        rows.where(~treated.trainable, 0), treated.constants.where(~treated.trainable, 0).expand_as(rows)
    ):
        raise ZooError(f"{zoo.folder}: {treatment} has fixed entries that are not the constants; generate it anew")


def _measure_again(
    zoo: Zoo, treatment: str, index: NDArray[np.int64], data: Data, splits: Sequence[Literal["train", "test"]]
) -> None:
    """Compare recorded metrics, as far as there are any, with those of the networks as they are."""
    stack, fields = zoo.stack(treatment, index), zoo.fields(treatment)
    examples = {"train": (data.train_x, data.train_y), "test": (data.test_x, data.test_y)}
    for split in splits:
        for name, measured in stack.evaluate(*examples[split])._asdict().items():
            if f"{split}_{name}" not in fields:
                continue
            values, recorded = measured.numpy(), zoo.field(treatment, f"{split}_{name}")[index]
            wrong = ~np.isclose(values, recorded, equal_nan=True, **TOLERANCES[name])
            if wrong.any():
                i = int(wrong.argmax())
                raise ZooError(
                    f"{zoo.folder}: {treatment}, pair {index[i]}: {split} {name} is {values[i]:.6g}, recorded as "
                    f"{recorded[i]:.6g}; was it made with other data?"
                )


def _retrain(zoo: Zoo, recipe: Recipe, treatment: str, pair: int, data: Data) -> bool:
    """Train a network again; return whether its mode is the recorded one, so that bits were compared."""
    file = next(f for f in zoo.manifest.of(treatment) if f.pairs is not None and f.pairs[0] <= pair < f.pairs[1])
    device = "cpu" if file.mode is None or file.mode.device == "cpu" or not torch.cuda.is_available() else "cuda"
    again = train_pairs(recipe, treatment, [pair], data, device=device)
    place = f"{zoo.folder}: {treatment}, pair {pair}, trained again:"
    if not np.array_equal(again["initial_weights"][0], zoo.rows(treatment, pair, initial=True).numpy()):
        raise ZooError(f"{place} other initial weights; the recipe is not the one that made it")
    if same := file.mode == mode_here(device, data.digest):
        if not np.array_equal(again["weights"][0], zoo.rows(treatment, pair).numpy(), equal_nan=True):
            raise ZooError(f"{place} other weights, in the same mode; the zoo is not what its recipe makes")
    else:
        now, recorded = again["curve_train_loss"][0, 0], zoo.field(treatment, "curve_train_loss")[pair, 0]
        if not np.isclose(now, recorded, rtol=0.1, equal_nan=True):
            raise ZooError(f"{place} first epoch's loss {now:.4g}, recorded {recorded:.4g}")
    return same
