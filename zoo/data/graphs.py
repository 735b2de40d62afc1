"""Graphs whose nodes are examples: one embedded, made by a stochastic block model, and ogbn-arxiv from its raw files.

A network is shown the numbers of nodes and looks the graph up here, so an example is one number, and graphs are in
memory once.
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

BLOCKS, BLOCK_SIZE, FEATURES = 5, 200, 16
WITHIN, BETWEEN = 0.04, 0.01  # how likely two nodes of one block, or of two, are joined
SIGNAL = 0.3  # how far block means are from zero, for noise of variance 1
ARXIV = "https://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip"


@dataclass(frozen=True)
class Graph:
    """A graph with labelled nodes.

    Arguments:
        x: features, each standardised.
        edge_index: both directions of every edge, without loops.
        y: labels in 0 to classes - 1.
        train, test: the nodes of each split.
    """

    x: Float[Tensor, "nodes features"]
    edge_index: Int[Tensor, "2 edges"]
    y: Int[Tensor, " nodes"]
    train: Int[Tensor, " train"]
    test: Int[Tensor, " test"]


def stochastic_blocks() -> Graph:
    """Draw 1,000 nodes in five blocks, more joined within than between them, with weakly telling features.

    networkx draws it, the same on every machine.

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
    """Read ogbn-arxiv from the comma-separated files of its archive; edges count in both directions.

    Source: Hu et al. 2020, *Open Graph Benchmark*, https://arxiv.org/abs/2005.00687.

    Raises:
        DataError: if no folder is named, or a file is missing or damaged.
    """
    if data_dir is None:
        remedy = "pass --data-dir DIR (in Python load_data(..., data_dir=DIR) or open_zoo(..., data_dir=DIR))"
        raise DataError(f"ogbn-arxiv: is read from files; unpack {ARXIV} in a folder DIR and {remedy}")
    folder = next((f for f in (data_dir / "arxiv", data_dir) if (f / "raw").is_dir()), None)
    if folder is None:
        raise DataError(f"{data_dir}: holds no folder arxiv/raw; unpack {ARXIV} there")
    x, y = _table(folder / "raw/node-feat.csv.gz", np.float32), _table(folder / "raw/node-label.csv.gz", np.int64)[:, 0]
    edges = _table(folder / "raw/edge.csv.gz", np.int64).T
    train, test = (_table(folder / f"split/time/{split}.csv.gz", np.int64)[:, 0] for split in ("train", "test"))
    for name, nodes in (("edge", edges), ("train", train), ("test", test)):
        if len(x) != len(y) or nodes.min() < 0 or nodes.max() >= len(x):
            raise DataError(f"{folder}: {name}.csv.gz names nodes that are not there; unpack {ARXIV} anew")
    return _graph(x, edges, y, train, test)


def _table(path: Path, dtype: type[np.generic]) -> NDArray[Any]:
    """Read numbers as `(rows, columns)`."""
    import pandas

    try:
        return pandas.read_csv(path, header=None, dtype=dtype).to_numpy()
    except (OSError, EOFError, ValueError, pandas.errors.ParserError) as error:
        raise DataError(f"{path}: cannot be read ({error}); unpack {ARXIV} anew") from None


def _graph(x: NDArray[Any], edges: NDArray[Any], y: NDArray[Any], train: NDArray[Any], test: NDArray[Any]) -> Graph:
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-12)
    both = np.unique(np.concatenate([edges, edges[::-1]], 1), axis=1)
    both = both[:, both[0] != both[1]]
    arrays = (x.astype(np.float32), both, y, train, test)
    return Graph(*(torch.from_numpy(np.array(array)) for array in arrays))


GRAPHS: dict[str, Callable[[Path | None], Graph]] = {"sbm": lambda _: stochastic_blocks(), "ogbn-arxiv": read_arxiv}


def graph_of(name: str, data_dir: Path | None = None) -> Graph:
    """Return a graph, made or read once for each folder.

    Arguments:
        name: A key of `GRAPHS`.
        data_dir: The folder with its files, if it comes from files.

    Raises:
        DataError: if its files are missing or damaged.
    """
    return _graph_in(name, None if data_dir is None else data_dir.resolve())


@cache
def _graph_in(name: str, folder: Path | None) -> Graph:
    return GRAPHS[name](folder)
