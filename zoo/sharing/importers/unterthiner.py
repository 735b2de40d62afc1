"""Imports the Small CNN Zoo: networks of three convolutions on grey images, trained with varied hyperparameters.

A row of `weights.npy` is a checkpoint of a training run. `metrics.csv` has a row for each checkpoint, and `layout.csv`
says what the columns of `weights.npy` mean. The convolutions have no padding. The kernels are those of TensorFlow, with
the shape `(height, width, inputs, outputs)`.

Source: Unterthiner, Keysers, Gelly, Bousquet, Tolstikhin, *Predicting Neural Network Accuracy from Weights*, 2020,
https://arxiv.org/abs/2002.11448.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from zoo.errors import ZooError, nearest
from zoo.networks.parameters import ParameterLayout
from zoo.progress import Progress, ignore
from zoo.recipes.recipe import Recipe
from zoo.sharing.importers.files import inside, numbers, read_shape, read_table, whole_numbers
from zoo.sharing.importers.writing import Arrays, bounds, write_zoo
from zoo.store.zoo import Zoo

# Names of data sets there and here.
DATA = {"mnist": "mnist", "fashion_mnist": "fashion_mnist", "cifar10": "cifar10", "svhn_cropped": "svhn"}
COLOURED = ("cifar10", "svhn")
NUMBERS = ("dropout", "init_std", "train_fraction")  # optional hyperparameters that are numbers
TEXTS = ("optimizer", "w_init", "b_init")  # optional hyperparameters that are text
COLUMNS = ("modeldir", "step", "test_accuracy", "train_accuracy", "config.activation", "config.dataset")


@dataclass(frozen=True)
class Variable:
    """A tensor of a network.

    Arguments:
        name: Name in `layout.csv`.
        shape: Shape.
        columns: Columns of `weights.npy` that store the tensor.
    """

    name: str
    shape: tuple[int, ...]
    columns: range


def import_unterthiner(
    source: str | Path,
    folder: str | Path,
    *,
    activation: str | None = None,
    progress: Progress = ignore,
) -> Zoo:
    """Make a zoo of the last checkpoint of every run with one activation.

    The penalty `l2reg * sum(w^2)` on the weights becomes the weight decay `2 * l2reg`. Losses are left out, because
    they include this penalty.

    Arguments:
        source: Folder with `weights.npy`, `metrics.csv` (or `metrics.csv.gz`) and `layout.csv`.
        folder: New or empty folder for the zoo.
        activation: Activation of the networks to import, `relu` or `tanh`. It can be left out if all networks have the
            same activation.
        progress: Called with the number of networks that were just written.

    Raises:
        ZooError: If a file is missing or not valid, or there are no networks with the activation.
    """
    source = Path(source)
    weights = _open_weights(inside(source, "weights.npy"))
    variables = read_layout(inside(source, "layout.csv"), weights.shape[1])
    path = inside(source, "metrics.csv.gz" if (source / "metrics.csv.gz").is_file() else "metrics.csv")
    table = read_table(path, (*COLUMNS, "config.learning_rate", "config.epochs"), rows=len(weights))
    rows = _last_of_activation(table, path, activation)
    table = table.iloc[rows]
    known = _labels(table, path)
    recipe = _recipe(table, known, variables, path)
    columns = columns_of(variables, recipe.treat("standard").layout)

    def read(treatment: str, run: range) -> Arrays:
        part = slice(run.start, run.stop)
        reordered = np.asarray(weights[rows[part]][:, columns], np.float32)
        return {"weights": reordered} | {name: values[part] for name, values in known.items()}

    return write_zoo(Path(folder), recipe, known, {}, read, progress)


def _open_weights(path: Path) -> NDArray[np.floating[Any]]:
    try:
        weights = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a forged header can raise anything
        fact = f"is not an array of numbers of the size in its header ({type(error).__name__})"
        raise ZooError(f"{path}: {fact}; download it again") from None
    if not isinstance(weights, np.memmap) or weights.ndim != 2 or weights.dtype.kind != "f":
        raise ZooError(f"{path}: is not a two-dimensional array of floating-point numbers; download it again")
    return weights


def read_layout(path: Path, size: int) -> list[Variable]:
    """Read which columns store which tensor, from `layout.csv`.

    Arguments:
        path: Path of the file.
        size: Number of columns of `weights.npy`; each must belong to exactly one tensor.

    Raises:
        ZooError: If the file is not valid, or does not fit `weights.npy`.
    """
    table = read_table(path, ("varname", "start_idx", "end_idx", "shape"))
    starts, ends = (whole_numbers(table, name, path).tolist() for name in ("start_idx", "end_idx"))
    variables, at = [], 0
    for row in np.argsort(starts, kind="stable"):
        name, shape = str(table["varname"].iloc[row]), read_shape(str(table["shape"].iloc[row]))
        columns = range(starts[row], ends[row])
        if columns.start != at:
            how = "overlaps the tensor before it" if columns.start < at else "leaves a gap after the tensor before it"
            fact = f"{name} begins at column {columns.start} and {how}, which ends at {at}"
            raise ZooError(f"{path}: {fact}; download it again")
        if shape is None or prod(shape) != len(columns):
            fact = f"{name} has {len(columns)} columns and the shape {table['shape'].iloc[row]!r}"
            raise ZooError(f"{path}: {fact}; download it again")
        variables.append(Variable(name, shape, columns))
        at = columns.stop
    if at != size:
        raise ZooError(f"{path}: describes {at:,} columns, but weights.npy has {size:,}; download both again")
    return variables


def _layers(variables: list[Variable]) -> list[tuple[Variable, Variable]]:
    """Return kernel and bias of each layer, in the order of the columns."""
    layers: dict[str, dict[str, Variable]] = {}
    for variable in variables:
        layer, _, name = variable.name.rpartition("/")
        layers.setdefault(layer, {})[name.partition(":")[0]] = variable
    complete = [layer for layer in layers.values() if layer.keys() == {"kernel", "bias"}]
    ranks = [len(layer["kernel"].shape) for layer in complete]
    if len(complete) < len(layers) or 2 * len(complete) < len(variables) or ranks != [4] * (len(complete) - 1) + [2]:
        names = ", ".join(variable.name for variable in variables[:10])
        raise ZooError(
            f"layout.csv: the tensors are not kernels and biases of convolutions and one dense layer ({names}); "
            "download it again"
        )
    return [(layer["kernel"], layer["bias"]) for layer in complete]


def columns_of(variables: list[Variable], layout: ParameterLayout) -> NDArray[np.int64]:
    """Return the column of `weights.npy` that each entry of a row comes from, `(P,)`."""
    layers = _layers(variables)
    names = [*(f"convs.{i}.conv" for i in range(len(layers) - 1)), "output"]
    theirs: dict[str, NDArray[np.int64]] = {}
    for name, (kernel, bias) in zip(names, layers, strict=True):
        axes = (3, 2, 0, 1) if len(kernel.shape) == 4 else (1, 0)
        theirs[f"{name}.weight"] = np.array(kernel.columns).reshape(kernel.shape).transpose(axes)
        theirs[f"{name}.bias"] = np.array(bias.columns).reshape(bias.shape)
    for parameter in layout.parameters:
        if theirs[parameter.name].shape != parameter.shape:
            found = theirs[parameter.name].shape
            raise ZooError(
                f"layout.csv: {parameter.name} would have shape {found}, not {parameter.shape}; download it again"
            )
    return np.concatenate([theirs[parameter.name].ravel() for parameter in layout.parameters])


def _last_of_activation(table: pd.DataFrame, path: Path, activation: str | None) -> NDArray[np.int64]:
    """Return the rows of the last checkpoint of every run with one activation."""
    steps = pd.Series(whole_numbers(table, "step", path))
    runs = table["modeldir"].fillna("").str.replace(r"/permanent_ckpt-\d+$", "", regex=True)
    last = np.sort(steps.groupby(runs.to_numpy(), sort=False).idxmax().to_numpy())
    activations = table["config.activation"].fillna("").to_numpy(str)[last]
    known = sorted(set(activations.tolist()))
    if activation is None and len(known) > 1:
        raise ZooError(f"{path}: has networks with {', '.join(known)}; choose one with --activation")
    chosen = known[0] if activation is None else activation
    if chosen not in known:
        raise ZooError(f"{path}: has no networks with {chosen!r}{nearest(chosen, known)}; use {' or '.join(known)}")
    return last[activations == chosen]


def _labels(table: pd.DataFrame, path: Path) -> Arrays:
    """Return metrics and hyperparameters of the networks, by the names of columns."""
    known: Arrays = {
        "learning_rate": numbers(table, "config.learning_rate", path, 0.0),
        "epochs": whole_numbers(table, "config.epochs", path, 1),
    }
    if "config.l2reg" in table:
        known["weight_decay"] = 2 * numbers(table, "config.l2reg", path, 0.0)
    for name in NUMBERS:
        if f"config.{name}" in table:
            known[name] = numbers(table, f"config.{name}", path, missing=True)
    for name in TEXTS:
        if f"config.{name}" in table:
            known[name] = table[f"config.{name}"].fillna("").to_numpy(str)
    for name in ("train_accuracy", "test_accuracy"):
        known[name] = numbers(table, name, path, 0.0, 1.0).astype(np.float32)
    return known


def _recipe(table: pd.DataFrame, known: Arrays, variables: list[Variable], path: Path) -> Recipe:
    datasets = table["config.dataset"].fillna("").unique().tolist()
    if len(datasets) != 1 or datasets[0] not in DATA:
        fact = f"config.dataset is {', '.join(map(str, datasets))}"
        raise ZooError(f"{path}: {fact}; it must be one of {', '.join(DATA)} in all rows")
    data, activation = DATA[datasets[0]], table["config.activation"].iloc[0]
    kernels = [kernel.shape for kernel, _ in _layers(variables)]
    channels = [kernels[0][2], *(shape[3] for shape in kernels[:-1])]
    return Recipe.read(
        {
            "name": f"unterthiner2020-{data.replace('_', '-')}-{activation}",
            "description": f"The Small CNN Zoo of Unterthiner et al. (2020): {data}, {activation}.",
            "pairs": len(table),
            "data": {"name": data},
            "architecture": {
                "name": "cnn",
                "channels": channels,
                "classes": kernels[-1][1],
                "kernel": kernels[0][0],
                "activation": activation,
            },
            "training": {"batch_size": 512} | bounds(known),
            "treatments": {"standard": {"kind": "standard"}},
            "imported": {
                "source": "Unterthiner et al. 2020, Small CNN Zoo",
                "grey": data in COLOURED and channels[0] == 1,
                "mean": [0.5] * channels[0],
                "deviation": [0.5] * channels[0],
            },
        },
        str(path),
    )
