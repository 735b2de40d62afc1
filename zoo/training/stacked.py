"""Trains stacks of networks in PyTorch, each with its own learning rate, decay, label smoothing, epochs and data order.

The networks are the first dimension of every tensor, so a training step is a few operations on tensors `(K, P)`. Within
an epoch, nothing is read back from the device: a network whose loss is no longer finite is kept as it was before, and
is found at the end of the epoch. Networks leave the stack between epochs.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.data import Data
from zoo.networks.stack import Stack, in_training
from zoo.progress import Progress, ignore
from zoo.recipes.optimizer import Optimizer
from zoo.training.minibatches import Minibatches, batch_size_of, draw_minibatches
from zoo.training.replay import repeatable
from zoo.training.results import MEASURED, Draws, Trained
from zoo.training.updates import OPTIMIZERS, Descent, Rates
from zoo.training.ways import WAYS, Gradient
from zoo.treatments import Treated

# Networks that ended stay in a stack on a GPU until this fraction of it is left, because a step of another size has to
# be recorded again.
FEWEST_LEFT = 0.75


@dataclass
class Live:
    """The networks of a stack, and all that changes while they train.

    Attributes:
        treated: Architecture and treatment of the networks.
        index: Positions of the networks among all that train, `(K,)`, on the CPU.
        training: Whether each network trains in this epoch, `(K,)`, on the CPU.
        finite: Whether it trains and its losses and gradients were finite so far, `(K,)`, on the device.
        gradient: Function that computes losses and gradients.
        descent: Parameters and state of the optimiser.
        smoothing: Label smoothing, `(K,)`.
        minibatches: Minibatches of the epoch.
    """

    treated: Treated
    index: Tensor
    training: Tensor
    finite: Tensor
    gradient: Gradient
    descent: Descent
    smoothing: Tensor
    minibatches: Minibatches

    def take(self, chosen: Tensor) -> "Live":
        """Return the networks at positions on the CPU."""
        there = chosen.to(self.finite.device)
        return Live(
            self.treated.take(chosen),
            self.index[chosen],
            self.training[chosen],
            self.finite[there],
            self.gradient,
            self.descent.take(there),
            self.smoothing[there],
            self.minibatches.take(there),
        )

    def stack(self, theta: Tensor) -> Stack:
        """Return the networks with other parameters."""
        return self.treated.stack(self.treated.to_rows(theta))


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
    last, pairs, step = int(draws.epochs.max()), draws.pair.tolist(), None
    trained = Trained.blank(start, last)

    def draw(epoch: int, index: Tensor) -> Minibatches:
        some = [pairs[k] for k in index.tolist()]
        return draw_minibatches(data, settings.batch_size, seed, some, epoch, augmentation=settings.augmentation)

    live = begin(treated, start, draws, data, settings)
    live.minibatches.load(draw(0, live.index))
    fewest_left = FEWEST_LEFT if start.is_cuda else 1.0
    with ThreadPoolExecutor(1) as background:
        for epoch in range(last):
            began, index, trains = time.perf_counter(), live.index, live.training
            ahead = background.submit(draw, epoch + 1, index if epoch + 1 < last else index[:0])
            step = step or repeatable(partial(take_step, live, data, settings), start.device)
            for _ in range(len(live.minibatches.order)):
                step()
            ended, measured = draws.epochs[index] == epoch + 1, (epoch + 1) % settings.curves == 0
            _end_epoch(live, data, ended, ended | measured, epoch, trained)
            trained.seconds[index[trains]] += (time.perf_counter() - began) / int(trains.sum())
            progress(int((trains & ~live.training).sum()))
            drawn, stay = ahead.result(), live.training.nonzero()[:, 0]
            if len(stay) == 0:
                break
            if len(stay) <= min(fewest_left * len(index), len(index) - 1):
                live, drawn, step = live.take(stay), drawn.take(stay), None
            live.minibatches.load(drawn)
    _measure_diverged(treated, data, trained)
    return trained


def take_step(live: Live, data: Data, settings: Optimizer) -> None:
    """Take a training step with the next minibatch of the epoch.

    A network whose loss is not finite goes back to the parameters of its last finite loss, and one whose gradient is
    not finite keeps those that it has. Neither affects the others, or changes any more.
    """
    descent, steps = live.descent, len(live.minibatches.order)
    x, y = live.minibatches.at(descent.step % steps, data, settings.augmentation)
    short = settings.precision == "bfloat16"
    autocast = torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False) if short else nullcontext()
    with autocast, in_training(live.stack(descent.theta)) as stack:
        loss, gradient = live.gradient(stack, x, y, live.smoothing)
    known = (live.finite & loss.isfinite())[:, None]
    torch.where(known, descent.theta, descent.before, out=descent.before)
    sums = [gradient.sum(1), *(stack.own[name].sum(1) for name in stack.layout.statistics)]
    live.finite.logical_and_(sum(sums, loss).isfinite())  # of the loss and of every entry of the gradient
    # chain rule of `row = constants + scale * theta`
    OPTIMIZERS[settings.optimizer][0](descent, live.treated.keep_trainable(gradient), settings)
    for name in stack.layout.statistics:  # no gradient trains them
        descent.theta[:, stack.layout.slices[name]] = stack.own[name]
    torch.where(live.finite[:, None], descent.theta, descent.before, out=descent.theta)
    descent.step.add_(1)


def _end_epoch(live: Live, data: Data, ended: Tensor, due: Tensor, epoch: int, trained: Trained) -> None:
    """Record what an epoch gave, and which networks go on.

    Arguments:
        live: Networks, whose masks change.
        data: Data to measure them on.
        ended: Mask of the networks whose last epoch this is.
        due: Mask of those to be measured.
        epoch: Number of the epoch.
        trained: Result to be filled.
    """
    treated, descent, index, there = live.treated, live.descent, live.index, live.finite.device
    finite, rows = live.finite.cpu(), treated.to_rows(descent.theta)
    trained.diverge(index, live.training & ~finite, rows)
    if (chosen := (due & finite).nonzero()[:, 0]).numel():
        stack = treated.take(chosen).stack(rows[chosen.to(there)])
        measured = _measure(stack, data)
        known = measured["train_loss"].isfinite()
        finite[chosen[~known]] = False
        trained.diverge(index, live.training & ~finite, treated.to_rows(descent.before))
        for name, values in measured.items():
            trained.curves[name][index[chosen[known]], epoch] = values[known]
        last = torch.zeros_like(finite).index_fill(0, chosen[known], True).to(there)[:, None]
        torch.where(last, descent.theta, descent.before, out=descent.before)
    kept = ended & finite
    trained.rows[index[kept]] = rows[kept.to(there)].cpu()
    trained.record(index[kept], {name: curve[index[kept], epoch] for name, curve in trained.curves.items()})
    live.training = finite & ~ended
    live.finite.copy_(live.training)


def begin(treated: Treated, start: Tensor, draws: Draws, data: Data, settings: Optimizer) -> Live:
    """Return the state of K networks before the first step, with the minibatches still to be filled in."""
    networks, steps_per_epoch = len(start), len(data.train_y) // batch_size_of(data, settings.batch_size)
    rates = torch.zeros(int(draws.epochs.max()) * steps_per_epoch, networks, dtype=start.dtype)
    for k, (rate, epochs) in enumerate(zip(draws.learning_rate.tolist(), draws.epochs.tolist(), strict=True)):
        rates[: epochs * steps_per_epoch, k] = torch.from_numpy(rate * settings.factors(epochs, steps_per_epoch))
    theta = treated.keep_trainable(start).clone()
    descent = Descent(
        theta=theta,
        before=theta.clone(),
        moments=[torch.zeros_like(theta) for _ in range(OPTIMIZERS[settings.optimizer][1])],
        rates=Rates.of(rates, settings, theta),
        decay=draws.weight_decay[:, None].to(theta) * treated.decay.to(theta),
        step=torch.zeros(1, dtype=torch.int64, device=theta.device),
    )
    return Live(
        treated=treated,
        index=torch.arange(networks),
        training=torch.ones(networks, dtype=torch.bool),
        finite=torch.ones(networks, dtype=torch.bool, device=theta.device),
        gradient=WAYS[treated.way](treated.module),
        descent=descent,
        smoothing=draws.label_smoothing.to(theta),
        minibatches=Minibatches.blank(data, settings.batch_size, networks, settings.augmentation),
    )


def _measure(stack: Stack, data: Data) -> dict[str, Tensor]:
    """Return the metrics of `MEASURED` for a stack on the data without augmentation, on the CPU."""
    train, test = stack.evaluate_splits((data.train_x, data.train_y), (data.test_x, data.test_y))
    return {name: values.cpu() for name, values in zip(MEASURED, (*train, *test), strict=True)}


def _measure_diverged(treated: Treated, data: Data, trained: Trained) -> None:
    """Measure the last finite weights of networks that diverged."""
    if (diverged := trained.diverged).any():
        rows = trained.rows[diverged].to(data.train_x.device)
        trained.record(diverged, _measure(treated.take(diverged).stack(rows), data))
