"""The layout of a network's parameters: named tensors, laid end to end in a row, whose dimensions have named axes.

Dimensions with the same axis name index the same units, so they are permuted together. Permutations, masks, matching
and graphs are all derived from these names; nothing about symmetry is written by hand.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod, sqrt
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import vmap

Role = Literal["weight", "bias", "norm_scale", "norm_shift"]
Axes = tuple[str | None, ...]
Permutations = Mapping[str, Int[Tensor, "..."]]  # by axis: (units,) for all networks, or (K, units), one for each

IDENTIFIED = frozenset({"input", "output"})  # axes that are never permuted: the data fix what their units mean
NORMS = (nn.LayerNorm, nn.GroupNorm)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
# Modules that compute something else in training than in evaluation.
MODE_DEPENDENT = (*DROPOUTS, *BATCH_NORMS, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)


@dataclass(frozen=True)
class Parameter:
    """One tensor of a network.

    Arguments:
        name: Name in the `state_dict`, such as `output.weight`.
        shape: Shape of the tensor.
        axes: Axis name of each dimension; None if a dimension does not index units, such as positions of a kernel.
        role: Function in its layer: `weight`, `bias`, `norm_scale` or `norm_shift`.
    """

    name: str
    shape: tuple[int, ...]
    axes: Axes
    role: Role

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    @property
    def fan_in(self) -> int:
        """Number of entries that feed one unit of a weight: inputs times kernel positions."""
        return prod(self.shape[1:])


@dataclass(frozen=True)
class ParameterLayout:
    """What the P entries of a row mean: tensors laid end to end, with an axis name for each of their dimensions.

        >>> up = Parameter("up.weight", (3, 2), ("hidden", "input"), "weight")
        >>> down = Parameter("down.weight", (1, 3), ("output", "hidden"), "weight")
        >>> layout = ParameterLayout((up, down))
        >>> layout.size, layout.axes
        (9, {'hidden': 3, 'input': 2, 'output': 1})
        >>> layout.permute(torch.arange(9.0), {"hidden": torch.tensor([2, 0, 1])})
        tensor([4., 5., 0., 1., 2., 3., 8., 6., 7.])

    Arguments:
        parameters: Tensors, in their order in the row.

    Raises:
        ValueError: If axes do not fit shapes, or one axis has two lengths.
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        """Check that axes fit shapes and that every axis has one length."""
        lengths: dict[str, int] = {}
        for parameter in self.parameters:
            if len(parameter.axes) != len(parameter.shape):
                fact = f"axes {parameter.axes} do not fit the shape {parameter.shape}"
                raise ValueError(f"{parameter.name}: {fact}; correct `axes`")
            for axis, length in zip(parameter.axes, parameter.shape, strict=True):
                if axis is not None and lengths.setdefault(axis, length) != length:
                    fact = f"axis {axis} has {length} units here, {lengths[axis]} before"
                    raise ValueError(f"{parameter.name}: {fact}; correct `axes`")

    @classmethod
    def of(cls, network: nn.Module) -> "ParameterLayout":
        """Return the layout of a module that declares `axes`, in the order of its `state_dict`.

        Raises:
            ValueError: If a row of parameters does not determine what the module computes: a submodule computes
                something else in training than in evaluation, `axes` does not name the module's parameters, or a
                parameter is neither a weight or bias of a layer nor part of a norm.
        """
        for name, module in network.named_modules():
            if isinstance(module, MODE_DEPENDENT):
                remedy = "use LayerNorm or GroupNorm" if isinstance(module, BATCH_NORMS) else "leave it out"
                raise ValueError(
                    f"{name}: {type(module).__name__} works differently in training and in evaluation; {remedy}"
                )
        axes, named = dict(network.axes), dict(network.named_parameters())  # type: ignore[arg-type]
        first = {id(tensor): name for name, tensor in named.items()}
        for name, tensor in network.named_parameters(remove_duplicate=False):
            if name not in named:
                raise ValueError(f"{name}: is the same tensor as {first[id(tensor)]}; give each its own tensor")
        if named.keys() != axes.keys():
            raise ValueError(f"axes and parameters differ in {sorted(named.keys() ^ axes.keys())}; correct `axes`")
        parameters = []
        for name, tensor in named.items():
            role = _role(network, name, tensor, named)
            parameters.append(Parameter(name, tuple(tensor.shape), tuple(axes[name]), role))
        return cls(tuple(parameters))

    def __getitem__(self, name: str) -> Parameter:
        """Return the parameter with this name."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Parameter]:
        return {parameter.name: parameter for parameter in self.parameters}

    @cached_property
    def size(self) -> int:
        """Length of a row, P."""
        return sum(parameter.size for parameter in self.parameters)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Slice of a row that holds each parameter, by name."""
        ends = np.cumsum([parameter.size for parameter in self.parameters]).tolist()
        return {p.name: slice(end - p.size, end) for p, end in zip(self.parameters, ends, strict=True)}

    @cached_property
    def axes(self) -> dict[str, int]:
        """Length of every named axis."""
        return {
            axis: length
            for parameter in self.parameters
            for axis, length in zip(parameter.axes, parameter.shape, strict=True)
            if axis is not None
        }

    @property
    def hidden_axes(self) -> tuple[str, ...]:
        """Names of the axes whose units may be permuted: all but `input` and `output`."""
        return tuple(axis for axis in self.axes if axis not in IDENTIFIED)

    @property
    def weights(self) -> tuple[Parameter, ...]:
        """Parameters that are weights: kernels and matrices, without biases and norms."""
        return tuple(parameter for parameter in self.parameters if parameter.role == "weight")

    def unflatten(self, rows: Float[Tensor, "*networks parameters"]) -> dict[str, Tensor]:
        """Return the tensors of the rows by name, as views `(*networks, *shape)`."""
        # One split has one concatenation as its backward pass. With slices, every tensor would get a gradient of
        # length P, and these would be summed.
        pieces = rows.split([parameter.size for parameter in self.parameters], dim=-1)
        return {p.name: piece.unflatten(-1, p.shape) for p, piece in zip(self.parameters, pieces, strict=True)}

    def flatten(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "*networks parameters"]:
        """Lay named tensors `(*networks, *shape)` end to end in rows: the inverse of `unflatten`."""
        return torch.cat([tensors[p.name].flatten(-len(p.shape)) for p in self.parameters], dim=-1)

    def random_permutations(
        self, rng: np.random.Generator, networks: int | None = None
    ) -> dict[str, Int[Tensor, "..."]]:
        """Draw a uniform permutation of every hidden axis.

        Arguments:
            rng: Random generator.
            networks: Number of networks K, each of which gets its own permutations; None for one permutation.

        Returns:
            Permutations by axis, `(units,)` or `(K, units)`, see `permute`.
        """
        shape = () if networks is None else (networks, 1)
        return {
            axis: torch.from_numpy(rng.permuted(np.tile(np.arange(self.axes[axis]), shape), axis=-1))
            for axis in self.hidden_axes
        }

    def permutation_index(self, permutations: Permutations) -> Int[Tensor, " parameters"]:
        """Return the index `(P,)` by which permutations `(units,)` reorder a row: `row[index]` is the permuted row."""
        parts = []
        for parameter in self.parameters:
            where = self.slices[parameter.name]
            index = torch.arange(where.start, where.stop).view(parameter.shape)
            for dim, axis in enumerate(parameter.axes):
                if axis is not None and axis in permutations:
                    index = index.index_select(dim, permutations[axis])
            parts.append(index.flatten())
        return torch.cat(parts)

    def permute(
        self, rows: Float[Tensor, "*networks parameters"], permutations: Permutations
    ) -> Float[Tensor, "*networks parameters"]:
        """Permute the hidden units of networks. A standard network then computes the same function as before.

        Arguments:
            rows: Rows `(P,)` or `(K, P)`.
            permutations: Permutation of each axis: `(units,)` for all rows, or `(K, units)`, one for each row. New
                unit `j` is old unit `permutations[axis][j]`. Axes that are left out keep their order.

        Raises:
            ValueError: If an axis is unknown or not hidden.
        """
        if wrong := permutations.keys() - set(self.hidden_axes):
            raise ValueError(f"{sorted(wrong)} cannot be permuted; the hidden axes are {list(self.hidden_axes)}")
        if all(permutation.ndim == 1 for permutation in permutations.values()):
            return rows[..., self.permutation_index(permutations).to(rows.device)]
        by_network = {axis: units.to(rows.device).expand(len(rows), -1) for axis, units in permutations.items()}
        return self.flatten(self.permute_tensors(self.unflatten(rows), by_network))

    def permute_tensors(
        self, tensors: Mapping[str, Tensor], permutations: Mapping[str, Int[Tensor, "networks units"]]
    ) -> dict[str, Tensor]:
        """Permute the units in the tensors `(K, *shape)` of K networks, each network by its own permutations."""
        permuted = dict(tensors)
        for parameter in self.parameters:
            for dim, axis in enumerate(parameter.axes):
                if axis is not None and axis in permutations:
                    select = vmap(torch.index_select, in_dims=(0, None, 0))  # faster than `take_along_dim`
                    permuted[parameter.name] = select(permuted[parameter.name], dim, permutations[axis])
        return permuted

    def draw_initial(self, rng: np.random.Generator) -> Float[Tensor, " parameters"]:
        """Draw the row of an untrained network as PyTorch does.

        Weights and biases of a layer are `U(-1, 1) / sqrt(fan_in)`; norms are the identity.
        """
        bound, offset = np.empty(self.size, np.float32), np.zeros(self.size, np.float32)
        for parameter in self.parameters:
            where = self.slices[parameter.name]
            if parameter.role in ("norm_scale", "norm_shift"):
                bound[where] = 0.0
                offset[where] = parameter.role == "norm_scale"
            else:
                weight = self[parameter.name.rpartition(".")[0] + ".weight"]
                bound[where] = 1 / sqrt(weight.fan_in)
        uniform = 2 * rng.random(self.size, dtype=np.float32) - 1
        return torch.from_numpy(offset + bound * uniform)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the layout as values that JSON can hold."""
        return [asdict(parameter) for parameter in self.parameters]

    @classmethod
    def from_json(cls, values: list[dict[str, Any]]) -> "ParameterLayout":
        """Return the layout that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: If the values are not a layout.
        """
        for value in values:
            if not all(type(length) is int and length > 0 for length in value["shape"]):
                raise ValueError(f"shape {value['shape']!r} of {value['name']!r}")
        return cls(tuple(Parameter(v["name"], tuple(v["shape"]), tuple(v["axes"]), v["role"]) for v in values))


def _role(network: nn.Module, name: str, tensor: Tensor, named: Mapping[str, Tensor]) -> Role:
    """Return the role of a parameter, given its module and its name."""
    owner, _, kind = name.rpartition(".")
    module = network.get_submodule(owner)
    if isinstance(module, NORMS):
        return "norm_scale" if kind == "weight" else "norm_shift"
    if kind == "weight" and tensor.ndim >= 2:
        return "weight"
    if kind == "bias" and tensor.ndim == 1 and f"{owner}.weight" in named:
        return "bias"
    raise ValueError(
        f"{name}: this parameter of {type(module).__name__} is neither weight nor bias of a layer nor part of "
        "LayerNorm or GroupNorm, so its initial values are not defined; leave it out"
    )
