"""The layout of a network's parameters: named tensors, laid end to end in a row, whose dimensions have named axes.

Dimensions with the same axis name index the same units, so they are permuted together. Permutations, masks, matching
and graphs are all derived from these names; nothing about symmetry is written by hand.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import vmap

from zoo.networks.declared import parameters_of
from zoo.networks.parameter import IDENTIFIED, Parameter, Part
from zoo.networks.roles import STATISTICS

Permutations = Mapping[str, Int[Tensor, "..."]]  # by axis: (units,) for all networks, or (K, units), one for each
# Initial values of entries that are not drawn.
CONSTANT = {"scale": 1.0, "shift": 0.0, "norm_scale": 1.0, "norm_shift": 0.0, "norm_mean": 0.0, "norm_variance": 1.0}


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
        ValueError: If axes do not fit shapes, one axis has two lengths, or its units stand in blocks only sometimes.
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        """Check that axes fit shapes, and that every axis has one length and one kind of blocks."""
        seen: dict[str, Part] = {}
        for parameter, part in self.parts:
            for each in [*([Part(*part.blocks)] if part.blocks else []), part]:
                before = seen.setdefault(each.axis, each) if each.axis is not None else each
                if before.length != each.length:
                    fact = f"axis {each.axis} has {each.length} units here, {before.length} before"
                    raise ValueError(f"{parameter.name}: {fact}; correct `axes`")
                if before.blocks != each.blocks:
                    fact = f"axis {each.axis} has blocks {each.blocks} here, {before.blocks} before"
                    raise ValueError(f"{parameter.name}: {fact}; correct `axes`")

    @classmethod
    def of(cls, network: nn.Module) -> "ParameterLayout":
        """Return the layout of a module that declares `axes`, in the order of its `state_dict`.

        Raises:
            ValueError: See `parameters_of`.
        """
        return cls(parameters_of(network))

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
    def parts(self) -> tuple[tuple[Parameter, Part], ...]:
        """Every part of every dimension, with its parameter."""
        return tuple((parameter, part) for parameter in self.parameters for part in parameter.parts)

    @cached_property
    def statistics(self) -> tuple[str, ...]:
        """Names of the running statistics of batch norm, which no gradient trains."""
        return tuple(p.name for p in self.parameters if p.role in STATISTICS.values())

    @cached_property
    def learned(self) -> Bool[Tensor, " parameters"]:
        """Mask of the entries of a row that gradients may train, `(P,)`: all but running statistics."""
        return torch.cat([torch.full((p.size,), p.name not in self.statistics) for p in self.parameters])

    @cached_property
    def axes(self) -> dict[str, int]:
        """Number of units of every axis."""
        found: dict[str, int] = {}
        for _, part in self.parts:
            found |= dict([part.blocks]) if part.blocks else {}
            found |= {} if part.axis is None else {part.axis: part.length}
        return found

    @cached_property
    def blocks(self) -> dict[str, str]:
        """Axis whose units are the blocks in which the units of another axis stand, by that other axis."""
        return {part.axis: part.blocks[0] for _, part in self.parts if part.axis is not None and part.blocks}

    @cached_property
    def split(self) -> "ParameterLayout":
        """The layout of the same rows whose tensors have a dimension for each part, see `Parameter.split`."""
        return ParameterLayout(tuple(parameter.split for parameter in self.parameters))

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
        return {
            p.name: piece.unflatten(-1, p.shape) if p.shape else piece.squeeze(-1)
            for p, piece in zip(self.parameters, pieces, strict=True)
        }

    def flatten(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "*networks parameters"]:
        """Lay named tensors `(*networks, *shape)` end to end in rows: the inverse of `unflatten`."""
        flat = (
            tensors[p.name].flatten(-len(p.shape)) if p.shape else tensors[p.name][..., None] for p in self.parameters
        )
        return torch.cat(list(flat), dim=-1)

    def random_permutations(
        self, rng: np.random.Generator, networks: int | None = None
    ) -> dict[str, Int[Tensor, "..."]]:
        """Draw a uniform permutation of every hidden axis; units in blocks move with their block, and within it.

        Arguments:
            rng: Random generator.
            networks: Number of networks K, each of which gets its own permutations; None for one permutation.

        Returns:
            Permutations by axis, `(units,)` or `(K, units)`, see `permute`.
        """
        many, drawn = () if networks is None else (networks,), dict[str, Tensor]()
        for axis in sorted(self.hidden_axes, key=lambda axis: axis in self.blocks):  # blocks before what stands in them
            order = np.arange(self.axes[axis])
            if axis not in self.blocks:
                drawn[axis] = torch.from_numpy(rng.permuted(np.tile(order, (*many, 1) if many else ()), axis=-1))
                continue
            moved = drawn[self.blocks[axis]]
            within = np.tile(order.reshape(moved.shape[-1], -1), (*many, 1, 1))
            permuted = np.take_along_axis(rng.permuted(within, axis=-1), moved.numpy()[..., None], -2)
            drawn[axis] = torch.from_numpy(permuted).flatten(-2)
        return drawn

    def permutation_index(self, permutations: Permutations) -> Int[Tensor, " parameters"]:
        """Return the index `(P,)` by which permutations `(units,)` reorder a row: `row[index]` is the permuted row."""
        parts = []
        for parameter in self.split.parameters:
            where = self.slices[parameter.name]
            index = torch.arange(where.start, where.stop).view(parameter.shape)
            for dim, axis in enumerate(parameter.names):
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
            ValueError: If an axis is unknown or not hidden, or units leave their block.
        """
        if wrong := permutations.keys() - set(self.hidden_axes):
            raise ValueError(f"{sorted(wrong)} cannot be permuted; the hidden axes are {list(self.hidden_axes)}")
        for inner, outer in self.blocks.items():
            units = self.axes[inner] // self.axes[outer]
            order, blocks = (permutations.get(axis, torch.arange(self.axes[axis])).cpu() for axis in (inner, outer))
            if not (order.unflatten(-1, (-1, units)) // units == blocks[..., None]).all():
                raise ValueError(f"{inner}: its units leave their {outer}; permute both, as `random_permutations` does")
        if all(permutation.ndim == 1 for permutation in permutations.values()):
            return rows[..., self.permutation_index(permutations).to(rows.device)]
        by_network = {axis: units.to(rows.device).expand(len(rows), -1) for axis, units in permutations.items()}
        return self.split.flatten(self.permute_tensors(self.split.unflatten(rows), by_network))

    def permute_tensors(
        self, tensors: Mapping[str, Tensor], permutations: Mapping[str, Int[Tensor, "networks units"]]
    ) -> dict[str, Tensor]:
        """Permute the units in the tensors `(K, *shape)` of K networks, each network by its own permutations.

        The tensors have a dimension for each part, see `split`.
        """
        permuted = dict(tensors)
        for parameter in self.split.parameters:
            for dim, axis in enumerate(parameter.names):
                if axis is not None and axis in permutations:
                    select = vmap(torch.index_select, in_dims=(0, None, 0))  # faster than `take_along_dim`
                    permuted[parameter.name] = select(permuted[parameter.name], dim, permutations[axis])
        return permuted

    def draw_initial(self, rng: np.random.Generator) -> Float[Tensor, " parameters"]:
        """Draw the row of an untrained network as PyTorch does.

        Weights and biases of a layer are `U(-1, 1) / sqrt(fan_in)`, embeddings standard normal; norms are the identity,
        and so are the running statistics of batch norm, scales and shifts.
        """
        uniform = 2 * rng.random(self.size, dtype=np.float32) - 1
        row = torch.from_numpy(uniform)
        for parameter in self.parameters:
            values = row[self.slices[parameter.name]]
            if parameter.role in CONSTANT:
                values.fill_(CONSTANT[parameter.role])
            elif parameter.role == "embedding":  # the inverse of the normal distribution function
                values.clamp_(min=float(np.nextafter(np.float32(-1), np.float32(0)))).erfinv_().mul_(sqrt(2))
            else:
                layer = parameter.layer_weight or f"{parameter.name.rpartition('.')[0]}.weight"
                values.mul_(1 / sqrt((self[layer] if parameter.role == "bias" else parameter).fan_in))
        return row

    def to_json(self) -> list[dict[str, Any]]:
        """Return the layout as values that JSON can hold."""
        return [{k: v for k, v in asdict(p).items() if v is not None} for p in self.parameters]

    @classmethod
    def from_json(cls, values: list[dict[str, Any]]) -> "ParameterLayout":
        """Return the layout that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: If the values are not a layout.
        """
        return cls(tuple(map(Parameter.from_json, values)))
