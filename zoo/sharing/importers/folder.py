"""A folder of networks in files of their own, with a table that tells of each: any architecture, any treatment.

recipe.toml            name, data, architecture; treatments (one), training and imported where there is more to say
labels.csv             file, test_accuracy, and epochs if `training` has none; further metrics and hyperparameters
*.safetensors, *.pt    a `state_dict` each, of the architecture's names
constants.safetensors  if the treatment holds anything constant: what, as in zoos of ours
"""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from zoo.errors import RecipeError, ZooError
from zoo.recipes.recipe import HYPERPARAMETERS, Recipe
from zoo.sharing.importers.files import (
    OVERHEAD,
    check_tensors,
    exact_numbers,
    inside,
    numbers,
    read_saved,
    read_table,
    whole_numbers,
)
from zoo.sharing.importers.writing import OWN, Arrays, Progress, bounds, write_zoo
from zoo.store.manifest import COLUMN_NAME
from zoo.store.shards import CONSTANTS
from zoo.store.zoo import Zoo
from zoo.training.training import METRICS
from zoo.treatments.base import Held

RECIPE, TABLE = "recipe.toml", "labels.csv"
FORMS = (".safetensors", ".pt")


def import_folder(source: str | Path, folder: str | Path, *, progress: Progress = lambda networks: None) -> Zoo:
    """Make a zoo of networks in files of their own, in the order of the table.

    A network with a weight that is not finite is kept and flagged as diverged.

    Arguments:
        source: folder with the files named above. What `recipe.toml` leaves out: the treatment is the standard one,
            `training` tells the least and greatest hyperparameters of the table.
        folder: of the zoo, new or empty.
        progress: called with the number of networks just written.

    Raises:
        ZooError: if a file is missing, leads out of the folder, or is not what it should be.
        RecipeError: if the recipe is not valid.
    """
    source = Path(source)
    path = inside(source, TABLE)
    table = read_table(path, ("file", "test_accuracy"))
    files = table["file"].fillna("").tolist()
    if table["file"].duplicated().any():
        raise ZooError(f"{path}: {files[int(table['file'].duplicated().argmax())]} stands there twice; leave one out")
    for name in files:
        if not name.endswith(FORMS):
            raise ZooError(f"{path}: {name!r} ends in none of {', '.join(FORMS)}; convert it")
    known = _labels(table, path)
    recipe = _recipe(source, known, len(files))
    (treatment,) = recipe.treatments
    layout, held = recipe.treat(treatment).layout, _held(source, recipe, treatment)
    shapes = {parameter.name: parameter.shape for parameter in layout.parameters}

    def read(treatment: str, run: range) -> Arrays:
        weights = np.empty((len(run), layout.size), np.float32)
        for k, i in enumerate(run):
            file = inside(source, files[i])
            tensors = check_tensors(file, read_saved(file, OVERHEAD + 4 * layout.size), shapes)
            row = layout.flatten(tensors)
            if "mask" in held and not torch.equal(row[~held["mask"]], held["constants"][~held["mask"]]):
                raise ZooError(
                    f"{file}: has fixed entries that are not the constants; save the weights as they are used"
                )
            weights[k] = row.numpy()
        return {"weights": weights} | {name: values[run.start : run.stop] for name, values in known.items()}

    return write_zoo(Path(folder), recipe, known, {treatment: held}, read, progress)


def _labels(table: pd.DataFrame, path: Path) -> Arrays:
    """Return metrics and hyperparameters by the names of our fields."""
    known: Arrays = {}
    for name in table.columns.drop("file"):
        if name.endswith("_accuracy") and name in METRICS:
            known[name] = numbers(table, name, path, 0.0, 1.0).astype(np.float32)
        elif name in METRICS:
            known[name] = numbers(table, name, path, missing=True).astype(np.float32)
        elif not COLUMN_NAME.fullmatch(name):
            raise ZooError(f"{path}: a column is named {name!r}; use letters, digits and _")
        elif name in OWN:
            raise ZooError(f"{path}: a column is named {name!r}, which zoos have by themselves; rename it")
        elif name == "epochs":
            known["epochs"] = whole_numbers(table, name, path, 1)
        elif name in HYPERPARAMETERS:
            known[name] = numbers(table, name, path)
        else:
            known[name] = exact_numbers(table, name, path)
    return known


def _recipe(source: Path, known: Arrays, networks: int) -> Recipe:
    path = inside(source, RECIPE)
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
    told = values.get("training", {})
    values["training"] = bounds(known) | told if isinstance(told, dict) else told
    values = {"treatments": {"standard": {"kind": "standard"}}, "imported": {"source": source.name}} | values
    recipe = Recipe.read(values | {"pairs": networks}, str(path))
    if len(recipe.treatments) != 1:
        raise RecipeError(f"{path}: treatments: {len(recipe.treatments)} of them; a folder holds networks of one")
    return recipe


def _held(source: Path, recipe: Recipe, treatment: str) -> Held:
    """Read what the treatment holds constant."""
    wanted = recipe.treat(treatment).held
    if not wanted:
        return {}
    path = inside(source, CONSTANTS)
    held: Held = read_saved(path, OVERHEAD + sum(8 * tensor.numel() for tensor in wanted.values()))
    if {n: (t.shape, t.dtype) for n, t in held.items()} != {n: (t.shape, t.dtype) for n, t in wanted.items()}:
        forms = ", ".join(f"{name} {tuple(t.shape)} {t.dtype}" for name, t in wanted.items())
        raise ZooError(f"{path}: does not hold what {treatment} wants, {forms}")
    return held
