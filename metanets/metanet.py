"""A trained metanetwork with all that it takes to use it again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_geometric.data import Data

from metanets.checkpoints import Config, Origin, name_of, read_checkpoint, write_checkpoint
from metanets.datasets import source_of
from metanets.descent import EVALUATION_BATCH, run
from metanets.examples import Examples, InMemory, ItemByItem, examples_of
from metanets.graph import ParameterGraph
from metanets.inputs import Reader
from metanets.links import Link
from metanets.metrics import measure
from metanets.selection import Labelled, label
from metanets.settings import Settings
from zoo.errors import TaskError
from zoo.networks.roles import named_tensors
from zoo.store.networks import Networks

Predictable = Networks | Labelled | Tensor | NDArray[Any] | Sequence[Any] | Dataset[Any] | Examples


class Metanet:
    """A trained metanetwork: predicts a property of networks from their weights.

        >>> zoo = open_zoo("zoos/digits-mlp")
        >>> metanet = train(Task(recipe="digits-mlp", learn_from="standard"), zoo, "statnn")[0]
        >>> metanet
        Metanet('statnn', digits-mlp/standard/test_accuracy)
        >>> metanet.predict(zoo["standard"][:3]).shape
        torch.Size([3])

    Arguments:
        reader: Fitted reader of rows; None for a module that was trained on a data set of the user's own.
        module: Trained module.
        link: From its outputs to predictions.
        origin: Where it comes from.
        graph: Graph that the module reads in the place of rows, one for each network; built-in graph metanetworks make
            their own.
    """

    def __init__(
        self,
        reader: Reader | None,
        module: nn.Module,
        link: Link,
        origin: Origin | None = None,
        graph: ParameterGraph | None = None,
    ) -> None:
        self.reader, self.module, self.link, self.graph = reader, module, link, graph
        self.origin = Origin(name_of(module), Settings()) if origin is None else origin

    def __repr__(self) -> str:
        """Show what predicts what."""
        task = self.origin.task
        return f"Metanet({self.origin.model!r}, {'a data set' if task is None else task.name})"

    @property
    def target(self) -> str:
        """Name of what it predicts."""
        return self.origin.target

    def predict(self, networks: Predictable) -> Float[Tensor, "..."]:
        """Return predictions in the units of the target, `(N,)`, or the probabilities of classes, `(N, classes)`.

        Arguments:
            networks: `Networks` of a zoo, rows `(N, P)`, modules of their architecture, or a data set of graphs or of
                `(x, y)` like the one it was trained on.

        Raises:
            TaskError: If they have another layout, there are none, or a weight or a prediction is not finite.
        """
        return self.link.in_units(self.predict_on_scale(self.read(networks)))

    @torch.no_grad()
    def predict_on_scale(self, examples: Examples) -> Float[Tensor, "..."]:
        """Return predictions on the scale of the target, on which metrics are taken, batch by batch."""
        self.module.eval()
        batches = torch.arange(len(examples.y)).split(EVALUATION_BATCH)
        outputs = [run(self.module, examples.batch(index)[0], self.link.outputs) for index in batches]
        predicted = torch.cat([self.link(z) for z in outputs]).cpu()
        if not torch.cat(outputs).isfinite().all() or not predicted.isfinite().all():
            raise TaskError(f"{self} predicts values that are not finite; train it with a lower learning rate")
        return predicted

    def evaluate(self, networks: Predictable) -> dict[str, float]:
        """Return how good predictions are, by name of the metric; see `metanets.metrics`.

        Arguments:
            networks: `Networks` of a zoo, or a data set with targets. Networks without a target are left out.

        Raises:
            TaskError: If a target is not finite; or see `predict`.
        """
        if isinstance(networks, Networks):
            classes = () if self.origin.task is None else self.origin.task.classes
            networks = label([networks], self.target, classes, read=self.origin.rows)
        modules = isinstance(networks, list | tuple) and any(isinstance(each, nn.Module) for each in networks)
        if modules or isinstance(networks, Tensor | np.ndarray):
            raise TaskError("evaluate: rows and modules have no targets; give Networks of a zoo, or a data set")
        examples = self.read(networks)
        if not examples.y.isfinite().all():
            raise TaskError("targets: some are not finite; leave out these networks")
        true, predicted = examples.y.cpu().numpy(), self.predict_on_scale(examples).double().numpy()
        true = true.astype(float) if predicted.ndim == 1 else true
        return measure(true, predicted)

    def check(self, networks: Networks | Labelled) -> None:
        """Raise a `TaskError` if networks have another layout than those that it reads."""
        if self.reader is None or networks.layout == self.reader.layout:
            return
        raise TaskError(
            f"networks: their axes are {networks.layout.axes}, but {self} reads {self.reader.layout.axes}; "
            "train on networks like these"
        )

    def read(self, networks: Any) -> Examples:
        """Return networks, in any form that `predict` takes, as the module reads them."""
        modules = isinstance(networks, list | tuple) and all(isinstance(each, nn.Module) for each in networks)
        if not modules and not isinstance(networks, Networks | Labelled | Tensor | np.ndarray):
            self._check_dataset(networks)
            return examples_of(networks)
        if self.reader is None:
            raise TaskError(f"networks: {self} reads a data set like the one that it was trained on; give it one")
        if not len(networks):
            raise TaskError(f"networks: there are none; give {self} at least one")
        if isinstance(networks, Networks | Labelled):
            self.check(networks)
        x = self.reader(self._rows(networks).to(self.reader.mean))
        y = networks.y.to(x.device) if isinstance(networks, Labelled) else x.new_zeros(len(x))
        return InMemory(x, y) if self.graph is None else ItemByItem(_graphs(self.graph, x, y), y, x.device)

    def _check_dataset(self, data: Any) -> None:
        """Raise a `TaskError` if a data set of a zoo's networks has other targets or inputs than those learnt from."""
        source = source_of(data)
        if source is None or self.reader is None:
            return
        if source.target != self.target:
            raise TaskError(f"data set: its target is {source.target}, but {self} predicts {self.target}")
        if source.raw or not source.reader.is_like(self.reader):
            raise TaskError(
                f"data set: its values are not standardised as {self} reads them; pass reader=metanet.reader"
            )

    def _rows(self, networks: Networks | Labelled | Tensor | np.ndarray | Sequence[nn.Module]) -> Tensor:
        """Return the rows of networks."""
        assert self.reader is not None
        if isinstance(networks, Networks | Labelled):
            rows = networks.rows(self.origin.rows)[:] if isinstance(networks, Networks) else networks.rows
        elif isinstance(networks, Tensor | np.ndarray):
            rows = torch.as_tensor(networks)
        else:
            rows = torch.stack([self._row(module) for module in networks])
        if rows.shape[1:] != (self.reader.layout.size,):
            raise TaskError(f"rows: {tuple(rows.shape)}, but {self} reads (networks, {self.reader.layout.size})")
        if not rows.isfinite().all():
            raise TaskError("rows: weights are not finite; leave out networks that diverged")
        return rows

    def _row(self, module: nn.Module) -> Tensor:
        assert self.reader is not None
        named = named_tensors(module)
        shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
        if shapes != {parameter.name: parameter.shape for parameter in self.reader.layout.parameters}:
            raise TaskError(f"module: its parameters are not those that {self} reads")
        return self.reader.layout.flatten(named)

    def save(self, path: str | Path) -> None:
        """Write everything as safetensors.

        Raises:
            TaskError: If it is made of trees, which have no tensors.
        """
        if not list(self.module.parameters()):
            raise TaskError(f"{self.origin.model}: holds no tensors to save; train it again, it takes seconds")
        write_checkpoint(
            Path(path), Config.of(self.origin, self.link, self.reader, self.graph), self.module, self.reader
        )

    @classmethod
    def load(
        cls, path: str | Path, device: torch.device | str = "cpu", model: type[nn.Module] | nn.Module | None = None
    ) -> "Metanet":
        """Read what `save` wrote.

        Arguments:
            path: Path of the file.
            device: Device to put it on.
            model: Class, or module, of a metanetwork that is not built in; the file names it, but is not trusted to.

        Raises:
            TaskError: If the file is no such checkpoint, or holds a metanetwork that is not known.
        """
        config, module, reader = read_checkpoint(Path(path), model)
        module.to(device)
        graph = None
        if reader is not None:
            reader.to(device)
            graph = ParameterGraph(reader.layout, reader.mask) if config.graphs else None
        return cls(reader, module, config.link, config.origin, graph)


def _graphs(graph: ParameterGraph, rows: Tensor, y: Tensor) -> list[Data]:
    """Return a graph of each row, with its target."""
    graphs = [graph(row) for row in rows]
    for each, target in zip(graphs, y, strict=True):
        each.y = target.view(1)
    return graphs
