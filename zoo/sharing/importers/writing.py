"""What importers have in common: networks, read a shard at a time, become a zoo that appears only when it is whole."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.files import check_empty, room_beside
from zoo.recipes.recipe import HYPERPARAMETERS, Recipe
from zoo.store.columns import KNOWN, Column
from zoo.store.manifest import Mode
from zoo.store.shards import write_constants, write_shard
from zoo.store.zoo import Zoo
from zoo.training.planning import ALWAYS, begin, hyperparameter, plan
from zoo.treatments.base import Held

Arrays = dict[str, NDArray[Any]]
Progress = Callable[[int], object]
UNKNOWN = Mode(device="unknown", processor="unknown", torch="unknown", data="unknown")
OWN = {name for name, column in KNOWN.items() if column.kind not in ("hyperparameter", "metric")} | {"treatment"}


def write_zoo(
    folder: Path,
    recipe: Recipe,
    known: Mapping[str, NDArray[Any]],
    held: Mapping[str, Held],
    read: Callable[[str, range], Arrays],
    progress: Progress,
) -> Zoo:
    """Write a zoo of networks that others trained.

    Arguments:
        folder: new or empty.
        recipe: what is known of the networks as a whole.
        known: what is known of each, by the name of the column, with one value or more of each.
        held: what treatments hold constant.
        read: returns, for a treatment and a run of pairs, `weights` `(pairs, P)` as the networks use them and the other
            columns, each array's first dimension the pairs. A network with a weight that is not finite is
            kept and flagged as diverged.
        progress: called with the number of networks just written.

    Raises:
        ZooError: if the folder holds something or cannot be written; nothing is left behind, nor is it if `read` fails.
    """
    check_empty(folder)
    columns = [KNOWN[name] for name in ("weights", *ALWAYS)]
    manifest = begin(recipe, [*columns, *(_describe(recipe, name, values) for name, values in known.items())])
    with room_beside(folder.absolute()) as temporary:
        part = temporary / "zoo"
        files = [write_constants(part, treatment, tensors) for treatment, tensors in held.items() if tensors]
        for shard in plan(manifest):
            arrays = _complete(recipe, shard.pairs, read(shard.treatment, shard.pairs))
            files.append(write_shard(part, manifest, shard.treatment, shard.pairs, arrays, UNKNOWN))
            progress(len(shard.pairs))
        manifest.model_copy(update={"files": tuple(files)}).write(part)
        part.replace(folder)
    return Zoo(folder)


def _describe(recipe: Recipe, name: str, values: NDArray[Any]) -> Column:
    """Describe a column by its name, if zoos have it, else by its values."""
    if name in HYPERPARAMETERS:
        return hyperparameter(recipe, name)
    if name in KNOWN:
        return KNOWN[name]
    words = values.dtype.kind == "U"
    source = recipe.imported.source if recipe.imported else recipe.name
    return Column(
        name=name,
        kind="setting" if words else "hyperparameter",
        dtype="string" if words else str(values.dtype),
        meaning=f"`{name}`, as {source} gives it.",
    )


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
