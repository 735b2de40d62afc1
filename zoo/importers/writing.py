"""What importers have in common: networks, read a shard at a time, become a zoo that appears only when it is whole."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.generation import plan
from zoo.manifest import Manifest, Mode, check_empty, room_beside
from zoo.recipe import HYPERPARAMETERS, Recipe
from zoo.store import Zoo, open_zoo, write_constants, write_shard
from zoo.treatments.base import Held

Arrays = dict[str, NDArray[Any]]
Progress = Callable[[int], object]
UNKNOWN = Mode(device="unknown", processor="unknown", torch="unknown", data="unknown")


def write_zoo(
    folder: Path,
    recipe: Recipe,
    held: Mapping[str, Held],
    read: Callable[[str, range], Arrays],
    progress: Progress,
) -> Zoo:
    """Write a zoo of networks that others trained.

    Arguments:
        folder: new or empty.
        recipe: what is known of the networks.
        held: what treatments hold constant.
        read: returns, for a treatment and a run of pairs, `weights` `(pairs, P)` as the networks use them and what
            else is known, each array's first dimension the pairs. A network with a weight that is not finite is
            kept and flagged as diverged.
        progress: called with the number of networks just written.

    Raises:
        ZooError: if the folder holds something or cannot be written; nothing is left behind, nor is it if `read` fails.
    """
    check_empty(folder)
    manifest = Manifest.begin(recipe)
    with room_beside(folder.absolute()) as temporary:
        part = temporary / "zoo"
        files = [write_constants(part, treatment, tensors) for treatment, tensors in held.items() if tensors]
        for shard in plan(manifest):
            arrays = _complete(recipe, shard.pairs, read(shard.treatment, shard.pairs))
            files.append(write_shard(part, shard.treatment, shard.pairs, arrays, UNKNOWN))
            progress(len(shard.pairs))
        manifest.model_copy(update={"files": tuple(files)}).write(part)
        part.replace(folder)
    return open_zoo(folder)


def _complete(recipe: Recipe, pairs: range, known: Arrays) -> Arrays:
    """Add what every shard has."""
    return known | {
        "pair": np.array(pairs, np.int64),
        "split": np.array([recipe.split_of(pair) for pair in pairs]),
        "status": np.where(np.isfinite(known["weights"]).all(1), "trained", "diverged"),
    }


def bounds(known: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what a recipe's `training` can tell of networks: the least and greatest value of each hyperparameter."""
    return {
        name: {"integers" if name == "epochs" else "uniform": [known[name].min().item(), known[name].max().item()]}
        for name in HYPERPARAMETERS
        if name in known
    }
