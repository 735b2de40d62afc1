"""One tensor of a network, and what its dimensions index: the units of an axis, positions, or a product of these.

A dimension is declared as one of

- the name of an axis, such as `hidden0`: it indexes the units of this axis;
- None: it indexes no units, but for example positions of a kernel;
- a product, its factors from the slowest to the fastest, each a name or None with a length. `(("c", 6), (None, 9))` is
  what remains of 6 channels on 9 positions when they are flattened. `(("head", 4), ("key", 16))` is 4 heads of 16
  units: heads may be permuted, and so may the units within each head. The axis `key` then has 64 units, in 4 blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, get_args

from zoo.networks.roles import Role

Factor = tuple[str | None, int]
Axis = str | tuple[Factor, ...] | None
Axes = tuple[Axis, ...]

IDENTIFIED = frozenset({"input", "output"})  # axes that are never permuted: the data fix what their units mean


@dataclass(frozen=True)
class Part:
    """A part of a dimension.

    Arguments:
        axis: Axis whose units it indexes; None for positions.
        length: Number of units or positions.
        blocks: Axis whose units are the blocks in which these units stand, such as attention heads, and their number.
    """

    axis: str | None
    length: int
    blocks: tuple[str, int] | None = None


@dataclass(frozen=True)
class Parameter:
    """One tensor of a network.

    Arguments:
        name: Name in the `state_dict`, such as `output.weight`.
        shape: Shape of the tensor.
        axes: What each dimension indexes: an axis by its name, None if it does not index units, or a product of these.
        role: What it does. A `weight` connects units, of dimension 1 to those of dimension 0; an `embedding` those of
            dimension 0 to those of dimension 1. Others belong to single units: a `bias`, `norm_scale` or `norm_shift`,
            the running statistics `norm_mean` and `norm_variance` of batch norm, which no gradient trains, and `scale`
            and `shift` of no layer.
        layer_weight: For a bias, the name of its layer's weight, if this is the tensor of another layer, too, and has
            that one's name.
    """

    name: str
    shape: tuple[int, ...]
    axes: Axes
    role: Role
    layer_weight: str | None = None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Parameter":
        """Return the parameter that `asdict` wrote, without fields that are None.

        Raises:
            KeyError, TypeError, ValueError: If the value is no parameter.
        """
        if not all(type(length) is int and length > 0 for length in value["shape"]):
            raise ValueError(f"shape {value['shape']!r} of {value['name']!r}")
        if value["role"] not in get_args(Role):
            raise ValueError(f"role {value['role']!r} of {value['name']!r}")
        axes = as_tuples(value["name"], value["axes"])
        return cls(value["name"], tuple(value["shape"]), axes, value["role"], value.get("layer_weight"))

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    @property
    def fan_in(self) -> int:
        """Number of entries that feed one unit of a weight: inputs times kernel positions."""
        return prod(self.shape[1:])

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Parts of all dimensions, in the order of memory.

        Raises:
            ValueError: If axes do not fit the shape.
        """
        if len(self.axes) != len(self.shape):
            raise ValueError(f"{self.name}: axes {self.axes} do not fit the shape {self.shape}; correct `axes`")
        try:
            return tuple(part for dim in range(len(self.shape)) for part in parts_of(self.axes[dim], self.shape[dim]))
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}; correct `axes`") from None

    @cached_property
    def names(self) -> tuple[str | None, ...]:
        """Axis of each part; None for positions."""
        return tuple(part.axis for part in self.parts)

    @property
    def split(self) -> "Parameter":
        """The same entries with a dimension for each part, so that each indexes units of one axis or positions."""
        return replace(self, shape=tuple(part.length for part in self.parts), axes=self.names)

    @property
    def written(self) -> tuple[str, ...]:
        """Axes whose units it writes, or acts on; a weight or an embedding also has axes that it reads."""
        parts = self.parts
        if self.role in ("weight", "embedding"):
            dim = 0 if self.role == "weight" else -1
            parts = parts_of(self.axes[dim], self.shape[dim])
        return tuple(part.axis for part in parts if part.axis is not None)


def parts_of(axis: Axis, length: int) -> tuple[Part, ...]:
    """Return the parts of a dimension, from the slowest to the fastest.

    Arguments:
        axis: How the dimension is declared.
        length: Its length.

    Raises:
        ValueError: If the factors of a product do not multiply to the length, or are none that a layout can express.
    """
    if axis is None or isinstance(axis, str):
        return (Part(axis, length),)
    if any(units < 1 for _, units in axis) or prod(units for _, units in axis) != length:
        raise ValueError(f"the factors of {axis} do not multiply to the length {length}")
    named = [i for i, (name, _) in enumerate(axis) if name is not None]
    adjacent = named[1:] == [i + 1 for i in named[:-1]]
    if not named or len(named) > 2 or not adjacent or IDENTIFIED & {axis[i][0] for i in named[:2] if len(named) == 2}:
        raise ValueError(f"{axis} is neither an axis times positions nor blocks of units")
    parts = [Part(*factor) for factor in axis]
    if len(named) == 2:
        outer, inner = parts[named[0]], parts[named[1]]
        assert outer.axis is not None
        parts[named[0] : named[1] + 1] = [Part(inner.axis, outer.length * inner.length, (outer.axis, outer.length))]
    return tuple(parts)


def as_tuples(name: str, axes: Sequence[Any]) -> Axes:
    """Return the axes of a parameter as tuples, of which products are tuples of factors.

    Raises:
        ValueError: If a product is none.
    """
    found = []
    for axis in axes:
        if isinstance(axis, list | tuple):
            if not all(isinstance(factor, list | tuple) and len(factor) == 2 for factor in axis):
                fact = f"{axis} is no product, which is ((name, length), (name, length)) with None for positions"
                raise ValueError(f"{name}: {fact}; correct `axes`")
            axis = tuple(map(tuple, axis))
        found.append(axis)
    return tuple(found)
