"""Zoos as data sets: parameter graphs for PyG, rows for metanetworks that read them flat."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.data import Subset
from torch_geometric.data import Data, Dataset

from metanets.graph import ParameterGraph
from metanets.inputs import Reader, fit_reader
from metanets.selection import Labelled, fit_task_reader, label, select
from metanets.tasks import TARGET, TREATMENT, Task
from zoo.store.columns import Split
from zoo.store.networks import Networks, networks_of
from zoo.store.zoo import Zoo


class _ZooData(Dataset):
    """Networks in memory: slices, shuffles and transforms are those of PyG's in-memory data sets."""

    reads: str

    def __init__(
        self,
        networks: Networks | Labelled,
        target: str = TARGET,
        *,
        reader: Reader | None = None,
        raw: bool = False,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(transform=transform)
        labelled = label([networks], target) if isinstance(networks, Networks) else networks
        if reader is None:
            train = [networks_of(each.zoo, each.treatment).split("train") for each in labelled.networks]
            fitted = fit_reader(self.reads, *train, include_fixed=len(train) > 1, column=labelled.read)
        self.reader = fitted if reader is None else reader
        self._pairs = torch.from_numpy(labelled.pairs)
        self.column, self.read, self.raw = labelled.column, labelled.read, raw
        self._x = labelled.rows if raw else self.reader(labelled.rows)
        self._y = labelled.y

    @classmethod
    def of(cls, task: Task, zoo: Zoo, split: Split, *, test_zoo: Zoo | None = None, **options: Any) -> Any:
        """Return the networks of a task's split.

        Arguments:
            task: The task.
            zoo: Zoo of the task.
            split: `train`, `validation` or `test`.
            test_zoo: Zoo that is tested on, if it is another one.
            options: Further arguments of the data set, such as `reader`, by default one of the task's train split.

        Raises:
            TaskError: See `metanets.selection.select`.
        """
        labelled = select(task, zoo, split, test_zoo)
        if options.get("reader") is None:
            options["reader"] = fit_task_reader(task, zoo, options.get("reads", cls.reads))
        return cls(labelled, **options)

    @property
    def target(self) -> str:
        """Name of what is predicted."""
        return TREATMENT if self.column is None else self.column.name

    @property
    def pairs(self) -> Int[Tensor, " networks"]:
        """Numbers of the networks' pairs, in the order of the data set."""
        return self._pairs[list(self.indices())]

    @property
    def y(self) -> Shaped[Tensor, " networks"]:
        """Targets of the networks, in the order of the data set."""
        return self._y[list(self.indices())]

    def len(self) -> int:
        """Return the number of networks."""
        return len(self._y)


class ZooRows(_ZooData):
    """Networks as flat rows: item `i` is `(x (features,), y ())`.

    Values are standardised: each entry by its mean and standard deviation over the training networks of the same zoo
    and treatment (see the reader for what it does). `raw=True` gives the rows as the networks use them.

    Arguments:
        networks: Networks of a treatment, usually of one split, such as `zoo["standard"].split("train")`.
        target: Column to predict, or `generalisation_gap`.
        reader: Fitted reader to use instead, such as that of the train split (`train.reader`), shared to save time.
        raw: Whether to leave out standardisation.
        transform: Function of an item `(x, y)`, called at every access.
        reads: Name of the reader, a key of `metanets.inputs.READERS`: `rows`, `statistics` or `tensors`.

    Raises:
        TaskError: If there is no such target.
    """

    reads = "rows"

    def __init__(
        self,
        networks: Networks | Labelled,
        target: str = TARGET,
        *,
        reader: Reader | None = None,
        raw: bool = False,
        transform: Callable[[Any], Any] | None = None,
        reads: str = "rows",
    ) -> None:
        self.reads = reads if reader is None else reader.name
        super().__init__(networks, target, reader=reader, raw=raw, transform=transform)

    @property
    def x(self) -> Float[Tensor, "networks features"]:
        """Inputs of all networks, in the order of the data set, before transforms."""
        return self._x[list(self.indices())]

    @property
    def num_features(self) -> int:
        """Length of an input."""
        return self._x.shape[1]

    def get(self, idx: int) -> tuple[Tensor, Tensor]:
        """Return a copy of a network's input and target."""
        return self._x[idx].clone(), self._y[idx].clone()


class ZooGraphs(_ZooData):
    """Networks as parameter graphs, for PyG's `DataLoader` and transforms; see `ParameterGraph`.

    Values on edges are standardised: entries of a tensor by the median over training networks of its mean and standard
    deviation, then compressed by an inverse hyperbolic sine. `raw=True` gives the weights themselves. All graphs share
    one structure in memory; each item is a copy, so that editing it changes no other.

    Arguments:
        networks: Networks of a treatment, usually of one split, such as `zoo["standard"].split("train")`.
        target: Column to predict, or `generalisation_gap`.
        reader: Fitted reader of tensors to use instead, such as that of the train split (`train.reader`).
        raw: Whether to leave out standardisation.
        transform: Transform of a graph, as in PyG, called at every access.

    Raises:
        TaskError: If there is no such target.
    """

    reads = "tensors"

    def __init__(
        self,
        networks: Networks | Labelled,
        target: str = TARGET,
        *,
        reader: Reader | None = None,
        raw: bool = False,
        transform: Callable[[Data], Data] | None = None,
    ) -> None:
        super().__init__(networks, target, reader=reader, raw=raw, transform=transform)
        self.graph = ParameterGraph(self.reader.layout, self.reader.mask)

    def get(self, idx: int) -> Data:
        """Return the graph of a network, with its target `y (1,)`."""
        graph: Data = self.graph(self._x[idx])
        graph.y = self._y[idx : idx + 1]
        return graph.clone()


def source_of(data: Any) -> ZooGraphs | ZooRows | None:
    """Return the data set of a zoo's networks that `torch.utils.data` made subsets of, if it is one."""
    while isinstance(data, Subset):
        data = data.dataset
    return data if isinstance(data, ZooGraphs | ZooRows) else None
