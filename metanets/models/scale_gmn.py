"""Message passing that depends neither on the order of hidden units nor on a scale that their activations leave free.

With ReLU, a unit's incoming weights and bias may be multiplied by any q > 0 if its outgoing weights are divided by q;
with tanh, by q = -1. The network computes the same function, and the prediction is the same.

Source: Kalogeropoulos et al. 2024, *Scale Equivariant Graph Metanetworks*, https://arxiv.org/abs/2406.10685.

In the paper each message is made of functions that are equivariant to scaling, from values divided by norms or from
sums f(x) + f(-x). Here the symmetry is removed before the first message. A network is first rescaled to the equivalent
one whose ReLU units have incoming weights of norm one. Each tanh unit gets a mirror image of opposite sign, so that
sums over units are f(x) + f(-x) and a change of sign permutes the two. Messages are then those of the GMN.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Data

from metanets.inputs import Tensors
from metanets.models.gmn import GMN
from zoo.errors import TaskError
from zoo.networks.parameter import Parameter
from zoo.networks.parameters import ParameterLayout


class Rescaling(nn.Module):
    """Rescales each ReLU unit to incoming weights of root mean square one, which changes no function.

    Layers are rescaled from the input on; outgoing weights are multiplied by what incoming ones are divided by. The
    output of a unit with zero incoming weights is zero, so its outgoing weights are set to zero.

    Arguments:
        layout: Layout of the rows.
        activations: By hidden axis, the name of the module that acts on it.
    """

    def __init__(self, layout: ParameterLayout, activations: Mapping[str, str]) -> None:
        super().__init__()
        self.layout = layout.split
        self.axes = [axis for axis in layout.hidden_axes if activations[axis] == "ReLU"]

    def forward(self, rows: Float[Tensor, "*networks parameters"]) -> Float[Tensor, "*networks parameters"]:
        """Return the rows of equivalent networks."""
        tensors = self.layout.unflatten(rows)
        for i, axis in enumerate(self.axes):
            own, waiting = incoming(self.layout, axis), self.axes[i:]
            measured = [p for p in own if not set(waiting).intersection(p.names[1:])]
            square = torch.stack([_squares(tensors[p.name], p) for p in measured]).sum(0)
            some = square > 0
            scale = torch.where(some, square / sum(p.fan_in for p in measured), 1).sqrt()
            for p in own:
                tensors[p.name] = tensors[p.name] / _along(scale, p, 0)
            for p in self.layout.parameters:
                if axis in p.names[1:]:
                    tensors[p.name] = tensors[p.name] * _along(scale * some, p, p.names.index(axis, 1))
        return self.layout.flatten(tensors)


class Mirror(nn.Module):
    """Adds to each tanh unit its mirror image: incoming weights, bias and outgoing weights of opposite sign.

    Arguments:
        layout: Layout of the rows.
        activations: By hidden axis, the name of the module that acts on it.

    Attributes:
        layout: Layout with twice the units on axes with tanh.
        columns: Position in a row of each entry of the mirrored row.
        signs: Sign of each entry of the mirrored row, 1 or -1.
    """

    columns: Tensor
    signs: Tensor

    def __init__(self, layout: ParameterLayout, activations: Mapping[str, str]) -> None:
        super().__init__()
        layout = layout.split
        mirrored = {axis for axis in layout.hidden_axes if activations[axis] == "Tanh"}
        parameters, columns, signs = [], [], []
        for p in layout.parameters:
            where = layout.slices[p.name]
            index = torch.arange(where.start, where.stop).view(p.shape)
            sign = torch.ones(p.shape)
            for dim, axis in enumerate(p.names):
                if axis in mirrored:
                    opposite = -1 if dim > 0 or p in incoming(layout, axis) else 1
                    index, sign = torch.cat([index, index], dim), torch.cat([sign, opposite * sign], dim)
            parameters.append(replace(p, shape=tuple(index.shape)))
            columns.append(index.flatten())
            signs.append(sign.flatten())
        self.layout = ParameterLayout(tuple(parameters))
        self.register_buffer("columns", torch.cat(columns), persistent=False)
        self.register_buffer("signs", torch.cat(signs), persistent=False)

    def forward(self, rows: Float[Tensor, "*networks parameters"]) -> Float[Tensor, "*networks mirrored"]:
        """Return the rows with mirror images."""
        return rows[..., self.columns] * self.signs


class Canonical(nn.Module):
    """Turns outputs of a reader into rows that do not depend on the scale of hidden units.

    Arguments:
        reader: Reader of the networks.

    Raises:
        TaskError: If a hidden unit's activation is neither ReLU nor tanh, or scaling units changes the function for
            another reason.
    """

    reader: Tensors
    typical: Tensor

    def __init__(self, reader: Tensors) -> None:
        super().__init__()
        activations = {axis: reader.activations.get(axis, "none") for axis in reader.layout.hidden_axes}
        if others := sorted(set(activations.values()) - {"ReLU", "Tanh"}):
            raise TaskError(f"scale_gmn reads networks with ReLU or tanh throughout, not {', '.join(others)}")
        check_homogeneous(reader.layout)
        self.reader = copy.deepcopy(reader)  # so that its statistics move to a device with the model
        self.rescaling = Rescaling(reader.layout, activations)
        self.mirror = Mirror(reader.layout, activations)
        self.register_buffer("typical", self.rescaling((reader.mean.square() + reader.std.square()).sqrt()))

    def forward(self, x: Float[Tensor, "*networks parameters"]) -> Float[Tensor, "*networks mirrored"]:
        """Return the canonical rows over those of a typical network, compressed."""
        return self.mirror((self.rescaling(self.reader.invert(x)) / self.typical).asinh())


class ScaleGMN(GMN):
    """The GMN on canonical networks, which are the same whatever the order, scale or sign of hidden units.

    It takes a disjoint union of canonical networks, `graph(canonical(x))`.

    Arguments:
        reader: Reader of the networks.
        outputs: Number of outputs.
        hidden: Size of node and edge states.
        layers: Number of rounds of message passing.

    Raises:
        TaskError: If a hidden unit's activation is neither ReLU nor tanh.
    """

    def __init__(self, reader: Tensors, outputs: int = 1, hidden: int = 16, layers: int = 2) -> None:
        canonical = Canonical(reader)
        mirror = canonical.mirror
        mirrored = Tensors(mirror.layout, reader.mask[mirror.columns], reader.activations)
        super().__init__(mirrored, outputs, hidden, layers)
        self.canonical = canonical

    def forward(self, networks: Float[Tensor, "networks parameters"] | Data) -> Float[Tensor, "networks outputs"]:
        """Return the outputs for each row, or each graph of a disjoint union."""
        return super().forward(networks if isinstance(networks, Data) else self.canonical(networks))


def check_homogeneous(layout: ParameterLayout) -> None:
    """Raise a `TaskError` if a layout has parameters for which it is not known how they scale with their units."""
    normed = {axis for p in layout.parameters if p.role == "norm_scale" for axis in p.names}
    for p in layout.parameters:
        units = [axis for axis in p.names if axis is not None]
        lone = p.role in ("scale", "shift", "embedding")
        fused = p.role in ("weight", "bias") and p.names[0] is None
        depthwise = p.role == "weight" and len({*units}) < 2
        if lone or fused or depthwise or (p.role == "norm_mean" and not normed.issuperset(p.names)):
            raise TaskError(f"scale_gmn: it is not known how {p.name} scales with its units; take gmn")


def incoming(layout: ParameterLayout, axis: str) -> list[Parameter]:
    """Return the parameters that scale with the units of an axis: those of its norm if any, else the incoming ones."""
    own = [p for p in layout.parameters if p.names[0] == axis]
    return [p for p in own if p.role in ("norm_scale", "norm_shift")] or own


def _squares(tensor: Tensor, parameter: Parameter) -> Float[Tensor, "*networks units"]:
    """Return the sum of squares of each unit's entries."""
    return tensor.square().flatten(-len(parameter.shape)).unflatten(-1, (parameter.shape[0], -1)).sum(-1)


def _along(units: Float[Tensor, "*networks units"], parameter: Parameter, dim: int) -> Float[Tensor, "..."]:
    """Return one number for each unit, shaped to multiply a parameter that has the units at dimension `dim`."""
    shape = [1] * len(parameter.shape)
    shape[dim] = units.shape[-1]
    return units.unflatten(-1, shape)
