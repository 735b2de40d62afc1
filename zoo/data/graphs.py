"""Graphs whose nodes are examples: one drawn from a stochastic block model, and ogbn-arxiv, read from its raw files.

An example is the number of a node. A network gets such numbers and takes the graph from here, so that a graph is in
memory only once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import DataError
from zoo.seeds import rng_for

# The stochastic block model, chosen so that features alone classify worse than features with those of neighbours.
BLOCKS, BLOCK_SIZE, FEATURES = 5, 200, 16
WITHIN, BETWEEN = 0.04, 0.01  # probability of an edge between two nodes of the same block, and of different blocks
SIGNAL = 0.3  # standard deviation of the block means of a feature; the noise has standard deviation 1
ARXIV = "https://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip"


@dataclass(frozen=True)
class Graph:
    """A graph with labelled nodes.

    Arguments:
        x: Features of the nodes, each feature standardised.
        edge_index: Start and end of every edge, in both directions, without loops.
        y: Labels of the nodes, from 0 to classes - 1.
        train, test: Numbers of the nodes in each split.
    """

    x: Float[Tensor, "nodes features"]
    edge_index: Int[Tensor, "2 edges"]
    y: Int[Tensor, " nodes"]
    train: Int[Tensor, " train"]
    test: Int[Tensor, " test"]


def stochastic_blocks() -> Graph:
    """Return a graph of 1,000 nodes in five blocks, with weakly informative features.

    Edges are more likely within a block than between blocks. The graph is the same on every machine.

    Source: Holland, Laskey, Leinhardt 1983, *Stochastic Blockmodels: First Steps*,
    https://doi.org/10.1016/0378-8733(83)90021-7.
    """
    import networkx

    joined = np.where(np.eye(BLOCKS, dtype=bool), WITHIN, BETWEEN)
    drawn = networkx.stochastic_block_model([BLOCK_SIZE] * BLOCKS, joined.tolist(), seed=0)
    y = np.arange(BLOCKS).repeat(BLOCK_SIZE)
    rng = rng_for(0, "sbm")
    means = SIGNAL * rng.standard_normal((BLOCKS, FEATURES))
    x = means[y] + rng.standard_normal((len(y), FEATURES))
    train, test = np.split(rng.permutation(len(y)), 2)
    return _graph(x, np.array(drawn.edges).T, y, train, test)


def read_arxiv(data_dir: Path | None) -> Graph:
    """Read ogbn-arxiv from the comma-separated files of its archive, with edges in both directions.

    Source: Hu et al. 2020, *Open Graph Benchmark*, https://arxiv.org/abs/2005.00687.

    Raises:
        DataError: If no folder is given, or a file is missing or damaged.
    """
    if data_dir is None:
        remedy = "give --data-dir DIR (in Python load_data(..., data_dir=DIR) or open_zoo(..., data_dir=DIR))"
        raise DataError(f"ogbn-arxiv: is read from files; unpack {ARXIV} in a folder DIR and {remedy}")
    folder = next((f for f in (data_dir / "arxiv", data_dir) if (f / "raw").is_dir()), None)
    if folder is None:
        raise DataError(f"{data_dir}: has no folder arxiv/raw; unpack {ARXIV} there")
    x, y = _table(folder / "raw/node-feat.csv.gz", np.float32), _table(folder / "raw/node-label.csv.gz", np.int64)[:, 0]
    edges = _table(folder / "raw/edge.csv.gz", np.int64).T
    train, test = (_table(folder / f"split/time/{split}.csv.gz", np.int64)[:, 0] for split in ("train", "test"))
    for name, nodes in (("edge", edges), ("train", train), ("test", test)):
        if len(x) != len(y) or nodes.min() < 0 or nodes.max() >= len(x):
            raise DataError(f"{folder}: {name}.csv.gz names nodes that do not exist; unpack {ARXIV} again")
    return _graph(x, edges, y, train, test)


def _table(path: Path, dtype: type[np.generic]) -> NDArray[Any]:
    """Read a file of numbers, `(rows, columns)`."""
    import pandas

    try:
        return pandas.read_csv(path, header=None, dtype=dtype).to_numpy()
    except (OSError, EOFError, ValueError, pandas.errors.ParserError) as error:
        raise DataError(f"{path}: cannot be read ({error}); unpack {ARXIV} again") from None


def _graph(x: NDArray[Any], edges: NDArray[Any], y: NDArray[Any], train: NDArray[Any], test: NDArray[Any]) -> Graph:
    """Return a graph with standardised features and with both directions of every edge, without loops."""
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-12)
    both = np.unique(np.concatenate([edges, edges[::-1]], 1), axis=1)
    both = both[:, both[0] != both[1]]
    arrays = (x.astype(np.float32), both, y, train, test)
    return Graph(*(torch.from_numpy(np.array(array)) for array in arrays))


GRAPHS: dict[str, Callable[[Path | None], Graph]] = {"sbm": lambda _: stochastic_blocks(), "ogbn-arxiv": read_arxiv}


def graph_of(name: str, data_dir: Path | None = None) -> Graph:
    """Return a graph, which is made or read only once for each folder.

    Arguments:
        name: Name of the graph, a key of `GRAPHS`.
        data_dir: Folder with its files, for a graph that is read from files.

    Raises:
        DataError: If its files are missing or damaged.
    """
    return _graph_in(name, None if data_dir is None else data_dir.resolve())


@cache
def _graph_in(name: str, folder: Path | None) -> Graph:
    return GRAPHS[name](folder)
