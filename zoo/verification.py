"""Checks that a zoo is what it says: checksums, recorded accuracies, fixed entries, and networks trained anew."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from zoo.data import Data
from zoo.errors import ZooError
from zoo.generation import check_fit, train_pairs
from zoo.manifest import Mode
from zoo.seeds import rng_for
from zoo.store import Zoo, checksum_of

ACCURACY_TOLERANCE = 0.005  # other processors round otherwise, which may tip an example
LOSS_TOLERANCE = 1e-3  # relative


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
    imported = zoo.recipe.imported
    if imported and retrain:
        raise ZooError(
            f"{zoo.folder}: was imported ({imported.source}), nothing here tells how to train its networks again; "
            "verify it without training"
        )
    for file in zoo.manifest.files:
        if checksum_of(zoo.folder / file.path) != file.sha256:
            raise ZooError(f"{zoo.folder / file.path}: altered, its checksum differs; delete it and generate again")
    progress(f"{len(zoo.manifest.files)} checksums hold")
    data = zoo.recipe.load_data(data_dir)
    rng = rng_for(zoo.recipe.seed, "verify")
    measured = 0
    for treatment in zoo.treatments:
        check_fit(zoo.recipe, treatment, data)
        drawn, held = zoo.recipe.treat(treatment).held, zoo.treated(treatment).held
        if not imported and not all(torch.allclose(drawn[name], tensor) for name, tensor in held.items()):
            raise ZooError(f"{zoo.folder}: {treatment}'s constants are not those of the recipe; generate it anew")
        index = np.sort(rng.permutation(zoo.index(treatment, diverged=not imported))[:sample])
        _measure_again(zoo, treatment, index, data)
        measured += len(index)
    progress(f"{measured} networks measure as recorded")
    retrained = 0
    chosen = [(zoo.treatments[i % len(zoo.treatments)], int(rng.integers(len(zoo)))) for i in range(retrain)]
    for treatment, pair in chosen:
        same = _retrain(zoo, treatment, pair, data)
        retrained += same
        progress(
            f"{treatment}, pair {pair}: trained again, "
            + (
                "the same weights bit for bit"
                if same
                else "the same initial weights and a like first epoch (other mode)"
            )
        )
    return Verification(len(zoo.manifest.files), measured, retrained, retrain - retrained)


def _measure_again(zoo: Zoo, treatment: str, index: np.ndarray, data: Data) -> None:
    if not len(index):
        return
    stack, treated = zoo.stack(treatment, index), zoo.treated(treatment)
    if treated.constants is not None and not bool(treated.trainable.all()):
        fixed = ~treated.trainable
        if not torch.equal(stack.rows[:, fixed], treated.constants[fixed].expand(len(index), -1)):
            raise ZooError(f"{zoo.folder}: {treatment} has fixed entries that are not the constants; generate it anew")
    imported, fields = zoo.recipe.imported, zoo.fields(treatment)
    for part, x, y in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y)):
        if imported and part == "train":
            continue
        accuracy, loss = (values.numpy() for values in stack.evaluate(x, y))
        for name, values, close in (
            ("accuracy", accuracy, {"rtol": 0, "atol": ACCURACY_TOLERANCE}),
            ("loss", loss, {"rtol": LOSS_TOLERANCE, "atol": LOSS_TOLERANCE}),
        ):
            if imported and f"metrics/{part}_{name}" not in fields:
                continue
            recorded = zoo.field(treatment, f"metrics/{part}_{name}")[index]
            wrong = ~np.isclose(values, recorded, equal_nan=True, **close)
            if wrong.any():
                i = int(wrong.argmax())
                raise ZooError(
                    f"{zoo.folder}: {treatment}, pair {index[i]}: {part} {name} is {values[i]:.6g}, recorded as "
                    f"{recorded[i]:.6g}; was it made with other data?"
                )


def _retrain(zoo: Zoo, treatment: str, pair: int, data: Data) -> bool:
    """Train a network again; return whether its mode is the recorded one, so that bits were compared."""
    file = next(f for f in zoo.manifest.of(treatment) if f.pairs is not None and f.pairs[0] <= pair < f.pairs[1])
    device = "cpu" if file.mode is None or file.mode.device == "cpu" or not torch.cuda.is_available() else "cuda"
    again = train_pairs(zoo.recipe, treatment, [pair], data, device=device)
    place = f"{zoo.folder}: {treatment}, pair {pair}, trained again:"
    if not np.array_equal(again["initial_weights"][0], zoo.rows(treatment, pair, initial=True).numpy()):
        raise ZooError(f"{place} other initial weights; the recipe is not the one that made it")
    if same := file.mode == Mode.here(device, data.digest):
        if not np.array_equal(again["weights"][0], zoo.rows(treatment, pair).numpy(), equal_nan=True):
            raise ZooError(f"{place} other weights, in the same mode; the zoo is not what its recipe makes")
    else:
        recorded = zoo.field(treatment, "curves/train_loss")[pair, 0]
        if not np.isclose(again["curves/train_loss"][0, 0], recorded, rtol=0.1, equal_nan=True):
            raise ZooError(
                f"{place} first epoch's loss {again['curves/train_loss'][0, 0]:.4g}, recorded {recorded:.4g}"
            )
    return same
