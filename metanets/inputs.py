"""What a metanetwork reads of a row: its entries, statistics of each tensor, or tensors; all follow from the layout.

A reader is fitted to the training networks, whose statistics standardise its outputs; it knows nothing of targets.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.errors import TaskError, nearest
from zoo.networks.parameters import ParameterLayout
from zoo.store.networks import Networks
from zoo.treatments import Treated

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Far above any weight of a network that trained (the largest in a zoo of 384 pairs on digits is 13.7). A network whose
# weights exploded must neither decide how all others are standardised nor overflow.
LARGEST = 1e6


class Reader(nn.Module):
    """Turns rows into inputs of a metanetwork.

    Arguments:
        layout: Layout of the rows.
        mask: True unless entries are held constant, `(P,)`; those are the same in all networks.
        activations: By axis, the name of the module that acts on it, such as `ReLU`.
        include_fixed: Whether to read the entries, too, that do not train.

    Attributes:
        read: True where entries are read, `(P,)`.
        features: Length of an input.
    """

    name: ClassVar[str]
    mask: Tensor
    read: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layout: ParameterLayout,
        mask: Bool[Tensor, " parameters"],
        activations: Mapping[str, str],
        include_fixed: bool = False,
    ) -> None:
        super().__init__()
        self.layout, self.activations, self.include_fixed = layout, dict(activations), include_fixed
        self.register_buffer("mask", mask)
        self.register_buffer("read", torch.ones_like(mask) if include_fixed else mask, persistent=False)
        self.features = self.arrange(torch.zeros(1, layout.size)).shape[1]
        self.register_buffer("mean", torch.zeros(self.features))
        self.register_buffer("std", torch.ones(self.features))

    @classmethod
    def of(cls, *networks: Networks | Treated, include_fixed: bool = False) -> "Reader":
        """Return a reader, not yet fitted, of networks of one or several treatments.

        Entries train if they do under any of the treatments. An axis on which treatments put different activations has
        all their names, such as `FiGLU or GELU`.
        """
        mask = torch.stack([each.mask for each in networks]).any(0)
        found = {axis: {each.activations.get(axis, "none") for each in networks} for axis in networks[0].activations}
        activations = {axis: " or ".join(sorted(names)) for axis, names in found.items()}
        return cls(networks[0].layout, mask, activations, include_fixed)

    def arrange(self, rows: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks features"]:
        """Return what is read, before it is standardised."""
        raise NotImplementedError

    def is_like(self, other: "Reader") -> bool:
        """Return whether another reader gives the same inputs."""
        if (self.name, self.layout) != (other.name, other.layout):
            return False
        mine, others = ({**each.state_dict(), "read": each.read} for each in (self, other))
        return all(torch.equal(tensor.cpu(), others[name].cpu()) for name, tensor in mine.items())

    def fit(self, rows: Float[Tensor, "networks parameters"]) -> "Reader":
        """Take the mean and standard deviation of each feature over some networks, those of exploded weights apart."""
        x = self.arrange(_usual(rows))
        self._standardise_by(x.mean(0), x.std(0))
        return self

    def _standardise_by(self, mean: Tensor, std: Tensor) -> None:
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, 1))

    def forward(self, rows: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks features"]:
        """Return the standardised inputs."""
        return ((self.arrange(rows) - self.mean) / self.std).clamp(-LARGEST, LARGEST)


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
        x = torch.cat(features, 1)
        if x.isfinite().all() or rows.dtype == torch.float64:
            return x
        limit = torch.finfo(rows.dtype).max  # squares of weights beyond 1e19 overflow in single precision
        return x.where(x.isfinite(), self.arrange(rows.double()).clamp(-limit, limit).to(rows.dtype))


class Tensors(Reader):
    """All entries of a row, those of a tensor standardised together, which commutes with permutations of units.

    An inverse hyperbolic sine compresses them: networks trained at the highest rates have far larger weights.

    Entries that do not train keep their place; `read` and `mask` tell a metanetwork which they are.
    """

    name = "tensors"

    def arrange(self, rows: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks features"]:
        """Return the rows."""
        return rows

    def fit(self, rows: Float[Tensor, "networks parameters"]) -> "Tensors":
        """Take the median over networks of the mean and standard deviation of each tensor's entries that train.

        The median is used since some networks' weights are far larger than all others.
        """
        rows = _usual(rows)
        mean, std = torch.zeros_like(self.mean), torch.ones_like(self.std)
        for where in self.layout.slices.values():
            if (mask := self.mask[where]).any():
                values = rows[:, where][:, mask]
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


def is_usual(rows: Float[Tensor, "networks parameters"]) -> Bool[Tensor, " networks"]:
    """Return of which networks the weights did not explode."""
    return rows.abs().amax(1) <= LARGEST


def _usual(rows: Float[Tensor, "networks parameters"]) -> Float[Tensor, "some parameters"]:
    """Return the rows without those whose weights exploded, unless all did."""
    usual = is_usual(rows)
    return rows[usual] if usual.any() and not usual.all() else rows


READERS: dict[str, type[Reader]] = {reader.name: reader for reader in (Rows, Statistics, Tensors)}


def fit_reader(reads: str, *networks: Networks, include_fixed: bool = False, column: str = "weights") -> Reader:
    """Return a reader fitted to networks, usually those of the train split.

    Arguments:
        reads: Name of the reader, a key of `READERS`.
        networks: Networks of one layout; `Networks` of one treatment each.
        include_fixed: Whether to read the entries, too, that do not train.
        column: Column of rows to read.
    """
    if reads not in READERS:
        raise TaskError(f"reads: there is no reader {reads!r}{nearest(reads, READERS)}; there are {', '.join(READERS)}")
    reader = READERS[reads].of(*networks, include_fixed=include_fixed)
    return reader.fit(torch.cat([each.rows(column)[:] for each in networks]))
