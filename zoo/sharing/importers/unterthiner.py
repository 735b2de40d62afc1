"""The Small CNN Zoo: networks of three convolutions on grey images, trained with varied hyperparameters.

Source: Unterthiner, Keysers, Gelly, Bousquet, Tolstikhin, *Predicting Neural Network Accuracy from Weights*, 2020,
https://arxiv.org/abs/2002.11448. A row of `weights.npy` is a checkpoint of a run; `metrics.csv` tells of each,
`layout.csv` what the columns mean. Its convolutions have no padding, as ours; TensorFlow's kernels are `(height, width,
inputs, outputs)`.
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
from zoo.recipes.recipe import Recipe
from zoo.sharing.importers.files import inside, numbers, read_shape, read_table, whole_numbers
from zoo.sharing.importers.writing import Arrays, Progress, bounds, write_zoo
from zoo.store.zoo import Zoo

DATA = {"mnist": "mnist", "fashion_mnist": "fashion_mnist", "cifar10": "cifar10", "svhn_cropped": "svhn"}
COLOURED = ("cifar10", "svhn")
NUMBERS = ("dropout", "init_std", "train_fraction")
TEXTS = ("optimizer", "w_init", "b_init")
COLUMNS = ("modeldir", "step", "test_accuracy", "train_accuracy", "config.activation", "config.dataset")


@dataclass(frozen=True)
class Variable:
    """A tensor of a network: its name, its shape, and the columns of a row that hold it."""

    name: str
    shape: tuple[int, ...]
    columns: range


def import_unterthiner(
    source: str | Path,
    folder: str | Path,
    *,
    activation: str | None = None,
    progress: Progress = lambda networks: None,
) -> Zoo:
    """Make a zoo of the last checkpoint of every run, of one activation.

    Losses are left out, since theirs include the penalty on the weights; that penalty `l2reg * sum(w^2)` is the weight
    decay `2 * l2reg` of ours.

    Arguments:
        source: folder with `weights.npy`, `metrics.csv` (or `metrics.csv.gz`) and `layout.csv`.
        folder: of the zoo, new or empty.
        activation: `relu` or `tanh`; may be left out if all networks have the same.
        progress: called with the number of networks just written.

    Raises:
        ZooError: if a file is missing or not what it should be, or there are no networks of that activation.
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
        own = np.asarray(weights[rows[part]][:, columns], np.float32)
        return {"weights": own} | {name: values[part] for name, values in known.items()}

    return write_zoo(Path(folder), recipe, known, {}, read, progress)


def _open_weights(path: Path) -> NDArray[np.floating[Any]]:
    try:
        weights = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # whatever a forged header leads to
        raise ZooError(f"{path}: is no array of numbers as large as it says ({type(error).__name__})") from None
    if not isinstance(weights, np.memmap) or weights.ndim != 2 or weights.dtype.kind != "f":
        raise ZooError(f"{path}: is no two-dimensional array of floating-point numbers; fetch it again")
    return weights


def read_layout(path: Path, size: int) -> list[Variable]:
    """Read which columns hold which tensor; together they must be all `size` columns, each once."""
    table = read_table(path, ("varname", "start_idx", "end_idx", "shape"))
    starts, ends = (whole_numbers(table, name, path).tolist() for name in ("start_idx", "end_idx"))
    variables, at = [], 0
    for row in np.argsort(starts, kind="stable"):
        name, shape = str(table["varname"].iloc[row]), read_shape(str(table["shape"].iloc[row]))
        columns = range(starts[row], ends[row])
        if columns.start != at:
            how = "overlaps the one before" if columns.start < at else "leaves a gap"
            raise ZooError(f"{path}: {name} begins at column {columns.start} and {how}, which ends at {at}")
        if shape is None or prod(shape) != len(columns):
            raise ZooError(f"{path}: {name} has {len(columns)} columns and the shape {table['shape'].iloc[row]!r}")
        variables.append(Variable(name, shape, columns))
        at = columns.stop
    if at != size:
        raise ZooError(f"{path}: tells of {at:,} columns, weights.npy has {size:,}; fetch both again")
    return variables


def _layers(variables: list[Variable]) -> list[tuple[Variable, Variable]]:
    """Return kernel and bias of each layer, in the order of the columns."""
    layers: dict[str, dict[str, Variable]] = {}
    for variable in variables:
        layer, _, name = variable.name.rpartition("/")
        layers.setdefault(layer, {})[name.partition(":")[0]] = variable
    whole = [each for each in layers.values() if each.keys() == {"kernel", "bias"}]
    ranks = [len(each["kernel"].shape) for each in whole]
    if len(whole) < len(layers) or 2 * len(whole) < len(variables) or ranks != [4] * (len(whole) - 1) + [2]:
        raise ZooError(
            f"layout.csv: the tensors are not kernels and biases of convolutions and one dense layer: "
            f"{', '.join(variable.name for variable in variables[:10])}"
        )
    return [(each["kernel"], each["bias"]) for each in whole]


def columns_of(variables: list[Variable], layout: ParameterLayout) -> NDArray[np.int64]:
    """Return from which of their columns each of ours comes, `(P,)`."""
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
                f"layout.csv: {parameter.name} would have shape {found}, not {parameter.shape}; fetch it again"
            )
    return np.concatenate([theirs[parameter.name].ravel() for parameter in layout.parameters])


def _last_of_activation(table: pd.DataFrame, path: Path, activation: str | None) -> NDArray[np.int64]:
    """Return the rows of the last step of every run of one activation."""
    steps = pd.Series(whole_numbers(table, "step", path))
    runs = table["modeldir"].fillna("").str.replace(r"/permanent_ckpt-\d+$", "", regex=True)
    last = np.sort(steps.groupby(runs.to_numpy(), sort=False).idxmax().to_numpy())
    activations = table["config.activation"].fillna("").to_numpy(str)[last]
    known = sorted(set(activations.tolist()))
    if activation is None and len(known) > 1:
        raise ZooError(f"{path}: has networks of {', '.join(known)}; choose one with --activation")
    chosen = known[0] if activation is None else activation
    if chosen not in known:
        raise ZooError(f"{path}: has no networks of {chosen!r}{nearest(chosen, known)}; it has {', '.join(known)}")
    return last[activations == chosen]


def _labels(table: pd.DataFrame, path: Path) -> Arrays:
    """Return what is known of each network, by the names of our fields."""
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
        raise ZooError(f"{path}: config.dataset is {', '.join(map(str, datasets))}; one of {', '.join(DATA)} is known")
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
