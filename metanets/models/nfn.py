"""Neural functionals: linear maps of weights that commute with permutations of units, with ReLU between them.

Source: Zhou et al. 2023, *Permutation Equivariant Neural Functionals*, https://arxiv.org/abs/2302.14040; derived from
the axes of any layout as in Zhou et al. 2024, *Universal Neural Functionals*, https://arxiv.org/abs/2402.05232.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.nn import MLP, PositionalEncoding

from metanets.inputs import Reader
from metanets.models.base import Metanetwork
from metanets.settings import Settings
from zoo.errors import TaskError
from zoo.networks.parameter import IDENTIFIED
from zoo.networks.parameters import ParameterLayout

AxisSet = tuple[str, ...]  # sorted
Features = dict[AxisSet, Tensor]  # of all entries that have these axes: (*lengths, networks, channels)


class Equivariant(nn.Module):
    """Every linear map of features that commutes with permutations of the units of each axis, and no other.

    With `x_S` the features of entries that have the set S of axes,

        y_S = b_S + sum_{T in S} A_ST concat_{U contains T} mean of x_U over the axes not in T

    For T = S the mean is the entry itself, for T = {a} it is over the rows or columns of a unit of axis a, and for
    T = {} over whole tensors.

    Arguments:
        channels: Number of channels of each x_S.
        hidden: Number of channels of each y_S.
    """

    def __init__(self, channels: Mapping[AxisSet, int], hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        kept = {kept for axes in channels for size in range(len(axes) + 1) for kept in combinations(axes, size)}
        self.shared = {
            shared: [axes for axes in channels if {*shared} <= {*axes}]
            for shared in sorted(kept, key=lambda shared: (len(shared), shared))  # sums grow late
        }
        self.maps = nn.ModuleList(
            nn.Linear(sum(channels[axes] for axes in having), hidden * len(having), bias=not shared)
            for shared, having in self.shared.items()
        )

    def forward(self, x: Features) -> Features:
        """Return the new features, of the same axes."""
        averages = {axes: means(x_, axes) for axes, x_ in x.items()}
        y: Features = {}
        for (shared, having), linear in zip(self.shared.items(), self.maps, strict=True):
            parts = [averages[axes][shared] for axes in having]
            alone = len(having) == 1  # as the largest are, which cat and split would copy
            terms = [linear(parts[0])] if alone else linear(torch.cat(parts, -1)).split(self.hidden, -1)
            for axes, term in zip(having, terms, strict=True):
                term = spread(term, shared, axes)
                y[axes] = y[axes] + term if axes in y else term
        return y


def means(x: Float[Tensor, "..."], axes: AxisSet) -> Features:
    """Return the means over all other axes for each subset of the axes, from all axes to none."""
    found = {axes: x}
    for size in reversed(range(len(axes))):
        for kept in combinations(axes, size):
            pooled = next(axis for axis in axes if axis not in kept)
            wider = tuple(axis for axis in axes if axis in {*kept, pooled})
            dim = wider.index(pooled)
            # In its backward pass `mean` would divide after the gradient is expanded.
            found[kept] = found[wider].sum(dim) / found[wider].shape[dim]
    return found


def spread(x: Float[Tensor, "..."], kept: AxisSet, axes: AxisSet) -> Float[Tensor, "..."]:
    """Insert dimensions of length 1 for those of `axes` that were not kept."""
    for dim, axis in enumerate(axes):
        if axis not in kept:
            x = x.unsqueeze(dim)
    return x


class NeuralFunctional(Metanetwork):
    """Equivariant layers with ReLU between, then a perceptron on the means of all features.

    A further channel marks entries that do not train. Kernel positions are channels, too.

    Arguments:
        reader: Reader of the networks.
        outputs: Number of outputs.
        channels: Number of channels of the features of each set of axes.
        layers: Number of layers.
        codes: Number of channels, sines and cosines, for the position of an input or a class; none if 0.

    Attributes:
        folded: Axes whose units are channels, too.

    Raises:
        TaskError: If a tensor has one axis twice.
    """

    reads = "tensors"
    settings = Settings(epochs=30, steps=1600, batch_size=16)  # those of deepsets
    folded: ClassVar[frozenset[str]]
    marks: Tensor | None

    def __init__(self, reader: Reader, outputs: int, channels: int, layers: int, codes: int) -> None:
        super().__init__(reader)
        self.layout = reader.layout.split
        refuse_repeated_axes(self.layout)
        marks = (~reader.mask).to(torch.get_default_dtype())[None]
        self.register_buffer("marks", marks if marks.any() else None, persistent=False)
        self.coded = sorted(IDENTIFIED & self.layout.axes.keys()) if codes else []
        for axis in self.coded:
            code: Tensor = PositionalEncoding(codes, base_freq=1e-2)(torch.arange(self.layout.axes[axis]))
            self.register_buffer(f"{axis}_code", code[:, None], persistent=False)
        sizes = {axes: x.shape[-1] for axes, x in self.arrange(torch.zeros(1, self.layout.size)).items()}
        self.layers = nn.ModuleList([Equivariant(sizes, channels)])
        self.layers.extend(Equivariant(dict.fromkeys(sizes, channels), channels) for _ in range(layers - 1))
        self.head = MLP([channels * len(sizes), 4 * channels, outputs], norm=None)

    def arrange(self, x: Float[Tensor, "networks parameters"]) -> Features:
        """Return the entries of rows as features; those with the same axes are stacked as channels."""
        parts: dict[AxisSet, list[Tensor]] = {}
        for values in (x,) if self.marks is None else (x, self.marks.expand_as(x)):
            for name, tensor in self.layout.unflatten(values).items():
                axes_of = enumerate(self.layout[name].names)
                dims = {axis: 1 + d for d, axis in axes_of if axis is not None and axis not in self.folded}
                axes = tuple(sorted(dims))
                tensor = tensor.movedim([dims[axis] for axis in axes] + [0], list(range(len(axes) + 1)))
                parts.setdefault(axes, []).append(tensor.reshape(*tensor.shape[: len(axes) + 1], -1))
        for axis in self.coded:
            code = getattr(self, f"{axis}_code")
            parts.setdefault((axis,), []).append(code.expand(-1, len(x), -1))
        return {axes: torch.cat(tensors, -1) for axes, tensors in parts.items()}

    def forward(self, x: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks outputs"]:
        """Return the outputs for each network."""
        features = self.arrange(x)
        for layer in self.layers:
            features = {axes: y.relu() for axes, y in layer(features).items()}
        pooled = [means(y, axes)[()] for axes, y in features.items()]
        return self.head(torch.cat(pooled, -1))


def refuse_repeated_axes(layout: ParameterLayout) -> None:
    """Raise a `TaskError` if a tensor has one axis twice: further linear maps of it would be equivariant."""
    for parameter in layout.parameters:
        for axis in layout.axes:
            if parameter.names.count(axis) > 1:
                raise TaskError(
                    f"{parameter.name}: has the axis {axis} twice, which neural functionals cannot read; take a graph "
                    "metanetwork, such as gmn"
                )


class NP(NeuralFunctional):
    """Equivariant to permutations of inputs and classes, too, which position codes distinguish.

    Arguments:
        reader: Reader of the networks.
        outputs: Number of outputs.
        channels: Number of channels of the features of each set of axes.
        layers: Number of layers.
        codes: Number of channels, sines and cosines, for the position of an input or a class. With 0, permuting inputs
            or classes changes nothing either.
    """

    folded = frozenset()

    def __init__(self, reader: Reader, outputs: int = 1, channels: int = 16, layers: int = 3, codes: int = 16) -> None:
        super().__init__(reader, outputs, channels, layers, codes)


class HNP(NeuralFunctional):
    """Equivariant to permutations of hidden units alone: inputs and classes are channels of the first layer.

    The first layer holds every linear map that commutes with permutations of hidden units. Its output has hidden axes
    only, so later layers are small; those of the paper keep inputs and classes separate to the end.

    Arguments:
        reader: Reader of the networks.
        outputs: Number of outputs.
        channels: Number of channels of the features of each set of axes.
        layers: Number of layers.
    """

    folded = IDENTIFIED

    def __init__(self, reader: Reader, outputs: int = 1, channels: int = 32, layers: int = 3) -> None:
        super().__init__(reader, outputs, channels, layers, codes=0)
