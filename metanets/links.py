"""From a metanetwork's output to a prediction: the link, which follows from the description of the target.

A target is predicted on a scale, that of its column (`zoo.store.columns.Column.scale`): learning rates, which are drawn
log-uniformly, are predicted as logarithms. Losses and metrics are taken on that scale.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import cross_entropy, smooth_l1_loss

from zoo.store.columns import Column


@dataclass(frozen=True)
class Link:
    """Turns outputs of order 1, `(N, outputs)`, into predictions.

    Arguments:
        kind: `identity`; `sigmoid` for targets with bounds, which predictions keep; `logarithm` for targets whose
            logarithm is predicted; or `softmax` for classes. All rise with the same slope at the mean.
        mean: Mean of the training networks' targets, on their scale.
        std: Their standard deviation.
        low: Least value of a `sigmoid`.
        high: Greatest value of a `sigmoid`.
        classes: Number of classes of a `softmax`.
    """

    kind: Literal["identity", "sigmoid", "logarithm", "softmax"] = "identity"
    mean: float = 0.0
    std: float = 1.0
    low: float = 0.0
    high: float = 1.0
    classes: int = 0

    @classmethod
    def of(cls, y: Shaped[Tensor, " networks"], column: Column | None = None) -> "Link":
        """Return the link of a target, fitted to the training networks.

        Arguments:
            y: Targets on their scale; classes if they are integers.
            column: Description of the target; without it targets have no bounds.
        """
        if not y.is_floating_point():
            return cls("softmax", classes=int(y.max()) + 1)
        mean, std = float(y.mean()), float(y.std())
        if column is not None and column.scale == "logarithmic":
            return cls("logarithm", mean, std)
        low, high = (None, None) if column is None else column.bounds
        if low is not None and high is not None and low < mean < high:
            return cls("sigmoid", mean, std, low, high)
        return cls("identity", mean, std)

    @property
    def outputs(self) -> int:
        """Number of outputs that a metanetwork needs."""
        return self.classes if self.kind == "softmax" else 1

    def standardise(self, y: Float[Tensor, " networks"]) -> Float[Tensor, " networks"]:
        """Return targets as outputs of an identity would be: without their mean, over their standard deviation."""
        return (y - self.mean) / self.std

    def unbounded(self) -> "Link":
        """Return the link without a sigmoid, for what cannot predict beyond its training targets anyway."""
        return replace(self, kind="identity") if self.kind == "sigmoid" else self

    def __call__(self, z: Float[Tensor, "*networks outputs"]) -> Float[Tensor, "..."]:
        """Return predictions on the target's scale, `(N,)`, or the probabilities of classes, `(N, classes)`."""
        if self.kind == "softmax":
            return z.softmax(-1)
        z = z.squeeze(-1)
        if self.kind != "sigmoid":
            return self.mean + self.std * z
        width = self.high - self.low
        mean = (self.mean - self.low) / width
        slope = self.std / width / (mean * (1 - mean))
        return self.low + width * torch.sigmoid(math.log(mean / (1 - mean)) + slope * z)

    def loss(
        self, z: Float[Tensor, "*networks outputs"], y: Shaped[Tensor, "*networks"], huber: float
    ) -> Float[Tensor, ""]:
        """Return the summed loss of outputs: cross-entropy of classes, else Huber's of the error over `std`.

        Source: Huber 1964, *Robust Estimation of a Location Parameter*, https://doi.org/10.1214/aoms/1177703732.
        """
        if self.kind == "softmax":
            return cross_entropy(z.flatten(0, -2), y.flatten(), reduction="sum")
        return smooth_l1_loss(self(z) / self.std, y / self.std, reduction="sum", beta=huber)

    def on_scale(self, values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Return targets or predictions in units on the scale on which metrics are taken, the inverse of `in_units`."""
        return np.log(values) if self.kind == "logarithm" else values

    def in_units(self, predicted: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return predictions in the units of the target: those of logarithms are raised to powers of e."""
        return predicted.exp() if self.kind == "logarithm" else predicted
