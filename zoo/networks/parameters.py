"""What a row of numbers means: named tensors whose dimensions carry named axes.

Dimensions with the same axis name index the same units, so they are permuted together. Every statement about
permutation symmetry in this project is derived from these names; nobody writes a permutation by hand.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import vmap

Role = Literal["weight", "bias", "norm_scale", "norm_shift"]
Axes = tuple[str | None, ...]
Permutations = Mapping[str, Int[Tensor, "..."]]  # (units,) or (K, units), each axis as many as it has

IDENTIFIED = frozenset({"input", "output"})  # pixels and classes are no one's to permute
NORMS = (nn.LayerNorm, nn.GroupNorm)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
UNLIKE = (*DROPOUTS, *BATCH_NORMS, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)  # in training and after


@dataclass(frozen=True)
class Parameter:
    """One tensor of a network: its name, shape, an axis name for each dimension (None: no units), and role."""

    name: str
    shape: tuple[int, ...]
    axes: Axes
    role: Role

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def fan_in(self) -> int:
        """How many numbers feed one unit of a weight: inputs x kernel positions."""
        return prod(self.shape[1:])


@dataclass(frozen=True)
class ParameterLayout:
    """The meaning of the P columns of a row.

    Arguments:
        parameters: the tensors in the order in which they are laid end to end.

    Raises:
        ValueError: if the axes do not fit the shapes, or one axis has two lengths.
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        """Check that every axis has one length."""
        lengths: dict[str, int] = {}
        for parameter in self.parameters:
            if len(parameter.axes) != len(parameter.shape):
                raise ValueError(f"{parameter.name}: axes {parameter.axes} do not fit the shape {parameter.shape}")
            for axis, length in zip(parameter.axes, parameter.shape, strict=True):
                if axis is not None and lengths.setdefault(axis, length) != length:
                    raise ValueError(f"{parameter.name}: axis {axis} has {length} units here, {lengths[axis]} before")

    @classmethod
    def of(cls, network: nn.Module) -> "ParameterLayout":
        """Read the layout off a module that declares `axes`, in the order of its `state_dict`.

        Raises:
            ValueError: if a row cannot say what the module is: it trains otherwise than it evaluates, the axes are not
                those of its parameters, or a parameter is neither weight nor bias of a layer nor part of a norm.
        """
        for name, module in network.named_modules():
            if isinstance(module, UNLIKE):
                remedy = "take LayerNorm or GroupNorm" if isinstance(module, BATCH_NORMS) else "leave it out"
                raise ValueError(f"{name}: {type(module).__name__} trains otherwise than it evaluates; {remedy}")
        axes, named = dict(network.axes), dict(network.named_parameters())  # type: ignore[arg-type]
        first = {id(tensor): name for name, tensor in named.items()}
        for name, tensor in network.named_parameters(remove_duplicate=False):
            if name not in named:
                raise ValueError(f"{name}: is the same tensor as {first[id(tensor)]}; give each a tensor of its own")
        if named.keys() != axes.keys():
            raise ValueError(f"axes and parameters differ in {sorted(named.keys() ^ axes.keys())}")
        parameters = []
        for name, tensor in named.items():
            role = _role(network, name, tensor, named)
            parameters.append(Parameter(name, tuple(tensor.shape), tuple(axes[name]), role))
        return cls(tuple(parameters))

    def __getitem__(self, name: str) -> Parameter:
        """Return the parameter of that name."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Parameter]:
        return {parameter.name: parameter for parameter in self.parameters}

    @cached_property
    def size(self) -> int:
        """P, the length of a row."""
        return sum(parameter.size for parameter in self.parameters)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where in a row each parameter stands."""
        ends = np.cumsum([parameter.size for parameter in self.parameters]).tolist()
        return {p.name: slice(end - p.size, end) for p, end in zip(self.parameters, ends, strict=True)}

    @cached_property
    def axes(self) -> dict[str, int]:
        """The length of every named axis."""
        return {
            axis: length
            for parameter in self.parameters
            for axis, length in zip(parameter.axes, parameter.shape, strict=True)
            if axis is not None
        }

    @property
    def hidden_axes(self) -> tuple[str, ...]:
        """The axes whose units may be permuted: all but input and output."""
        return tuple(axis for axis in self.axes if axis not in IDENTIFIED)

    @property
    def weights(self) -> tuple[Parameter, ...]:
        """The weights: kernels and matrices, without biases and norms."""
        return tuple(parameter for parameter in self.parameters if parameter.role == "weight")

    def unflatten(self, rows: Float[Tensor, "*networks parameters"]) -> dict[str, Tensor]:
        """Return the named tensors `(*networks, *shape)` as views of the rows."""
        # One split, whose backward is one concatenation; a slice each would write P gradients per tensor.
        pieces = rows.split([parameter.size for parameter in self.parameters], dim=-1)
        return {p.name: piece.unflatten(-1, p.shape) for p, piece in zip(self.parameters, pieces, strict=True)}

    def flatten(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "*networks parameters"]:
        """Lay named tensors `(*networks, *shape)` end to end: the inverse of `unflatten`."""
        return torch.cat([tensors[p.name].flatten(-len(p.shape)) for p in self.parameters], dim=-1)

    def random_permutations(
        self, rng: np.random.Generator, networks: int | None = None
    ) -> dict[str, Int[Tensor, "..."]]:
        """Draw a uniform permutation of each hidden axis, `(units,)`, or one for each network, `(networks, units)`."""
        shape = () if networks is None else (networks, 1)
        return {
            axis: torch.from_numpy(rng.permuted(np.tile(np.arange(self.axes[axis]), shape), axis=-1))
            for axis in self.hidden_axes
        }

    def permutation_index(self, permutations: Permutations) -> Int[Tensor, " parameters"]:
        """Return the columns that `permutations` (one `(units,)` each) take the places of a row from."""
        columns = []
        for parameter in self.parameters:
            where = self.slices[parameter.name]
            index = torch.arange(where.start, where.stop).view(parameter.shape)
            for dim, axis in enumerate(parameter.axes):
                if axis is not None and axis in permutations:
                    index = index.index_select(dim, permutations[axis])
            columns.append(index.flatten())
        return torch.cat(columns)

    def permute(
        self, rows: Float[Tensor, "*networks parameters"], permutations: Permutations
    ) -> Float[Tensor, "*networks parameters"]:
        """Permute the units of networks, leaving the function of a standard network as it was.

        Arguments:
            rows: `(P,)` or `(K, P)`.
            permutations: axis to `(units,)`, for all rows alike, or `(K, units)`, one for each row. New unit
                `j` is old unit `permutations[axis][j]`. Axes left out keep their order.

        Raises:
            ValueError: if an axis is unknown or not hidden.
        """
        if wrong := permutations.keys() - set(self.hidden_axes):
            raise ValueError(f"{sorted(wrong)} cannot be permuted; the hidden axes are {list(self.hidden_axes)}")
        if all(permutation.ndim == 1 for permutation in permutations.values()):
            return rows[..., self.permutation_index(permutations).to(rows.device)]
        each = {axis: units.to(rows.device).expand(len(rows), -1) for axis, units in permutations.items()}
        return self.flatten(self.permute_tensors(self.unflatten(rows), each))

    def permute_tensors(
        self, tensors: Mapping[str, Tensor], permutations: Mapping[str, Int[Tensor, "networks units"]]
    ) -> dict[str, Tensor]:
        """Permute the units of K networks from their tensors `(K, *shape)`; those without such axes are as given."""
        permuted = dict(tensors)
        for parameter in self.parameters:
            for dim, axis in enumerate(parameter.axes):
                if axis is not None and axis in permutations:
                    select = vmap(torch.index_select, in_dims=(0, None, 0))  # far faster than `take_along_dim`
                    permuted[parameter.name] = select(permuted[parameter.name], dim, permutations[axis])
        return permuted

    def draw_initial(self, rng: np.random.Generator) -> Float[Tensor, " parameters"]:
        """Draw a network as PyTorch would: `U(-1, 1) / sqrt(fan_in)` for weights and biases; norms the identity."""
        bound, offset = np.empty(self.size, np.float32), np.zeros(self.size, np.float32)
        for parameter in self.parameters:
            where = self.slices[parameter.name]
            if parameter.role in ("norm_scale", "norm_shift"):
                bound[where] = 0.0
                offset[where] = parameter.role == "norm_scale"
            else:
                weight = self[parameter.name.rpartition(".")[0] + ".weight"]
                bound[where] = weight.fan_in**-0.5
        uniform = 2 * rng.random(self.size, dtype=np.float32) - 1
        return torch.from_numpy(offset + bound * uniform)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the layout as JSON values."""
        return [asdict(parameter) for parameter in self.parameters]

    @classmethod
    def from_json(cls, values: list[dict[str, Any]]) -> "ParameterLayout":
        """Read what `to_json` returned, after a trip through a file.

        Raises:
            KeyError, TypeError, ValueError: if it is something else.
        """
        for value in values:
            if not all(type(length) is int and length > 0 for length in value["shape"]):
                raise ValueError(f"shape {value['shape']!r} of {value['name']!r}")
        return cls(tuple(Parameter(v["name"], tuple(v["shape"]), tuple(v["axes"]), v["role"]) for v in values))


def _role(network: nn.Module, name: str, tensor: Tensor, named: Mapping[str, Tensor]) -> Role:
    """Return what a parameter does in its layer, told by its owner and its name."""
    owner, _, kind = name.rpartition(".")
    module = network.get_submodule(owner)
    if isinstance(module, NORMS):
        return "norm_scale" if kind == "weight" else "norm_shift"
    if kind == "weight" and tensor.ndim >= 2:
        return "weight"
    if kind == "bias" and tensor.ndim == 1 and f"{owner}.weight" in named:
        return "bias"
    raise ValueError(
        f"{name}: a parameter of {type(module).__name__} that is neither weight nor bias of a layer nor part of "
        "LayerNorm or GroupNorm, so nothing says how it starts; leave it out"
    )
