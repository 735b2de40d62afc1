"""Trains stacks of networks in PyTorch, each with its own learning rate, decay, label smoothing, epochs and data order.

The networks are the first dimension of every tensor, so a training step is a few operations on tensors `(K, P)`. A
network leaves the stack after its last epoch, or when its loss is no longer finite.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from zoo.data import Data
from zoo.networks.stack import Stack, stack_gradient
from zoo.progress import Progress, ignore
from zoo.recipes.optimizer import Optimizer
from zoo.training.minibatches import batch_size_of, batches
from zoo.training.results import MEASURED, Draws, Trained
from zoo.treatments import Treated

# Columns of `theta` that AdamW updates at a time, so that they, their gradient and their moments stay in cache. An
# update of 935,434 parameters takes the same time, within 15 %, from 2^16 to 2^19 columns; 30 % more at 2^15 and 40 %
# more at 2^20 (two cores of an AMD EPYC, AVX2, one thread).
COLUMNS = 1 << 17


@dataclass
class Live:
    """The networks still in training, and the state of their optimiser.

    Attributes:
        index: Positions of the networks among all networks of the stack, `(K,)`.
        theta: Trained parameters, `(K, P)`.
        before: Those of the last loss that is known to be finite, `(K, P)`.
        moments: Running averages of the optimiser, each `(K, P)`.
        rates: Learning rate at every step, `(K, steps)`.
        decay: Weight decay, `(K, 1)` or `(K, P)`.
        smoothing: Label smoothing, `(K,)`.
        step: Number of steps taken.
    """

    index: Tensor
    theta: Tensor
    before: Tensor
    moments: list[Tensor]
    rates: Tensor
    decay: Tensor
    smoothing: Tensor
    step: int = 0

    def keep(self, which: Tensor) -> None:
        """Keep only the networks selected by the mask `which`, `(K,)`."""
        self.index, self.rates = self.index[which], self.rates[which]
        self.theta, self.before = self.theta[which], self.before[which]
        self.moments = [moment[which] for moment in self.moments]
        self.decay, self.smoothing = self.decay[which], self.smoothing[which]


def adamw(live: Live, gradient: Tensor, settings: Optimizer) -> None:
    """Take a step of AdamW with the operations of `torch.optim.AdamW`, on `COLUMNS` columns at a time."""
    rate, (beta1, beta2) = live.rates[:, live.step, None], settings.betas
    live.step += 1
    shrink = (1 - rate * live.decay).expand_as(gradient)
    tensors = (live.theta, *live.moments, gradient, shrink)
    for theta, mean, square, slope, factor in zip(*(tensor.split(COLUMNS, 1) for tensor in tensors), strict=True):
        theta.mul_(factor)
        mean.lerp_(slope, 1 - beta1)
        square.mul_(beta2).addcmul_(slope, slope, value=1 - beta2)
        denominator = square.sqrt().div_((1 - beta2**live.step) ** 0.5).add_(settings.epsilon)
        theta.addcdiv_(mean * (rate / (1 - beta1**live.step)), denominator, value=-1)


def sgd(live: Live, gradient: Tensor, settings: Optimizer) -> None:
    """Take a step of SGD with momentum, with the operations of `torch.optim.SGD`."""
    (velocity,) = live.moments
    velocity.mul_(settings.momentum).add_(gradient).addcmul_(live.decay, live.theta)
    live.theta.addcmul_(live.rates[:, live.step, None], velocity, value=-1)
    live.step += 1


OPTIMIZERS = {"adamw": (adamw, 2), "sgd": (sgd, 1)}  # step function and number of moments


def train_stacked(
    treated: Treated,
    start: Float[Tensor, "networks parameters"],
    draws: Draws,
    data: Data,
    settings: Optimizer,
    *,
    seed: int,
    progress: Progress = ignore,
) -> Trained:
    """Train K networks together; arguments as in `zoo.training.engines.train`."""
    treated, data = treated.to(start.device, start.dtype), data.to(start.device, start.dtype)
    epochs, all_treated, pairs = draws.epochs, treated, draws.pair.tolist()
    live = _begin(treated, start, draws, settings, data)
    trained = Trained.blank(start, int(epochs.max()))
    for epoch in range(int(epochs.max())):
        began, index = time.perf_counter(), live.index
        order = [pairs[k] for k in index.tolist()]
        minibatches = batches(data, settings.batch_size, seed, order, epoch, augmentation=settings.augmentation)
        _take_steps(treated, live, minibatches, settings, trained)
        ended = epochs[index] == epoch + 1
        _measure_due(treated, live, data, ended | ((epoch + 1) % settings.curves == 0), epoch, trained)
        leaving = ended | trained.diverged[index]
        kept = ended & ~trained.diverged[index]
        trained.rows[index[kept]] = treated.to_rows(live.theta)[kept].cpu()
        trained.record(index[kept], {name: curve[index[kept], epoch] for name, curve in trained.curves.items()})
        trained.seconds[index] += (time.perf_counter() - began) / len(index)
        if leaving.any():
            live.keep(~leaving)
            treated = treated.take(~leaving)
            progress(int(leaving.sum()))
        if len(live.index) == 0:
            break
    if (diverged := trained.diverged).any():
        rows = trained.rows[diverged].to(start.device)
        trained.record(diverged, _measure(all_treated.take(diverged).stack(rows), data))
    return trained


def _take_steps(
    treated: Treated, live: Live, minibatches: Iterable[tuple[Tensor, Tensor]], settings: Optimizer, trained: Trained
) -> None:
    """Take a step on each minibatch.

    A diverged network's last finite weights are saved before the update. Its `theta` then becomes NaN without affecting
    the other networks.
    """
    take_step = OPTIMIZERS[settings.optimizer][0]
    for x, y in minibatches:
        loss, gradient = stack_gradient(treated.stack(treated.to_rows(live.theta)), x, y, live.smoothing)
        # The sum is finite only if the loss and every entry of the gradient are.
        if (broken := ~(loss + gradient.sum(1)).isfinite().cpu()).any():
            kept = live.theta.where(loss.isfinite()[:, None], live.before)
            trained.diverge(live.index, broken, treated.to_rows(kept))
        live.before = live.theta.clone()
        take_step(live, treated.keep_trainable(gradient), settings)  # chain rule of `row = constants + scale * theta`


def _measure_due(treated: Treated, live: Live, data: Data, due: Tensor, epoch: int, trained: Trained) -> None:
    """Measure the networks in training that a mask selects, and record their curves or that they diverged."""
    due = due & ~trained.diverged[live.index]
    if not due.any():
        return
    index, some = live.index[due], treated.take(due)
    measured = _measure(some.stack(treated.to_rows(live.theta)[due]), data)
    trained.diverge(index, ~measured["train_loss"].isfinite(), treated.to_rows(live.before)[due])
    finite = ~trained.diverged[index]
    for name, values in measured.items():
        trained.curves[name][index[finite], epoch] = values[finite]
    live.before = live.before.where(~due[:, None].to(live.theta.device), live.theta)


def _begin(treated: Treated, start: Tensor, draws: Draws, settings: Optimizer, data: Data) -> Live:
    """Return the state of K networks before the first step."""
    networks, steps_per_epoch = len(start), len(data.train_y) // batch_size_of(data, settings.batch_size)
    rates = np.zeros((networks, int(draws.epochs.max()) * steps_per_epoch))
    for k, (rate, epochs) in enumerate(zip(draws.learning_rate.tolist(), draws.epochs.tolist(), strict=True)):
        rates[k, : epochs * steps_per_epoch] = rate * settings.factors(epochs, steps_per_epoch)
    theta = treated.keep_trainable(start).clone()
    moments = OPTIMIZERS[settings.optimizer][1]
    return Live(
        index=torch.arange(networks),
        theta=theta,
        before=theta,
        moments=[torch.zeros_like(theta) for _ in range(moments)],
        rates=torch.from_numpy(rates).to(theta),
        decay=draws.weight_decay[:, None].to(theta) * treated.decay.to(theta),
        smoothing=draws.label_smoothing.to(theta),
    )


def _measure(stack: Stack, data: Data) -> dict[str, Tensor]:
    """Return the metrics of `MEASURED` for a stack on the data without augmentation, on the CPU."""
    train, test = stack.evaluate_splits((data.train_x, data.train_y), (data.test_x, data.test_y))
    return {name: values.cpu() for name, values in zip(MEASURED, (*train, *test), strict=True)}
