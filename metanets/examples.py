"""What metanetworks learn from and predict, batch by batch: tensors, tensors on their orbit, or items of a data set."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset
from torch_geometric.data import Batch, Data

from metanets.datasets import ZooRows
from metanets.graph import largest, with_kernel
from metanets.inputs import Reader
from metanets.selection import Labelled, is_symmetric
from zoo.errors import TaskError


@runtime_checkable
class Examples(Protocol):
    """N networks as a metanetwork sees them, with their targets."""

    @property
    def y(self) -> Shaped[Tensor, " networks"]:
        """Targets on their scale, or classes."""

    def batch(
        self, index: Int[Tensor, "..."], rngs: Sequence[np.random.Generator] = ()
    ) -> tuple[Any, Shaped[Tensor, "..."]]:
        """Return inputs and targets of some networks.

        Arguments:
            index: Positions, `(B,)` or `(seeds, B)`.
            rngs: Generators of random augmentation, one for each row of `index`; none when nothing is to be augmented.
        """


@dataclass(frozen=True)
class InMemory:
    """Examples that lie in memory as one tensor.

    Arguments:
        x: Inputs, `(N, ...)`.
        y: Targets, `(N,)`.
    """

    x: Float[Tensor, "networks ..."]
    y: Shaped[Tensor, " networks"]

    def batch(self, index: Int[Tensor, "..."], rngs: Sequence[np.random.Generator] = ()) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of some networks."""
        return self.x[index], self.y[index]


@dataclass(frozen=True)
class Permuted:
    """Examples shown, while `rngs` are given, with their hidden units permuted at random.

    Arguments:
        rows: Rows, `(N, P)`.
        y: Targets, `(N,)`.
        reader: Fitted reader.
    """

    rows: Float[Tensor, "networks parameters"]
    y: Shaped[Tensor, " networks"]
    reader: Reader

    def batch(self, index: Int[Tensor, "..."], rngs: Sequence[np.random.Generator] = ()) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of some networks, each somewhere on its orbit."""
        layout = self.reader.layout
        if not rngs:
            return self.reader(self.rows[index.flatten()]).view(*index.shape, -1), self.y[index]
        orders = [layout.random_permutations(rng, len(own)) for own, rng in zip(index, rngs, strict=True)]
        shown = [self.reader(layout.permute(self.rows[own], o)) for own, o in zip(index, orders, strict=True)]
        return torch.stack(shown), self.y[index]


@dataclass(frozen=True)
class ItemByItem:
    """Examples that a data set gives one by one, at every access anew, so that its transforms run in every epoch.

    Arguments:
        dataset: Data set of graphs with a `y`, or of `(x, y)`.
        y: Targets, `(N,)`, as the data set gave them first.
        device: Device to which batches are moved.
        kernel: Lengths of the largest kernel of all graphs, which others are padded to.
    """

    dataset: Any
    y: Shaped[Tensor, " networks"]
    device: torch.device | str = "cpu"
    kernel: tuple[int, ...] | None = None

    def batch(self, index: Int[Tensor, "..."], rngs: Sequence[np.random.Generator] = ()) -> tuple[Any, Tensor]:
        """Return inputs and targets of some networks; graphs as one batch of PyG."""
        items = [self.dataset[i] for i in index.flatten().tolist()]
        if isinstance(items[0], Data):
            alike = items if self.kernel is None else [with_kernel(item, self.kernel) for item in items]
            graphs = Batch.from_data_list(alike).to(self.device)
            return graphs, _targets([item.y for item in items]).view(index.shape).to(self.device)
        x, y = zip(*items, strict=True)
        stacked = torch.stack([torch.as_tensor(each) for each in x]).to(self.device)
        return stacked.unflatten(0, index.shape), _targets(y).view(index.shape).to(self.device)


def examples_of(data: Examples | Dataset[Any] | Sequence[Any]) -> Examples:
    """Return a data set as examples.

    Arguments:
        data: Examples, unchanged; or a data set of graphs with a `y` or of `(x, y)`. Integer targets are classes.

    Raises:
        TaskError: If it is empty, or its items are something else.
    """
    if isinstance(data, InMemory | Permuted | ItemByItem):
        return data
    if not isinstance(data, Sized):
        raise TaskError(f"the data set, of {type(data).__name__}, has no length; give one that can be read by position")
    if isinstance(data, ZooRows) and data.transform is None and len(data):
        return InMemory(data.x, data.y)
    items = [data[i] for i in range(len(data))]
    if not items:
        raise TaskError("the data set is empty; give it networks")
    if isinstance(items[0], Data):
        kernels = {tuple(item.kernel) for item in items if "kernel" in item}  # graphs of one's own have none
        return ItemByItem(data, _targets([item.y for item in items]), kernel=largest(kernels) if kernels else None)
    if not isinstance(items[0], tuple | list) or len(items[0]) != 2:
        raise TaskError(f"the data set holds {type(items[0]).__name__}; metanetworks take graphs with a `y`, or (x, y)")
    y = _targets([y for _, y in items])
    if isinstance(data, list | tuple | TensorDataset):  # these have no transforms
        return InMemory(torch.stack([torch.as_tensor(x) for x, _ in items]), y)
    return ItemByItem(data, y)


def read_examples(labelled: Labelled, reader: Reader, *, augment: bool = False) -> Examples:
    """Read networks of a task.

    Arguments:
        labelled: Networks with their targets.
        reader: Fitted reader, whose device the examples are moved to.
        augment: Whether they are shown permuted while a metanetwork learns from them.

    Raises:
        TaskError: If they are to be permuted, but their treatment has no symmetry.
    """
    for networks in labelled.networks if augment else ():
        if not is_symmetric(networks):
            raise TaskError(
                f"augment: {networks.treatment} networks hold entries constant at fixed places and cannot be permuted; "
                "leave it out"
            )
    rows, y = labelled.rows.to(reader.mean.device), labelled.y.to(reader.mean.device)
    return Permuted(rows, y, reader) if augment else InMemory(reader(rows), y)


def _targets(values: Sequence[Any]) -> Tensor:
    """Return targets as one tensor `(N,)`, of single precision or of integers."""
    if any(value is None for value in values):
        raise TaskError("the data set holds graphs without a `y`; give each its target")
    y = torch.stack([torch.as_tensor(value).reshape(-1) for value in values])
    if y.shape[1] != 1:
        raise TaskError(f"the data set gives {y.shape[1]} targets for each network; metanetworks predict one")
    y = y.flatten()
    return y.float() if y.is_floating_point() else y.long()
