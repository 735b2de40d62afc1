"""The columns of a zoo: the values stored for each network, with the same names in HDF5, Parquet and `Networks`."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

Kind = Literal["id", "weights", "constant", "hyperparameter", "setting", "metric", "curve", "cost"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
WEIGHTS = ("weights", "initial_weights")
CONSTANT = ("mask", "constants", "decay", "held_F")  # columns of constants that differ between networks


class Column(BaseModel):
    """Description of a column, which has one value or one row of values for each network.

    Arguments:
        name: Name of the column, the same in every file.
        kind: Kind of its values: `id` (which network it is), `weights`, `constant` (a constant of this network alone),
            `hyperparameter`, `setting` (a hyperparameter that is text), `metric`, `curve` (a metric after each epoch,
            NaN where not measured), or `cost`.
        dtype: Type of its values: a type of NumPy, or `string`.
        width: Number of values for each network, `parameters` for the length of a row; None for a single value.
        unit: Unit: `fraction`, `nat`, `second` or `epoch`; empty if there is none.
        scale: Scale on which values are compared.
        bounds: Lowest and highest value; None if there is no bound.
        meaning: What the values mean, in one sentence.
        treatments: Names of the treatments that have the column; None for all.
    """

    model_config = ConfigDict(extra="allow", frozen=True)  # a growing zoo keeps the fields that later versions added
    name: str
    kind: Kind
    dtype: Annotated[str, Field(pattern=r"^(string|bool|u?int(8|16|32|64)|float(16|32|64))$")]
    width: PositiveInt | Literal["parameters"] | None = None
    unit: str = ""
    scale: Literal["linear", "logarithmic"] = "linear"
    bounds: tuple[float | None, float | None] = (None, None)
    meaning: str = ""
    treatments: tuple[str, ...] | None = None

    def shape(self, networks: int, parameters: int) -> tuple[int, ...]:
        """Return the shape of the column's array for K networks with P parameters each."""
        if self.width is None:
            return (networks,)
        return (networks, parameters if self.width == "parameters" else self.width)

    def mismatch(self, values: NDArray[np.generic], networks: int, parameters: int) -> str | None:
        """Return how type or shape of an array differ from those of the column, None if they do not."""
        dtype = "string" if values.dtype.kind in "UO" else str(values.dtype)
        wanted = self.shape(networks, parameters)
        if (dtype, values.shape) == (self.dtype, wanted):
            return None
        return f"{self.name} is {dtype} {values.shape}, not {self.dtype} {wanted}"


def _metrics(kind: Kind, prefix: str, when: str) -> list[Column]:
    columns = []
    for split in ("train", "test"):
        for name, unit, bounds, what in (
            ("accuracy", "fraction", (0.0, 1.0), f"Fraction of {split} examples that are classified correctly"),
            ("loss", "nat", (0.0, None), f"Mean cross-entropy of {split} examples, without label smoothing"),
        ):
            columns.append(
                Column(
                    name=f"{prefix}{split}_{name}",
                    kind=kind,
                    dtype="float32",
                    unit=unit,
                    bounds=bounds,
                    meaning=f"{what}, {when}.",
                )
            )
    return columns


# The columns of zoos. The recipe decides the width of curves and constants, and scale and bounds of hyperparameters.
KNOWN: dict[str, Column] = {
    column.name: column
    for column in (
        Column(
            name="weights",
            kind="weights",
            dtype="float32",
            width="parameters",
            meaning="Trained weights as the network uses them; fixed entries are the constants.",
        ),
        Column(
            name="initial_weights",
            kind="weights",
            dtype="float32",
            width="parameters",
            meaning="Weights before training, as the network uses them.",
        ),
        Column(
            name="pair",
            kind="id",
            dtype="int64",
            bounds=(0.0, None),
            meaning="Number of the pair; every treatment has one network of each pair.",
        ),
        Column(
            name="split",
            kind="id",
            dtype="string",
            meaning="Split: `train` (50 %), `validation` (25 %) or `test` (25 %), the same for all networks of a pair.",
        ),
        Column(
            name="status",
            kind="id",
            dtype="string",
            meaning="`trained` or `diverged`; the weights of a diverged network are those of its last finite loss.",
        ),
        Column(
            name="seconds",
            kind="cost",
            dtype="float32",
            unit="second",
            bounds=(0.0, None),
            meaning="Training time; in a stack, in every epoch, the time of the stack divided by its networks.",
        ),
        Column(
            name="learning_rate",
            kind="hyperparameter",
            dtype="float64",
            bounds=(0.0, None),
            meaning="Highest learning rate of the schedule.",
        ),
        Column(
            name="weight_decay",
            kind="hyperparameter",
            dtype="float64",
            bounds=(0.0, None),
            meaning="Weight decay, decoupled for AdamW and part of the gradient for SGD.",
        ),
        Column(
            name="label_smoothing",
            kind="hyperparameter",
            dtype="float64",
            unit="fraction",
            bounds=(0.0, 1.0),
            meaning="Fraction of the label's probability that is spread over all classes.",
        ),
        Column(
            name="epochs",
            kind="hyperparameter",
            dtype="int64",
            unit="epoch",
            bounds=(0.0, None),
            meaning="Number of passes over the training set.",
        ),
        *_metrics("metric", "", "after training, on data without augmentation"),
        *_metrics("curve", "curve_", "after each epoch, NaN where not measured"),
        Column(
            name="mask",
            kind="constant",
            dtype="uint8",
            meaning="Mask of this network, true where entries train: P bits, packed by `numpy.packbits`.",
        ),
        Column(
            name="constants",
            kind="constant",
            dtype="float32",
            width="parameters",
            meaning="Constants of this network, which are added to the entries that train.",
        ),
        Column(
            name="decay",
            kind="constant",
            dtype="float32",
            width="parameters",
            meaning="Factors of this network on the weight decay.",
        ),
        Column(
            name="held_F",
            kind="constant",
            dtype="float32",
            meaning="Matrices `F` of this network's activations `x * sigmoid(F @ x)`, laid end to end.",
        ),
    )
}
