"""Zoos as data sets: rows for metanetworks that read them flat, graphs for PyG."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.data import Dataset as GraphDataset

from metanets.graph import ParameterGraph
from metanets.inputs import READERS, Reader
from zoo.errors import TaskError
from zoo.store.zoo import Zoo


@dataclass(frozen=True)
class Examples:
    """Networks as a metanetwork sees them, and what is to be predicted.

    Arguments:
        x: `(N, features)`, or N graphs.
        y: `(N,)`.
    """

    x: Float[Tensor, "networks features"] | Sequence[Data]
    y: Float[Tensor, " networks"]

    @classmethod
    def of(cls, dataset: "Networks") -> "Examples":
        """Collect a data set of pairs `(x, y)` or of graphs with a `y`."""
        if isinstance(dataset, Examples):
            return dataset
        items = [dataset[i] for i in range(len(dataset))]  # type: ignore[arg-type]
        if not items:
            raise TaskError("the data set is empty; give it networks")
        if isinstance(items[0], Data):
            return cls(items, torch.cat([item.y.view(1) for item in items]))
        x, y = zip(*items, strict=True)
        return cls(torch.stack(x), torch.stack([torch.as_tensor(value) for value in y]))

    def __len__(self) -> int:
        """N."""
        return len(self.y)

    def take(self, index: Int[Tensor, "..."], rngs: Sequence[np.random.Generator] = ()) -> Tensor | Batch:
        """Return the inputs of some networks as one batch; `rngs` drive augmentation, one for each row of `index`."""
        if isinstance(self.x, Tensor):
            return self.x[index]
        return Batch.from_data_list([self.x[i] for i in index.flatten().tolist()])

    def to(self, device: torch.device | str) -> "Examples":
        """Move to a device."""
        x = self.x.to(device) if isinstance(self.x, Tensor) else [graph.to(device) for graph in self.x]
        return Examples(x, self.y.to(device))


Networks = Examples | torch.utils.data.Dataset[Any]  # what metanetworks learn from and predict


@dataclass(frozen=True)
class OrbitExamples(Examples):
    """Examples that are shown, while `rngs` are given, with their hidden units permuted at random.

    Arguments:
        x: what `reader` makes of `rows`.
        rows: `(N, P)`.
        reader: fitted.
    """

    rows: Float[Tensor, "networks parameters"]
    reader: Reader

    def take(self, index: Int[Tensor, "..."], rngs: Sequence[np.random.Generator] = ()) -> Tensor | Batch:
        """Return the inputs of some networks, each somewhere on its orbit."""
        if not rngs:
            return super().take(index)
        layout = self.reader.layout
        return torch.stack(
            [
                self.reader(layout.permute(self.rows[some], layout.random_permutations(rng, len(some))))
                for some, rng in zip(index, rngs, strict=True)
            ]
        )


def split_index(zoo: Zoo, treatment: str, split: str, networks: int | None = None) -> NDArray[np.int64]:
    """Return which networks of a zoo are in a split, those that diverged left out; only the first `networks`.

    Raises:
        TaskError: if there are fewer than two.
    """
    index = zoo.index(treatment, split)[:networks]
    if len(index) < 2:
        raise TaskError(
            f"{zoo.folder}: {treatment} has {len(index)} networks in its {split} split; generate more pairs"
        )
    return index


def split_targets(
    zoo: Zoo, treatment: str, split: str, task: str, networks: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return which networks are in a split, see `split_index`, and what is to be predicted of them.

    Raises:
        TaskError: if there are fewer than two, or all have the same target.
        ZooError: if the zoo has no such treatment or metric.
    """
    index = split_index(zoo, treatment, split, networks)
    values = zoo.field(treatment, task)
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise TaskError(f"{zoo.folder}: {task} is no single number of each network; take another column to predict")
    y = values[index].astype(np.float32)
    if (y == y[0]).all():
        raise TaskError(f"{zoo.folder}: {treatment}'s {split} networks all have the same {task}; nothing to predict")
    return index, y


def read_split(
    zoo: Zoo,
    treatment: str,
    split: str,
    reader: Reader,
    *,
    task: str = "test_accuracy",
    networks: int | None = None,
    augment: bool = False,
) -> Examples:
    """Read the networks of a split, those that diverged left out.

    Arguments:
        zoo, treatment, split: which networks.
        reader: what is read of them.
        task: what is to be predicted, a metric of the zoo.
        networks: the first so many only.
        augment: whether they are shown permuted while a metanetwork learns from them.

    Raises:
        TaskError: if there are fewer than two networks, all have the same target, or the treatment has no symmetry by
            which to permute.
        ZooError: if the zoo has no such treatment or metric.
    """
    if augment and (zoo.treated(treatment).held or zoo.group(treatment, "constant")):
        raise TaskError(f"augment: what {treatment} holds fixed has its place and is not permuted; leave it out")
    index, targets = split_targets(zoo, treatment, split, task, networks)
    rows = zoo.rows(treatment, index).to(reader.mean.device)
    x, y = reader(rows), torch.from_numpy(targets).to(rows.device)
    return OrbitExamples(x, y, rows, reader) if augment else Examples(x, y)


def fit_reader(zoo: Zoo, treatment: str, reads: str, *, fixed: bool = False) -> Reader:
    """Return a reader, a key of `READERS`, fitted to the training networks of a treatment.

    Raises:
        TaskError: if there are fewer than two.
    """
    reader = READERS[reads].of(zoo.treated(treatment), fixed)
    return reader.fit(zoo.rows(treatment, split_index(zoo, treatment, "train")))


class ZooRows(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """A split as flat rows: item `i` is `(x (features,), y ())`.

    Arguments:
        zoo, treatment, split: which networks; those that diverged are left out.
        target: what is to be predicted, a metric of the zoo.
        reads: what `x` is, a key of `READERS`.
        fixed: whether to read the entries, too, that are the same in all networks.
    """

    def __init__(
        self,
        zoo: Zoo,
        treatment: str,
        split: str,
        target: str = "test_accuracy",
        *,
        reads: str = "rows",
        fixed: bool = False,
    ) -> None:
        reader = fit_reader(zoo, treatment, reads, fixed=fixed)
        examples = read_split(zoo, treatment, split, reader, task=target)
        self.x, self.y = torch.as_tensor(examples.x), examples.y

    def __len__(self) -> int:
        """How many networks."""
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Return network `i` and its target."""
        return self.x[i], self.y[i]


class ZooDataset(GraphDataset):
    """A split as parameter graphs in memory, for PyG's `DataLoader` and transforms; see `ParameterGraph`.

    Arguments:
        zoo, treatment, split: which networks; those that diverged are left out.
        target: what is to be predicted, a metric of the zoo.
        transform: of each graph, as in PyG.
    """

    def __init__(
        self,
        zoo: Zoo,
        treatment: str,
        split: str,
        target: str = "test_accuracy",
        transform: Callable[[Data], Data] | None = None,
    ) -> None:
        super().__init__(transform=transform)
        reader = fit_reader(zoo, treatment, "tensors")
        examples = read_split(zoo, treatment, split, reader, task=target)
        self.graph, self.rows, self.y = ParameterGraph(reader.layout, reader.trainable), examples.x, examples.y

    def len(self) -> int:
        """How many networks."""
        return len(self.y)

    def get(self, idx: int) -> Data:
        """Return the graph of a network, its target `y (1,)`."""
        graph: Data = self.graph(self.rows[idx])
        graph.y = self.y[idx : idx + 1]
        return graph
