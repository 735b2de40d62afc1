"""Imports a folder with one file for each network and a table of labels, for any architecture and treatment.

The folder contains:

recipe.toml            `name`, `data` and `architecture`; optionally `treatments` (one), `training` and `imported`
labels.csv             columns `file` and `test_accuracy`, `epochs` unless `training` has it, and further metrics and
                       hyperparameters
*.safetensors, *.pt    the `state_dict` of each network, with the parameter names of the architecture
constants.safetensors  the constants of the treatment, if it has any, as in the folder of a zoo
"""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from zoo.errors import RecipeError, ZooError
from zoo.progress import Progress, ignore
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
from zoo.sharing.importers.writing import RESERVED, Arrays, bounds, write_zoo
from zoo.store.shards import CONSTANTS
from zoo.store.zoo import Zoo
from zoo.stored import COLUMN_NAME
from zoo.training.results import MEASURED
from zoo.treatments.base import Held

RECIPE, TABLE = "recipe.toml", "labels.csv"
FORMS = (".safetensors", ".pt")


def import_folder(source: str | Path, folder: str | Path, *, progress: Progress = ignore) -> Zoo:
    """Make a zoo from networks in separate files, in the order of the table.

    If `recipe.toml` has no `treatments`, the treatment is `standard`. Hyperparameters that its `training` leaves out
    get the bounds of the values in the table. A network with a weight that is not finite is kept and flagged as
    diverged.

    Arguments:
        source: Folder with the files described above.
        folder: New or empty folder for the zoo.
        progress: Called with the number of networks that were just written.

    Raises:
        ZooError: If a file is missing, outside the folder, or not valid.
        RecipeError: If the recipe is not valid.
    """
    source = Path(source)
    path = inside(source, TABLE)
    table = read_table(path, ("file", "test_accuracy"))
    files = table["file"].fillna("").tolist()
    if table["file"].duplicated().any():
        raise ZooError(f"{path}: lists {files[int(table['file'].duplicated().argmax())]} twice; remove one line")
    for name in files:
        if not name.endswith(FORMS):
            raise ZooError(f"{path}: {name!r} does not end in {' or '.join(FORMS)}; convert the file")
    known = _labels(table, path)
    recipe = _recipe(source, known, len(files))
    (treatment,) = recipe.treatments
    treated, held = recipe.treat(treatment), _held(source, recipe, treatment)
    layout, module = treated.layout, treated.module
    shapes = {parameter.name: parameter.shape for parameter in layout.parameters}

    most = OVERHEAD + 4 * sum(tensor.numel() for tensor in module.state_dict().values())

    def read(treatment: str, run: range) -> Arrays:
        weights = np.empty((len(run), layout.size), np.float32)
        for k, i in enumerate(run):
            file = inside(source, files[i])
            tensors = check_tensors(file, read_saved(file, most), shapes, module)
            row = layout.flatten(tensors)
            if "mask" in held and not torch.equal(row[~held["mask"]], held["constants"][~held["mask"]]):
                raise ZooError(
                    f"{file}: has fixed entries that are not the constants; save the weights as the network uses them"
                )
            weights[k] = row.numpy()
        return {"weights": weights} | {name: values[run.start : run.stop] for name, values in known.items()}

    return write_zoo(Path(folder), recipe, known, {treatment: held}, read, progress)


def _labels(table: pd.DataFrame, path: Path) -> Arrays:
    """Return metrics and hyperparameters of the table, by the names of columns."""
    known: Arrays = {}
    for name in table.columns.drop("file"):
        if name.endswith("_accuracy") and name in MEASURED:
            known[name] = numbers(table, name, path, 0.0, 1.0).astype(np.float32)
        elif name in MEASURED:
            known[name] = numbers(table, name, path, missing=True).astype(np.float32)
        elif not COLUMN_NAME.fullmatch(name):
            raise ZooError(f"{path}: {name!r} is not a valid name of a column; use letters, digits and _")
        elif name in RESERVED:
            raise ZooError(f"{path}: a column is named {name!r}, which every zoo has already; rename it")
        elif name == "epochs":
            known["epochs"] = whole_numbers(table, name, path, 1)
        elif name in HYPERPARAMETERS:
            known[name] = numbers(table, name, path)
        else:
            known[name] = exact_numbers(table, name, path)
    return known


def _recipe(source: Path, known: Arrays, networks: int) -> Recipe:
    """Return the recipe in the folder, with defaults for what it leaves out."""
    path = inside(source, RECIPE)
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: not valid TOML: {error}; correct it") from None
    training = values.get("training", {})
    values["training"] = bounds(known) | training if isinstance(training, dict) else training
    values = {"treatments": {"standard": {"kind": "standard"}}, "imported": {"source": source.name}} | values
    recipe = Recipe.read(values | {"pairs": networks}, str(path))
    if len(recipe.treatments) != 1:
        raise RecipeError(f"{path}: treatments: there are {len(recipe.treatments)}; a folder must have one")
    return recipe


def _held(source: Path, recipe: Recipe, treatment: str) -> Held:
    """Read the constants of the treatment, if it has any."""
    wanted = recipe.treat(treatment).held
    if not wanted:
        return {}
    path = inside(source, CONSTANTS)
    held: Held = read_saved(path, OVERHEAD + sum(8 * tensor.numel() for tensor in wanted.values()))
    if {n: (t.shape, t.dtype) for n, t in held.items()} != {n: (t.shape, t.dtype) for n, t in wanted.items()}:
        forms = ", ".join(f"{name} {tuple(t.shape)} {t.dtype}" for name, t in wanted.items())
        raise ZooError(f"{path}: does not have the constants of {treatment}, which are {forms}; save them again")
    return held
