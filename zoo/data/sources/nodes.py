"""Nodes of a graph: an example is the number of a node, which the network looks up in the graph."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from zoo.data.graphs import graph_of
from zoo.data.sources.source import Source, Split, Splits


@dataclass(frozen=True)
class Nodes(Source):
    """The nodes of a graph whose name in `zoo.data.graphs.GRAPHS` is that of the data set.

    Arguments:
        classes: Number of classes.
    """

    classes: int
    standardised: ClassVar[bool] = False

    def read(self, name: str, folders: tuple[Path, ...]) -> Splits:
        """Read the node numbers and labels of both splits."""
        graph = graph_of(name, folders[-1] if folders else None)
        train, test = (
            Split(name, nodes[:, None].numpy(), graph.y[nodes].numpy()) for nodes in (graph.train, graph.test)
        )
        return train, test
