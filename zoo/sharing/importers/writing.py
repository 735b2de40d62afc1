"""Writes a zoo from imported networks, shard by shard; the zoo appears only when it is complete."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.files import check_empty, room_beside
from zoo.progress import Progress
from zoo.recipes.recipe import HYPERPARAMETERS, Recipe
from zoo.store.columns import KNOWN, Column
from zoo.store.manifest import Mode
from zoo.store.shards import write_constants, write_shard
from zoo.store.zoo import Zoo
from zoo.training.planning import ALWAYS, begin, hyperparameter, plan
from zoo.treatments.base import Held

Arrays = dict[str, NDArray[Any]]
UNKNOWN = Mode(device="unknown", processor="unknown", torch="unknown", data="unknown")
# Names that columns of imported networks cannot have, because zoos use them for something else.
RESERVED = {name for name, column in KNOWN.items() if column.kind not in ("hyperparameter", "metric")} | {"treatment"}


def write_zoo(
    folder: Path,
    recipe: Recipe,
    known: Mapping[str, NDArray[Any]],
    held: Mapping[str, Held],
    read: Callable[[str, range], Arrays],
    progress: Progress,
) -> Zoo:
    """Write a zoo of networks that others trained.

    A network with a weight that is not finite is kept and flagged as diverged.

    Arguments:
        folder: New or empty folder for the zoo.
        recipe: Recipe that describes the networks.
        known: Values of further columns, by name. Only their types matter, so some of the values are enough.
        held: Constants of each treatment.
        read: Function that returns, for a treatment and a range of pairs, the `weights` `(pairs, P)` as the networks
            use them and the further columns, each `(pairs, ...)`.
        progress: Called with the number of networks that were just written.

    Raises:
        ZooError: If the folder is not empty or cannot be written. Then nothing is left behind, and neither if `read`
            fails.
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
    """Return the description of a column: the usual one if zoos have such a column, else one from its values."""
    if name in HYPERPARAMETERS:
        return hyperparameter(recipe, name)
    if name in KNOWN:
        return KNOWN[name]
    is_text = values.dtype.kind == "U"
    source = recipe.imported.source if recipe.imported else recipe.name
    return Column(
        name=name,
        kind="setting" if is_text else "hyperparameter",
        dtype="string" if is_text else str(values.dtype),
        meaning=f"`{name}`, as in {source}.",
    )


def _complete(recipe: Recipe, pairs: range, known: Arrays) -> Arrays:
    """Add the columns that every shard has."""
    return known | {
        "pair": np.array(pairs, np.int64),
        "split": np.array([recipe.split_of(pair) for pair in pairs]),
        "status": np.where(np.isfinite(known["weights"]).all(1), "trained", "diverged"),
    }


def bounds(known: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the lowest and highest value of each hyperparameter, as distributions for a recipe's `training`."""
    return {
        name: {"integers" if name == "epochs" else "uniform": [known[name].min().item(), known[name].max().item()]}
        for name in HYPERPARAMETERS
        if name in known
    }
