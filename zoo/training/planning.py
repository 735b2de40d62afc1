"""What is to be trained: the manifest of a zoo to be, of a zoo that grows, and the shards that it lacks."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version

from zoo.errors import ZooError
from zoo.recipes.recipe import HYPERPARAMETERS, Recipe
from zoo.store.columns import KNOWN, WEIGHTS, Column
from zoo.store.held import columns_held
from zoo.store.manifest import Manifest
from zoo.store.shards import row_size
from zoo.training.training import METRICS

SHARD_BYTES = 32 << 20
PACKAGES = ("asymzoo", "torch", "numpy", "h5py")
ALWAYS = ("pair", "split", "status")


@dataclass(frozen=True)
class Shard:
    """What a worker is to make: a treatment's networks for a run of pairs."""

    treatment: str
    pairs: range


def begin(recipe: Recipe, columns: Iterable[Column] | None = None) -> Manifest:
    """Describe a zoo without networks.

    Arguments:
        recipe: that makes it.
        columns: of its shards, besides what treatments hold for each network; those of generated zoos by default.
    """
    treated = {name: recipe.treat(name) for name in recipe.treatments}
    held = [column for name, one in treated.items() if one.own for column in columns_held(one.held, name)]
    return Manifest(
        recipe=recipe.to_json(),
        digest=recipe.digest,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"python": python_version()} | {name: version(name) for name in PACKAGES},
        columns=(*(generated_columns(recipe) if columns is None else columns), *_joined(held)),
        layouts={name: one.layout.to_json() for name, one in treated.items()},
        sites={name: one.sites for name, one in treated.items()},
    )


def generated_columns(recipe: Recipe) -> list[Column]:
    """Return the columns of what `generate` makes of a recipe."""
    longest = int(recipe.training.epochs.high)
    curves = [KNOWN[f"curve_{name}"].model_copy(update={"width": longest}) for name in METRICS]
    known = [KNOWN[name] for name in (*WEIGHTS, *ALWAYS, "seconds")]
    hyperparameters = [hyperparameter(recipe, name) for name in HYPERPARAMETERS]
    return [*known, *hyperparameters, *(KNOWN[name] for name in METRICS), *curves]


def hyperparameter(recipe: Recipe, name: str) -> Column:
    """Describe a hyperparameter that a recipe draws, with the bounds and the scale of its distribution."""
    drawn = getattr(recipe.training, name)
    scale = "logarithmic" if drawn.log_uniform else "linear"
    return KNOWN[name].model_copy(update={"scale": scale, "bounds": (float(drawn.low), float(drawn.high))})


def _joined(columns: Iterable[Column]) -> list[Column]:
    """Return each column once, with all of its treatments."""
    found: dict[str, Column] = {}
    for column in columns:
        before = found.get(column.name)
        if before is not None and before.width != column.width:
            both = f"{before.treatments} and {column.treatments}"
            raise ZooError(f"treatments: the widths of {column.name} differ in {both}; make two zoos of them")
        treatments = (*(before.treatments or () if before else ()), *(column.treatments or ()))
        found[column.name] = column.model_copy(update={"treatments": treatments})
    return list(found.values())


def merge(old: Recipe, new: Recipe, folder: Path) -> Recipe:
    """Return the recipe of a zoo that is to grow: more pairs, further treatments, nothing else changed.

    Raises:
        ZooError: if the two would not make one zoo.
    """
    for field in ("name", "seed", "data", "architecture", "training", "imported"):
        if getattr(old, field) != getattr(new, field):
            raise ZooError(f"{folder}: holds a zoo of another recipe, {field} differs; choose another folder")
    for name in old.treatments.keys() & new.treatments.keys():
        if old.treatments[name] != new.treatments[name]:
            raise ZooError(f"{folder}: holds a zoo in which treatments.{name} differs; choose another folder or name")
    treatments = {**old.treatments, **new.treatments}
    description = new.description or old.description
    pairs = max(old.pairs, new.pairs)
    return new.model_copy(update={"pairs": pairs, "treatments": treatments, "description": description})


def plan(manifest: Manifest, shard_pairs: int | None = None) -> list[Shard]:
    """Divide the missing pairs of every treatment into shards."""
    shards = []
    for treatment in manifest.treatments:
        bytes_per_pair = 8 * row_size(manifest, treatment)
        for missing in manifest.missing(treatment):
            size = shard_pairs or int(max(1, min(256, SHARD_BYTES // bytes_per_pair, max(32, -(-len(missing) // 3)))))
            shards += [
                Shard(treatment, range(begin, min(begin + size, missing.stop)))
                for begin in range(missing.start, missing.stop, size)
            ]
    return shards
