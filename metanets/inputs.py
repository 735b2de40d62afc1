"""What a metanetwork reads of a row: entries, statistics of each tensor, or tensors. All follow from the layout.

A reader is fitted to the training networks, whose statistics standardise what it gives; it knows nothing of targets.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.networks.parameters import ParameterLayout
from zoo.treatments import Treated

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


class Reader(nn.Module):
    """Turns rows into inputs of a metanetwork.

    Arguments:
        layout: what the columns of a row mean.
        trainable: `(P,)`, false where an entry is the same in all networks.
        activations: of each axis, the name of the module that acts on it, such as `ReLU`.
        fixed: whether to read the entries, too, that are the same in all networks.

    Attributes:
        read: `(P,)`, the entries that are read.
        features: length of an input.
    """

    name: ClassVar[str]
    trainable: Tensor
    read: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layout: ParameterLayout,
        trainable: Bool[Tensor, " parameters"],
        activations: Mapping[str, str],
        fixed: bool = False,
    ) -> None:
        super().__init__()
        self.layout, self.activations, self.fixed = layout, dict(activations), fixed
        self.register_buffer("trainable", trainable)
        self.register_buffer("read", torch.ones_like(trainable) if fixed else trainable, persistent=False)
        self.features = self.arrange(torch.zeros(1, layout.size)).shape[1]
        self.register_buffer("mean", torch.zeros(self.features))
        self.register_buffer("std", torch.ones(self.features))

    @classmethod
    def of(cls, treated: Treated, fixed: bool = False) -> "Reader":
        """Return the reader of an architecture under a treatment."""
        return cls(treated.layout, treated.trainable, treated.activations, fixed)

    def arrange(self, rows: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks features"]:
        """Return what is read, before it is standardised."""
        raise NotImplementedError

    def fit(self, rows: Float[Tensor, "networks parameters"]) -> "Reader":
        """Take the mean and standard deviation of each feature over some networks."""
        x = self.arrange(rows)
        self._standardise_by(x.mean(0), x.std(0))
        return self

    def _standardise_by(self, mean: Tensor, std: Tensor) -> None:
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, 1))

    def forward(self, rows: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks features"]:
        """Return the standardised inputs."""
        return (self.arrange(rows) - self.mean) / self.std


class Rows(Reader):
    """The entries of a row, each standardised by itself."""

    name = "rows"

    def arrange(self, rows: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks features"]:
        """Return the entries that are read."""
        return rows[:, self.read]


class Statistics(Reader):
    """Seven statistics of each parameter tensor: mean, variance, minimum, quartiles, maximum.

    Source: Unterthiner et al. 2020, *Predicting Neural Network Accuracy from Weights*,
    https://arxiv.org/abs/2002.11448.
    """

    name = "statistics"

    def arrange(self, rows: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks features"]:
        """Return the statistics of the entries that are read; a tensor of which none is read is left out."""
        features = []
        quantiles = torch.tensor(QUANTILES, dtype=rows.dtype, device=rows.device)
        for where in self.layout.slices.values():
            if self.read[where].any():
                values = rows[:, where][:, self.read[where]]
                mean, variance = values.mean(1), values.var(1, correction=0)
                features += [mean[:, None], variance[:, None], values.quantile(quantiles, dim=1).T]
        return torch.cat(features, 1)


class Tensors(Reader):
    """All entries of a row, those of a tensor standardised together, which commutes with permutations of units.

    An inverse hyperbolic sine takes in the weights of networks trained at the highest rates, far larger than others.

    Entries that no network trains keep their place; a metanetwork finds in `read` and `trainable` which they are.
    """

    name = "tensors"

    def arrange(self, rows: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks features"]:
        """Return the rows."""
        return rows

    def fit(self, rows: Float[Tensor, "networks parameters"]) -> "Tensors":
        """Take mean and standard deviation of each tensor's trainable entries in the median of some networks.

        The median, since some networks' weights are far larger than all others.
        """
        mean, std = torch.zeros_like(self.mean), torch.ones_like(self.std)
        for where in self.layout.slices.values():
            if (trainable := self.trainable[where]).any():
                values = rows[:, where][:, trainable]
                mean[where] = middle = values.mean(1).median()
                std[where] = (values - middle).square().mean(1).sqrt().median()
        self._standardise_by(mean, std)
        return self

    def forward(self, rows: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks features"]:
        """Return the standardised entries, compressed."""
        return super().forward(rows).asinh()

    def invert(self, x: Float[Tensor, "*networks features"]) -> Float[Tensor, "*networks parameters"]:
        """Return the rows that `forward` was given."""
        return x.sinh() * self.std + self.mean


READERS: dict[str, type[Reader]] = {reader.name: reader for reader in (Rows, Statistics, Tensors)}
