"""Nodes of a graph: an example is the number of a node, by which a network finds it in the graph."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from zoo.data.graphs import graph_of
from zoo.data.sources.source import Source, Split, Splits


@dataclass(frozen=True)
class Nodes(Source):
    """The nodes of the graph that has the data set's name in `zoo.data.graphs.GRAPHS`."""

    classes: int
    standardised: ClassVar[bool] = False

    def read(self, name: str, folders: tuple[Path, ...]) -> Splits:
        """Read the numbers and labels of the nodes of both splits."""
        graph = graph_of(name, folders[-1] if folders else None)
        train, test = (
            Split(name, nodes[:, None].numpy(), graph.y[nodes].numpy()) for nodes in (graph.train, graph.test)
        )
        return train, test
