"""The columns of a zoo: what is known of each network, under one name in HDF5, Parquet, Croissant and `Zoo.field`."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

Kind = Literal["id", "weights", "constant", "hyperparameter", "setting", "metric", "curve", "cost"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
WEIGHTS = ("weights", "initial_weights")
CONSTANT = ("mask", "constants", "decay", "held_F")  # what a treatment may hold for each network by itself


class Column(BaseModel):
    """One value, or one row of values, for each network.

    Arguments:
        name: of the column, the same in every file.
        kind: `id` (which network it is), `weights`, `constant` (what a treatment holds for this network alone),
            `hyperparameter`, `setting` (a hyperparameter in words), `metric`, `curve` (a metric after each epoch, NaN
            after the last), `cost`.
        dtype: NumPy's name, or `string`.
        width: values for each network, `parameters` for the length of a row; None for a single value.
        unit: `fraction`, `nat`, `second`, `epoch`; empty if it has none.
        scale: on which its values are compared.
        bounds: least and greatest value, None where there is none.
        meaning: one sentence.
        treatments: that have the column; None for all.
    """

    model_config = ConfigDict(extra="allow", frozen=True)  # what later versions add is kept when a zoo grows
    name: str
    kind: Kind
    dtype: Annotated[str, Field(pattern=r"^(string|bool|u?int(8|16|32|64)|float(16|32|64))$")]
    width: PositiveInt | Literal["parameters"] | None = None
    unit: str = ""
    scale: Literal["linear", "logarithmic"] = "linear"
    bounds: tuple[float | None, float | None] = (None, None)
    meaning: str = ""
    treatments: tuple[str, ...] | None = None

    @property
    def numpy_dtype(self) -> DTypeLike:
        """The type of its values in memory."""
        return np.str_ if self.dtype == "string" else np.dtype(self.dtype)

    def shape(self, networks: int, parameters: int) -> tuple[int, ...]:
        """Return the shape of its array, for a number of networks that have `parameters` parameters each."""
        if self.width is None:
            return (networks,)
        return (networks, parameters if self.width == "parameters" else self.width)

    def mismatch(self, values: NDArray[np.generic], networks: int, parameters: int) -> str | None:
        """Return how an array differs from what the column says, None if it does not."""
        dtype = "string" if values.dtype.kind in "UO" else str(values.dtype)
        wanted = self.shape(networks, parameters)
        if (dtype, values.shape) == (self.dtype, wanted):
            return None
        return f"{self.name} is {dtype} {values.shape}, not {self.dtype} {wanted}"


def _metrics(kind: Kind, prefix: str, when: str) -> list[Column]:
    columns = []
    for split in ("train", "test"):
        for name, unit, bounds, what in (
            ("accuracy", "fraction", (0.0, 1.0), f"Fraction of {split} examples classified rightly"),
            ("loss", "nat", (0.0, None), f"Mean cross-entropy of {split} examples, labels unsmoothed"),
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


# What zoos have; curves and constants get their widths, and hyperparameters their scale and bounds, from the recipe.
KNOWN: dict[str, Column] = {
    column.name: column
    for column in (
        Column(
            name="weights",
            kind="weights",
            dtype="float32",
            width="parameters",
            meaning="Trained weights as the network uses them; at fixed entries, the constants.",
        ),
        Column(
            name="initial_weights",
            kind="weights",
            dtype="float32",
            width="parameters",
            meaning="The same before training.",
        ),
        Column(
            name="pair",
            kind="id",
            dtype="int64",
            bounds=(0.0, None),
            meaning="Number of the pair; the same number is the same draw under every treatment.",
        ),
        Column(
            name="split",
            kind="id",
            dtype="string",
            meaning="`train` (50 %), `validation` (25 %) or `test` (25 %), the same for all networks of a pair.",
        ),
        Column(
            name="status",
            kind="id",
            dtype="string",
            meaning="`trained`, or `diverged`: then the weights are those of the last finite loss.",
        ),
        Column(
            name="seconds",
            kind="cost",
            dtype="float32",
            unit="second",
            bounds=(0.0, None),
            meaning="Time of training on one core: the network's part of its stack's.",
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
            meaning="Weight decay: decoupled for AdamW, part of the gradient for SGD.",
        ),
        Column(
            name="label_smoothing",
            kind="hyperparameter",
            dtype="float64",
            unit="fraction",
            bounds=(0.0, 1.0),
            meaning="Fraction of the label's mass that is spread over all classes.",
        ),
        Column(
            name="epochs",
            kind="hyperparameter",
            dtype="int64",
            unit="epoch",
            bounds=(0.0, None),
            meaning="Passes over the training set.",
        ),
        *_metrics("metric", "", "after training, on plain data without augmentation"),
        *_metrics("curve", "curve_", "after each epoch, NaN after the last"),
        Column(
            name="mask",
            kind="constant",
            dtype="uint8",
            meaning="The network's own mask, true where entries train: P bits, by `numpy.packbits`.",
        ),
        Column(
            name="constants",
            kind="constant",
            dtype="float32",
            width="parameters",
            meaning="The network's own constants, added to what trains.",
        ),
        Column(
            name="decay",
            kind="constant",
            dtype="float32",
            width="parameters",
            meaning="The network's own factors on the weight decay.",
        ),
        Column(
            name="held_F",
            kind="constant",
            dtype="float32",
            meaning="The network's own matrices `F` of its activations `x * sigmoid(F @ x)`, laid end to end.",
        ),
    )
}
