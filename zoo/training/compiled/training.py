"""Trains networks one after the other with compiled functions.

Every result is a sequence of operations that all x86-64 processors round alike. So the weights and metrics of a network
are the same, bit for bit, on each of them, whatever else trains beside it.
"""

import time
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data import Data
from zoo.errors import AsymZooError
from zoo.progress import Progress, ignore
from zoo.recipes.optimizer import Optimizer
from zoo.training.compiled.checking import program_for
from zoo.training.compiled.kernels import train_epoch
from zoo.training.compiled.memory import Workspace, read_splits
from zoo.training.compiled.program import Program
from zoo.training.compiled.state import Network, Rule, Splits
from zoo.training.minibatches import batch_size_of, draw_order
from zoo.training.results import MEASURED, Draws, Trained
from zoo.treatments import Treated


def train_compiled(
    treated: Treated,
    start: Tensor,
    draws: Draws,
    data: Data,
    settings: Optimizer,
    *,
    seed: int,
    progress: Progress = ignore,
) -> Trained:
    """Train K networks one after the other; arguments as in `zoo.training.engines.train`.

    Raises:
        AsymZooError: If the architecture has operations that this engine does not know.
    """
    batch = batch_size_of(data, settings.batch_size)
    program = program_for(treated, data.shape, batch)
    if program is None:
        raise AsymZooError("engine: cannot compile this architecture; train it with the engine torch")
    trained, thetas = Trained.blank(start, int(draws.epochs.max())), torch.empty_like(start)
    splits, workspace = read_splits(data), Workspace(program, treated, start, batch)
    training = _Training(program, splits, settings, len(data.train_y), batch)
    for k in range(len(start)):
        began, network = time.perf_counter(), workspace.begin(k)
        training.run(network, draws, k, seed, trained)
        thetas[k] = program.unpack(network.theta)
        trained.seconds[k] = time.perf_counter() - began
        progress(1)
    trained.rows[:] = treated.to_rows(thetas)
    return trained


@dataclass(frozen=True)
class _Training:
    """How all networks of a program train."""

    program: Program
    splits: Splits
    settings: Optimizer
    examples: int
    batch: int

    def run(self, network: Network, draws: Draws, k: int, seed: int, trained: Trained) -> None:
        """Train network `k`, and record its metrics and curves."""
        epochs, pair, every = int(draws.epochs[k]), int(draws.pair[k]), self.settings.curves
        examples, ops, splits = self.examples, self.program.ops, self.splits
        steps = examples // self.batch
        rates = rates_of(self.settings, float(draws.learning_rate[k]), epochs, steps)
        rule = self._rule(float(draws.weight_decay[k]), float(draws.label_smoothing[k]))
        curves = [trained.curves[name][k].numpy() for name in MEASURED]  # views, to write into them faster
        for epoch in range(epochs):
            order = draw_order(seed, pair, epoch, examples)[: steps * self.batch].reshape(steps, -1)
            measured = (epoch + 1) % every == 0 or epoch + 1 == epochs
            finite, *metrics = train_epoch(ops, network, rule, rates[epoch], order, splits, measured)
            if measured and finite:
                finite = isfinite(metrics[1])
                if finite:
                    network.before[:] = network.theta
                else:
                    network.theta[:] = network.before
            if not finite:
                trained.diverged[k] = True
                metrics = self.measure(network)
                break
            if measured:
                for curve, value in zip(curves, metrics, strict=True):
                    curve[epoch] = value
        for name, value in zip(MEASURED, metrics, strict=True):
            trained.metrics[name][k] = value

    def measure(self, network: Network) -> list[float]:
        """Return the metrics of `MEASURED`."""
        order, rates = np.zeros((0, self.batch), np.int64), np.zeros((0, 3), np.float32)
        return list(train_epoch(self.program.ops, network, self._rule(0.0, 0.0), rates, order, self.splits, True)[1:])

    def _rule(self, weight_decay: float, label_smoothing: float) -> Rule:
        settings = self.settings
        sgd = settings.optimizer == "sgd"
        return Rule(sgd, settings.momentum, *settings.betas, settings.epsilon, weight_decay, label_smoothing)


def rates_of(settings: Optimizer, rate: float, epochs: int, steps: int) -> NDArray[np.float32]:
    """Return what `update` needs of every step, `(epochs, steps, 3)`."""
    rates = rate * settings.factors(epochs, steps)
    first, second = (_bias_corrections(beta, len(rates)) for beta in settings.betas)
    columns = torch.from_numpy(np.stack([rates, rates / first, 1 / np.sqrt(second)], 1))
    return columns.float().unflatten(0, (epochs, steps)).numpy()


@lru_cache(maxsize=128)
def _bias_corrections(beta: float, steps: int) -> NDArray[np.float64]:
    """Return `1 - beta ** t` for the steps from 1, `(steps,)`; powers are products, which all machines round alike."""
    return 1 - np.cumprod(np.full(steps, beta))
