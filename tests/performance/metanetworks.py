"""How many times faster metanetworks train on a shared graph than the plain way. Prints JSON.

The plain way to train a graph metanetwork: a list of `Data`, PyG's `DataLoader`, messages that concatenate both ends
of an edge with its state. It has the same parameters and computes the same function. For StatNN: statistics computed
anew in each step. Further, how many times faster a graph metanetwork trains on rows, whose graph is shared, than on
`ZooGraphs`, a disjoint union. Each side runs in a process of its own, one thread, in turns; memory is the process's
greatest.
"""

import json
import multiprocessing
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import MeanAggregation

from benchmark.cli import keep_freed_memory
from metanets.datasets import ZooGraphs, ZooRows
from metanets.inputs import Statistics, Tensors
from metanets.models.gmn import GMN
from metanets.models.graph import EdgeUpdate
from metanets.models.statnn import StatNN
from metanets.settings import Settings
from metanets.training import fit
from zoo.recipes.recipe import Recipe
from zoo.store.columns import KNOWN
from zoo.store.manifest import Mode
from zoo.store.networks import Networks
from zoo.store.shards import write_shard
from zoo.store.zoo import Zoo
from zoo.training.generation import start_rows
from zoo.training.planning import begin

ROUNDS = 5
EPOCHS = 2
NETWORKS = 1024
BATCH = 64


class PlainEdgeUpdate(EdgeUpdate):
    """Both ends of an edge side by side with its state, as one would write it first."""

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden)
        self.ends_and_edge = nn.Linear(3 * hidden, hidden)
        self.source = self.target = self.edge = nn.Identity()

    def edge_update(self, source_j: Tensor, target_i: Tensor, edges: Tensor) -> Tensor:
        return self.ends_and_edge(torch.cat([source_j, target_i, edges], -1)).relu()


class PlainGMN(GMN):
    """Edges are changed, and then aggregated, all by PyG's aggregation."""

    def __init__(self, reader: Tensors) -> None:
        super().__init__(reader)
        self.edge_updates = nn.ModuleList(PlainEdgeUpdate(self.unit.embedding_dim) for _ in self.edge_updates)
        self.means.aggr_module = MeanAggregation()
        for read in (self.read_edges, self.read_nodes):
            read.mean = MeanAggregation()

    def pass_messages(self, nodes: Tensor, edges: Tensor, graph: Data) -> Tensor:
        for update, layer in zip([None, *self.edge_updates], self.layers, strict=True):
            if update is not None:
                edges = edges + update.out(update(nodes, edges, graph.edge_index))
            nodes = layer(nodes, self.means(edges, graph))
        return nodes


def plant(name: str, folder: Path) -> Networks:
    """Write a zoo of networks at their start, with targets; how well they are learnt does not matter here."""
    recipe, pairs = Recipe.load(name).only(["standard"]).model_copy(update={"pairs": NETWORKS}), range(NETWORKS)
    arrays = {
        "weights": start_rows(recipe, "standard", recipe.treat("standard"), pairs).numpy(),
        "pair": np.array(pairs),
        "split": np.full(NETWORKS, "train"),
        "status": np.full(NETWORKS, "trained"),
        "test_accuracy": np.linspace(0, 1, NETWORKS, dtype=np.float32),
    }
    manifest = begin(recipe, [KNOWN[column] for column in arrays])
    mode = Mode(device="cpu", processor="", torch="", data="")
    file = write_shard(folder, manifest, "standard", pairs, arrays, mode)
    manifest.model_copy(update={"files": (file,)}).write(folder)
    return Zoo(folder)["standard"]


def shared(networks: Networks) -> None:
    """An epoch of our way."""
    train(ZooRows(networks, reads="tensors"))


def union(networks: Networks) -> None:
    """An epoch on graphs that a data set gives one by one."""
    train(ZooGraphs(networks))


def train(data: ZooRows | ZooGraphs) -> None:
    settings = Settings(epochs=EPOCHS, batch_size=BATCH)
    timed(lambda: fit(GMN(data.reader), data, data[[0, NETWORKS // 2]], settings), EPOCHS)


def plain(networks: Networks) -> None:
    """An epoch of the plain way."""
    data = ZooRows(networks, reads="tensors")
    model = PlainGMN(data.reader)
    graphs: list[Data] = [model.graph(row).clone() for row in data.x]
    for graph, target in zip(graphs, data.y, strict=True):
        graph.y = target[None]
    loader = DataLoader(graphs, BATCH, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def epoch() -> None:
        for batch in loader:
            optimizer.zero_grad()
            nn.functional.mse_loss(model(batch)[:, 0], batch.y).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    timed(lambda: [epoch() for _ in range(EPOCHS)], EPOCHS)


def statistics(networks: Networks, cached: bool) -> None:
    """An epoch of StatNN."""
    rows, y = networks.weights[:], torch.from_numpy(networks["test_accuracy"])
    reader = Statistics.of(networks).fit(rows)
    model = StatNN(reader)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x = reader(rows) if cached else rows

    def epoch() -> None:
        for index in torch.randperm(NETWORKS).split(BATCH):
            optimizer.zero_grad()
            inputs = x[index] if cached else reader(x[index])
            nn.functional.mse_loss(model(inputs)[:, 0], y[index]).backward()
            optimizer.step()

    timed(lambda: [epoch() for _ in range(EPOCHS)], EPOCHS)


def timed(train: Any, epochs: int) -> None:
    """Report an epoch's seconds of processor time, which others disturb little, and the greatest memory in MB."""
    train()
    began = time.process_time()
    train()
    seconds = (time.process_time() - began) / epochs
    RESULTS.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def start(results: Any) -> None:
    """Prepare a process."""
    global RESULTS
    RESULTS = results
    torch.set_num_threads(1)


def run(side: Any, *arguments: object) -> tuple[float, float]:
    """Run one side in a fresh process."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with context.Pool(1, start, (results,)) as pool:
        pool.apply(side, arguments)
        return results.get()


def compare(what: str, networks: Networks, ours: Any, theirs: Any) -> dict[str, object]:
    """Measure both sides in turns."""
    rounds = np.array(
        [[run(side, networks, *arguments) for side, *arguments in (ours, theirs)] for _ in range(ROUNDS)]
    )  # (rounds, sides, seconds and MB)
    ratio = np.median(rounds[:, 1, 0] / rounds[:, 0, 0])
    seconds, memory = np.median(rounds, 0).T
    return {
        "what": what,
        "recipe": networks.zoo.name,
        "seconds_an_epoch": seconds.round(4).tolist(),
        "megabytes": memory.round().tolist(),
        "ratio": round(float(ratio), 2),
    }


if __name__ == "__main__":
    keep_freed_memory()  # as the command line does; processes inherit it
    with TemporaryDirectory() as home:
        zoos = {name: plant(name, Path(home) / name) for name in ("digits-mlp", "mnist-cnn", "cifar10-resnet8")}
        figures = [compare("gmn", zoos[name], [shared], [plain]) for name in ("digits-mlp", "mnist-cnn")]
        figures.append(compare("gmn on graphs", zoos["digits-mlp"], [shared], [union]))
        for name in ("digits-mlp", "cifar10-resnet8"):
            figures.append(compare("statnn", zoos[name], [statistics, True], [statistics, False]))
    print(json.dumps(figures, indent=1))
