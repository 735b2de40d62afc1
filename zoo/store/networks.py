"""The networks of a zoo under one treatment: their columns, their weights, and modules to run.

Only running them needs the code of their architecture. The manifest says what rows and columns mean.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.errors import ZooError, nearest
from zoo.networks.parameters import ParameterLayout
from zoo.networks.stack import Stack
from zoo.store.columns import CONSTANT, SPLITS, Column, Kind
from zoo.store.held import unpack_held
from zoo.store.reading import Store
from zoo.treatments import Treated

Index = SupportsIndex | slice | Sequence[int] | Sequence[bool] | NDArray[Any] | Tensor | None


@dataclass(frozen=True, eq=False, repr=False)
class Networks:
    """Networks of a zoo under one treatment; those that diverged are left out unless requested.

        >>> networks = open_zoo("zoos/digits-mlp")["standard"].split("train")
        >>> good = networks[networks["test_accuracy"] > 0.5]
        >>> good.weights[0].shape
        torch.Size([3594])
        >>> good.module(0)(torch.zeros(1, 64)).shape
        torch.Size([1, 10])

    A position in `networks` is not the number of a pair: `networks["pair"]` has these numbers, and `Zoo.paired` returns
    the same pairs under several treatments.

    Arguments:
        zoo: Files of the zoo.
        treatment: Name of the treatment.
        pairs: Numbers of the pairs, `(n,)`.
    """

    zoo: Store
    treatment: str
    pairs: NDArray[np.int64]

    def __reduce__(self) -> tuple[type["Networks"], tuple[Store, str, NDArray[np.int64]]]:
        """Pickle only which networks these are, not what was read of them."""
        return type(self), (self.zoo, self.treatment, self.pairs)

    def __len__(self) -> int:
        """Return n, the number of networks."""
        return len(self.pairs)

    def __repr__(self) -> str:
        """Show zoo, treatment, and the numbers of networks and parameters."""
        return f"Networks({self.zoo.name}/{self.treatment}, {len(self)} networks of {self.layout.size} parameters)"

    def __contains__(self, name: object) -> bool:
        """Return whether there is a column with this name."""
        return name in self.columns

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each network as `networks[i]` returns it."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        """Return a column, some of the networks, or one network as a dictionary.

        Arguments:
            key: Name of a column, which returns its values `(n, ...)`; a slice, a boolean mask `(n,)` or positions,
                which return `Networks`; or one position, which returns the values of all columns by name, including the
                weights.

        Raises:
            ZooError: If there is no such column.
            IndexError: If a position is out of range, or the length of a mask is not n.
        """
        if isinstance(key, str):
            if key in self.columns and self.columns[key].kind == "weights":
                return self.rows(key)[:].numpy()
            return self.zoo.column(self.treatment, key)[self.pairs]
        places = positions(key, len(self))
        chosen = Networks(self.zoo, self.treatment, self.pairs[np.atleast_1d(places)])
        return chosen if places.ndim else {name: chosen[name][0] for name in self.columns}

    def split(self, name: str) -> "Networks":
        """Return the networks of the `train`, the `validation` or the `test` split.

        Raises:
            ZooError: If there is no such split.
        """
        if name not in SPLITS:
            raise ZooError(f"split: there is no {name!r}{nearest(name, SPLITS)}; use one of {', '.join(SPLITS)}")
        return Networks(self.zoo, self.treatment, self.pairs[self["split"] == name])

    @property
    def columns(self) -> dict[str, Column]:
        """Columns by name, including the weights."""
        return self.zoo.manifest.columns_of(self.treatment)

    def group(self, kind: Kind) -> dict[str, NDArray[Any]]:
        """Return the values of all columns of a kind, such as `hyperparameter` or `metric`, by name."""
        return {name: self[name] for name, column in self.columns.items() if column.kind == kind}

    def rows(self, name: str) -> "Weights":
        """Return a column of weights, which is read when it is indexed.

        Arguments:
            name: Name of the column, such as `weights`.

        Raises:
            ZooError: If the zoo does not have it; imported networks, for example, have no initial weights.
        """
        known = [column for column, described in self.columns.items() if described.kind == "weights"]
        if name not in known:
            raise ZooError(f"{self.zoo.folder}: {self.treatment} has no {name}; it has {', '.join(known)}")
        return Weights(self, name)

    @property
    def weights(self) -> "Weights":
        """Trained weights as the networks use them. They are read when they are indexed."""
        return self.rows("weights")

    @property
    def initial_weights(self) -> "Weights":
        """Weights before training; a `ZooError` is raised if the zoo does not have them."""
        return self.rows("initial_weights")

    @property
    def layout(self) -> ParameterLayout:
        """Layout of the rows: what their entries mean."""
        return self.zoo.shared(self.treatment).layout

    @property
    def mask(self) -> Bool[Tensor, " parameters"]:
        """Mask of the entries, true unless they are held constant; all are true if each network has its own mask."""
        return self.zoo.shared(self.treatment).mask

    @property
    def trainable(self) -> Bool[Tensor, " parameters"]:
        """Mask of the entries that gradients train: those of `mask` without the running statistics of batch norm."""
        return self.zoo.shared(self.treatment).trainable

    @property
    def activations(self) -> dict[str, str]:
        """Class of the activation, such as `ReLU`, by the axis that it acts on."""
        return self.zoo.shared(self.treatment).activations

    @property
    def own_constants(self) -> tuple[str, ...]:
        """Names of the columns with constants that differ between networks: masks, constants, decay or matrices."""
        return tuple(name for name in CONSTANT if name in self.columns)

    @cached_property
    def treated(self) -> Treated:
        """The architecture of the networks under their treatment, with its constants."""
        shared = self.zoo.shared(self.treatment)
        if not self.own_constants:
            return shared
        held = unpack_held({name: self[name] for name in self.own_constants}, shared.layout, shared.sites)
        return self.zoo.treat(self.treatment, held, own=True)

    def stack(self, index: Index = None, *, initial: bool = False) -> Stack:
        """Return networks as a stack, which runs them together. This needs the code of the architecture.

        Arguments:
            index: Positions as in `networks[index]`; by default all.
            initial: Whether to use the weights before training.

        Raises:
            ZooError: If the architecture is unknown here, or differs from that of the networks.
            IndexError: If a position is out of range.
        """
        chosen = self if index is None else self[np.atleast_1d(positions(index, len(self)))]
        return chosen.treated.stack((chosen.initial_weights if initial else chosen.weights)[:])

    def module(self, i: SupportsIndex) -> nn.Module:
        """Return network `i` as an ordinary module, whose `state_dict` fits the plain architecture.

        The activations of the treatment are part of the module, but not of its `state_dict`.
        """
        if positions(i, len(self)).ndim:
            raise TypeError("module: takes one position; use `stack` for several")
        return self.stack(i).network(0)


@dataclass(frozen=True, eq=False)
class Weights:
    """Rows of networks. They are read from memory-mapped files when they are indexed, and returned as copies.

    Arguments:
        networks: Networks of the rows.
        name: Name of the column, such as `weights` or `initial_weights`.
    """

    networks: Networks
    name: str

    @property
    def shape(self) -> tuple[int, int]:
        """Return `(n, P)`."""
        return len(self.networks), self.networks.layout.size

    def __len__(self) -> int:
        """Return n, the number of rows."""
        return len(self.networks)

    def __iter__(self) -> Iterator[Float[Tensor, " parameters"]]:
        """Yield the rows."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Index) -> Float[Tensor, "*networks parameters"]:
        """Return one row `(P,)` at a position, or rows `(k, P)` at a slice, a boolean mask or positions.

        Raises:
            IndexError: If a position is out of range, or the length of a mask is not n.
        """
        pairs = self.networks.pairs[positions(index, len(self))]
        rows = self.networks.zoo.read_rows(self.networks.treatment, self.name, np.atleast_1d(pairs))
        return torch.from_numpy(rows if np.ndim(pairs) else rows[0])


def networks_of(zoo: Store, treatment: str, *, diverged: bool = False) -> Networks:
    """Return the networks of a treatment, see `zoo.store.zoo.Zoo.networks`."""
    trained = zoo.column(treatment, "status") == "trained"
    return Networks(zoo, treatment, np.arange(len(zoo)) if diverged else np.flatnonzero(trained))


def positions(index: Index, length: int) -> NDArray[np.int64]:
    """Return the positions that an index selects, `(k,)`, or `()` for an integer.

    Arguments:
        index: Integer, slice, boolean mask `(length,)`, or integers; None for all positions.
        length: Number of networks.

    Raises:
        IndexError: If a position is out of range, or a mask has another length.
        TypeError: If the index is something else.
    """
    every = np.arange(length)
    if isinstance(index, tuple):
        raise TypeError(f"{index!r} has two dimensions, networks have one; write networks[i][j]")
    if index is None or isinstance(index, slice):
        return every[slice(None) if index is None else index]
    places = index.cpu().numpy() if isinstance(index, Tensor) else np.asarray(index)
    if places.dtype == bool and places.shape != (length,):
        raise IndexError(f"a mask of shape {places.shape} for {length} networks; it must have shape ({length},)")
    if places.size == 0:
        places = places.astype(np.int64)  # NumPy gives an empty list the type float64
    if places.dtype.kind not in "biu" or places.ndim > 1:
        raise TypeError(f"{index!r} is not a position, slice, boolean mask or list of positions; give one of these")
    try:
        return np.asarray(every[places])
    except IndexError:
        raise IndexError(f"position out of range: there are {length} networks") from None
