"""Plans the training of a zoo: the manifest of a new or growing zoo, and the shards that are missing."""

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
from zoo.store.manifest import MANIFEST, Manifest
from zoo.store.shards import row_size
from zoo.training.results import MEASURED

SHARD_BYTES = 32 << 20  # most bytes of weights in a shard: a shard is also the unit of work that can be interrupted
GPU_SHARD_BYTES = 256 << 20
PACKAGES = ("asymzoo", "torch", "numpy", "h5py")  # their versions are recorded in the manifest
ALWAYS = ("pair", "split", "status")  # columns of every zoo, imported ones included


@dataclass(frozen=True)
class Shard:
    """A file to make: the networks of a treatment for consecutive pairs."""

    treatment: str
    pairs: range


def begin(recipe: Recipe, columns: Iterable[Column] | None = None) -> Manifest:
    """Return the manifest of a zoo that has no networks yet.

    Arguments:
        recipe: Recipe of the zoo.
        columns: Columns of the shards, without the constants that differ between networks; by default the columns of
            generated zoos.
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
    """Return the columns of the zoo that `generate` makes from a recipe."""
    longest = int(recipe.training.epochs.high)
    curves = [KNOWN[f"curve_{name}"].model_copy(update={"width": longest}) for name in MEASURED]
    known = [KNOWN[name] for name in (*WEIGHTS, *ALWAYS, "seconds")]
    hyperparameters = [hyperparameter(recipe, name) for name in HYPERPARAMETERS]
    return [*known, *hyperparameters, *(KNOWN[name] for name in MEASURED), *curves]


def hyperparameter(recipe: Recipe, name: str) -> Column:
    """Return the column of a hyperparameter, with the bounds and the scale of its distribution in the recipe."""
    drawn = getattr(recipe.training, name)
    scale = "logarithmic" if drawn.log_uniform else "linear"
    return KNOWN[name].model_copy(update={"scale": scale, "bounds": (float(drawn.low), float(drawn.high))})


def _joined(columns: Iterable[Column]) -> list[Column]:
    """Merge columns of the same name into one column with all their treatments."""
    merged: dict[str, Column] = {}
    for column in columns:
        before = merged.get(column.name)
        if before is not None and before.width != column.width:
            both = f"{before.treatments} and {column.treatments}"
            raise ZooError(f"treatments: {column.name} has different widths in {both}; make two zoos")
        treatments = (*(before.treatments or () if before else ()), *(column.treatments or ()))
        merged[column.name] = column.model_copy(update={"treatments": treatments})
    return list(merged.values())


def merge(old: Recipe, new: Recipe, folder: Path) -> Recipe:
    """Return the recipe of a zoo after it has grown by the pairs and treatments of a new recipe.

    Arguments:
        old: Recipe of the zoo.
        new: Recipe to generate. It may differ from `old` in pairs, treatments and description only.
        folder: Folder of the zoo, for error messages.

    Raises:
        ZooError: If the recipes differ in anything else, or a treatment of the same name differs.
    """
    for field in ("name", "seed", "data", "architecture", "training", "imported"):
        if getattr(old, field) != getattr(new, field):
            raise ZooError(f"{folder}: holds a zoo of another recipe: {field} differs; choose another folder")
    for name in old.treatments.keys() & new.treatments.keys():
        if old.treatments[name] != new.treatments[name]:
            raise ZooError(f"{folder}: holds a zoo whose treatments.{name} differs; choose another folder or name")
    treatments = {**old.treatments, **new.treatments}
    description = new.description or old.description
    pairs = max(old.pairs, new.pairs)
    return new.model_copy(update={"pairs": pairs, "treatments": treatments, "description": description})


def count_missing(recipe: Recipe, folder: Path) -> int:
    """Return the number of networks that are still to be trained for a recipe in a folder.

    Raises:
        ZooError: If the folder holds a zoo of another recipe.
    """
    if not (folder / MANIFEST).exists():
        return recipe.pairs * len(recipe.treatments)
    before = Manifest.read(folder)
    whole = merge(Recipe.read(before.recipe, str(folder)), recipe, folder)
    present = [file.pairs for file in before.files if file.pairs and (folder / file.path).is_file()]
    return whole.pairs * len(whole.treatments) - sum(last - first for first, last in present)


def plan(manifest: Manifest, shard_pairs: int | None = None, device: str = "cpu") -> list[Shard]:
    """Divide the missing pairs of every treatment into shards.

    Arguments:
        manifest: Manifest of the zoo.
        shard_pairs: Number of pairs in a shard. By default a third of the missing pairs, so that several workers have
            work, but from 32 to 256, and at most as many as fit into `SHARD_BYTES`. On a GPU, which trains all
            networks of a shard at once, as many as fit into `GPU_SHARD_BYTES`.
        device: Device that trains.
    """
    shards = []
    for treatment in manifest.treatments:
        bytes_per_pair = 8 * row_size(manifest, treatment)  # initial and trained weights in float32
        for missing in manifest.missing(treatment):
            most, fit = max(32, -(-len(missing) // 3)), SHARD_BYTES // bytes_per_pair
            by_device = min(256, fit, most) if device.startswith("cpu") else GPU_SHARD_BYTES // bytes_per_pair
            size = shard_pairs or int(max(1, by_device))
            shards += [
                Shard(treatment, range(begin, min(begin + size, missing.stop)))
                for begin in range(missing.start, missing.stop, size)
            ]
    return shards
