"""How many times faster K variational posteriors train at once than one at a time. Prints JSON.

One at a time means ordinary modules as in the paper's code: local reparametrisation in each layer, of rank 4 or with
trained variances (rank 0), and `torch.optim.Adam(fused=True)`; or our own `fit` with one posterior. All sides run in two
processes of one thread each, in turns, on the same networks.
"""

import json
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.cli import keep_freed_memory
from benchmark.inference.variational import Settings, fit
from zoo.data import Data, load_data
from zoo.recipes.recipe import Recipe
from zoo.training.generation import start_rows
from zoo.training.minibatches import batches

ROUNDS = 5
CASES = [  # recipe, K, and how
    ("digits-mlp", 32, Settings(rank=0, steps=30)),
    ("digits-mlp", 32, Settings(rank=4, steps=30)),
    ("digits-mlp8-replicas", 2, Settings(rank=0, steps=8)),
    ("digits-mlp8-replicas", 2, Settings(rank=4, steps=8)),
]


class Random(nn.Module):
    """A linear map whose weights are drawn for each example."""

    def __init__(self, layer: nn.Linear, settings: Settings) -> None:
        super().__init__()
        self.layer, self.rank, self.variance = layer, settings.rank, float(np.exp(settings.log_variance))
        weight, bias = layer.weight, layer.bias
        if self.rank:
            self.v = nn.Parameter(torch.randn(self.rank, *weight.shape) * weight.std().item() / (2 * self.rank**0.5))
            self.v_bias = nn.Parameter(0.01 * torch.randn(self.rank, 1, *bias.shape))
        else:
            self.log_variance = nn.Parameter(torch.full_like(weight, settings.log_variance))
            self.log_variance_bias = nn.Parameter(torch.full_like(bias, settings.log_variance))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.layer(x)
        if not self.rank:
            variance = functional.linear(x.square(), self.log_variance.exp(), self.log_variance_bias.exp())
            return mean + variance.sqrt() * torch.randn_like(mean)
        variance = self.variance * (x.square().sum(1, keepdim=True) + 1)
        low_rank = torch.bmm(x.expand(self.rank, *x.shape), self.v.mT) + self.v_bias
        z = torch.randn(self.rank, len(x), 1) / self.rank**0.5
        return mean + variance.sqrt() * torch.randn_like(mean) + (z * low_rank).sum(0)

    def divergence(self, precision: float) -> Tensor:
        precision = precision * len(self.layer.bias)
        mean = torch.cat([self.layer.weight.flatten(), self.layer.bias])
        if not self.rank:
            log_variance = torch.cat([self.log_variance.flatten(), self.log_variance_bias])
            terms = precision * (mean.square() + log_variance.exp()) - log_variance - np.log(precision) - 1
            return terms.sum() / 2
        v = torch.cat([self.v.flatten(1), self.v_bias.flatten(1)], 1) / self.rank**0.5
        energy = precision * (mean.square().sum() + v.square().sum() + self.variance * len(mean))
        entropy = len(mean) * (np.log(self.variance * precision) + 1)
        return (energy - entropy - torch.logdet(torch.eye(self.rank) + v @ v.T / self.variance)) / 2


def train_one(network: nn.Module, data: Data, settings: Settings, pair: int) -> None:
    """Train one posterior as anyone would."""
    for name, part in list(network.named_modules()):
        if isinstance(part, nn.Linear):
            network.set_submodule(name, Random(part, settings))
    layers = [part for part in network.modules() if isinstance(part, Random)]
    optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate, fused=True)
    step = 0
    while True:
        for x, y in batches(data, settings.batch_size, 0, [pair], step):
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(x[0]), y[0])
            (loss + sum(layer.divergence(settings.precision) for layer in layers) / len(data.train_y)).backward()
            optimizer.step()
            loss.item()
            step += 1
            if step == settings.steps:
                return


def work(name: str, networks: int, settings: Settings, barrier: Any, results: Any) -> None:
    """Train posteriors all ways in turns, while another process does the same; report the seconds of each."""
    torch.set_num_threads(1)
    recipe, data, pairs = Recipe.load(name), load_data("digits"), range(networks)
    treated = recipe.treat("standard")
    start = treated.to_rows(start_rows(recipe, "standard", treated, pairs))
    stack = treated.stack(start)
    sides = (
        lambda: fit(treated, start, data, settings, pairs=pairs),
        lambda: [train_one(stack.network(k), data, settings, k) for k in pairs],
        lambda: [fit(treated, start[k : k + 1], data, settings, pairs=[k]) for k in pairs],
    )
    for side in sides:
        side()
    results.put([[seconds(side, barrier) for side in sides] for _ in range(ROUNDS)])


def seconds(side: Callable[[], object], barrier: Any) -> float:
    """Time a side from when both processes are ready."""
    barrier.wait()
    began = time.perf_counter()
    side()
    return time.perf_counter() - began


def compare(name: str, networks: int, settings: Settings) -> dict[str, object]:
    """Measure all sides in two processes."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=work, args=(name, networks, settings, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    rounds = np.array([results.get() for _ in processes])  # (processes, rounds, sides)
    for process in processes:
        process.join()
    return {
        "recipe": name,
        "rank": settings.rank,
        "posteriors": networks,
        "milliseconds_a_step": (np.median(rounds, (0, 1)) / networks / settings.steps * 1e3).round(2).tolist(),
        "ratio": round(float(np.median(rounds[..., 1] / rounds[..., 0])), 2),
        "ratio_to_one_by_fit": round(float(np.median(rounds[..., 2] / rounds[..., 0])), 2),
    }


if __name__ == "__main__":
    keep_freed_memory()  # as the command line does; processes inherit it
    print(json.dumps([compare(*case) for case in CASES], indent=1))
