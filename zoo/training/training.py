"""Trains a stack of networks, each with its own learning rate, decay, smoothing, length and data order.

One loop for all: every tensor has the networks as its first dimension, so a step is a handful of operations on
`(K, P)`. A network that has had its epochs, or whose loss is no longer finite, leaves the stack.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.data import Data
from zoo.data.augmentation import Augmentation, Moves
from zoo.networks.stack import Stack, stack_gradient
from zoo.recipes.optimizer import Optimizer
from zoo.seeds import rng_for
from zoo.treatments import Treated

COLUMNS = 1 << 17  # at a time, so that a row, its gradient and its moments stay in cache
METRICS = ("train_accuracy", "train_loss", "test_accuracy", "test_loss")


@dataclass(frozen=True)
class Hyperparameters:
    """What differs between the networks of a stack, each `(K,)`."""

    learning_rate: Float[Tensor, " networks"]
    weight_decay: Float[Tensor, " networks"]
    label_smoothing: Float[Tensor, " networks"]
    epochs: Int[Tensor, " networks"]


@dataclass(frozen=True)
class Trained:
    """What training leaves, on the CPU.

    Attributes:
        rows: final weights as used, `(K, P)`; a diverged network's are those of its last finite loss.
        diverged: `(K,)`.
        seconds: `(K,)`, each network's share of the time.
        metrics: accuracies and losses of `rows` on the plain data, `(K,)`, see `METRICS`.
        curves: the same after each epoch, `(K, epochs)`, NaN after a network's end.
    """

    rows: Float[Tensor, "networks parameters"]
    diverged: Bool[Tensor, " networks"]
    seconds: Float[Tensor, " networks"]
    metrics: dict[str, Float[Tensor, " networks"]]
    curves: dict[str, Float[Tensor, "networks epochs"]]

    @classmethod
    def blank(cls, start: Tensor, epochs: int) -> "Trained":
        """Return what there is before training."""
        networks, dtype = len(start), start.dtype
        return cls(
            rows=torch.empty_like(start, device="cpu"),
            diverged=torch.zeros(networks, dtype=torch.bool),
            seconds=torch.zeros(networks),
            metrics={name: torch.full((networks,), torch.nan, dtype=dtype) for name in METRICS},
            curves={name: torch.full((networks, epochs), torch.nan, dtype=dtype) for name in METRICS},
        )

    def record(self, which: Tensor, metrics: dict[str, Tensor]) -> None:
        """Keep the final metrics of some networks, given by a mask or their numbers."""
        for name, values in metrics.items():
            self.metrics[name][which] = values

    def diverge(self, index: Tensor, broken: Tensor, rows: Tensor) -> None:
        """Flag the networks of `index` that are `broken` and were not before; `rows` are their last finite weights."""
        broken = broken & ~self.diverged[index]
        self.rows[index[broken]] = rows[broken].cpu()
        self.diverged[index[broken]] = True


@dataclass
class Live:
    """The networks still in training, and what the optimiser knows of them.

    Attributes:
        index: `(K,)`, their places among all.
        theta: `(K, P)`.
        moments: the optimiser's memory, each `(K, P)`.
        rates: `(K, steps)`, the learning rate at every step.
        decay: `(K, 1)` or `(K, P)`.
        smoothing: `(K,)`.
        step: how many have been taken.
    """

    index: Tensor
    theta: Tensor
    moments: list[Tensor]
    rates: Tensor
    decay: Tensor
    smoothing: Tensor
    step: int = 0

    def keep(self, which: Tensor) -> None:
        """Let the others go; `which` is bool `(K,)`."""
        self.index, self.theta, self.rates = self.index[which], self.theta[which], self.rates[which]
        self.moments = [moment[which] for moment in self.moments]
        self.decay, self.smoothing = self.decay[which], self.smoothing[which]


def adamw(live: Live, gradient: Tensor, settings: Optimizer) -> None:
    """Take a step of AdamW, by the operations of `torch.optim.AdamW`, on as many columns at a time as stay in cache."""
    rate, (beta1, beta2) = live.rates[:, live.step, None], settings.betas
    live.step += 1
    kept = (1 - rate * live.decay).expand_as(gradient)
    tensors = (live.theta, *live.moments, gradient, kept)
    for theta, mean, square, slope, share in zip(*(tensor.split(COLUMNS, 1) for tensor in tensors), strict=True):
        theta.mul_(share)
        mean.lerp_(slope, 1 - beta1)
        square.mul_(beta2).addcmul_(slope, slope, value=1 - beta2)
        denominator = square.sqrt().div_((1 - beta2**live.step) ** 0.5).add_(settings.epsilon)
        theta.addcdiv_(mean * (rate / (1 - beta1**live.step)), denominator, value=-1)


def sgd(live: Live, gradient: Tensor, settings: Optimizer) -> None:
    """Take a step of SGD with momentum, by the operations of `torch.optim.SGD`."""
    (velocity,) = live.moments
    velocity.mul_(settings.momentum).add_(gradient).addcmul_(live.decay, live.theta)
    live.theta.addcmul_(live.rates[:, live.step, None], velocity, value=-1)
    live.step += 1


OPTIMIZERS = {"adamw": (adamw, 2), "sgd": (sgd, 1)}


def train(
    treated: Treated,
    start: Float[Tensor, "networks parameters"],
    hyperparameters: Hyperparameters,
    data: Data,
    settings: Optimizer,
    *,
    seed: int,
    pairs: Sequence[int],
    progress: Callable[[int], object] = lambda networks: None,
) -> Trained:
    """Train K networks at once.

    Arguments:
        treated: what the networks are.
        start: initial `theta`, `(K, P)`; the training has its precision and device.
        hyperparameters: of each network.
        data: what they learn.
        settings: what they share.
        seed, pairs: network `k` sees the data in the order, and augmented in the way, of `pairs[k]`.
        progress: called with the number of networks that have just come to their end.
    """
    treated, data = treated.to(start.device, start.dtype), data.to(start.device, start.dtype)
    epochs, whole = hyperparameters.epochs, treated
    live = _begin(treated, start, hyperparameters, settings, data)
    trained = Trained.blank(start, int(epochs.max()))
    for epoch in range(int(epochs.max())):
        began, index = time.perf_counter(), live.index
        order = [pairs[k] for k in index.tolist()]
        shown = batches(data, settings.batch_size, seed, order, epoch, augmentation=settings.augmentation)
        before = _take_steps(treated, live, shown, settings, trained)
        rows = treated.rows(live.theta)
        measured = _measure(treated.stack(rows), data)
        trained.diverge(index, ~measured["train_loss"].isfinite(), treated.rows(before))
        fine = ~trained.diverged[index]
        ended = fine & (epochs[index] == epoch + 1)
        trained.rows[index[ended]] = rows[ended].cpu()
        for name, values in measured.items():
            trained.curves[name][index[fine], epoch] = values[fine]
        trained.record(index[ended], {name: values[ended] for name, values in measured.items()})
        trained.seconds[index] += (time.perf_counter() - began) / len(index)
        if (leaving := ended | ~fine).any():
            live.keep(~leaving)
            treated = treated.take(~leaving)
            progress(int(leaving.sum()))
        if len(live.index) == 0:
            break
    if (lost := trained.diverged).any():
        trained.record(lost, _measure(whole.take(lost).stack(trained.rows[lost].to(start.device)), data))
    return trained


def _take_steps(
    treated: Treated, live: Live, shown: Iterable[tuple[Tensor, Tensor]], settings: Optimizer, trained: Trained
) -> Tensor:
    """Train on each batch; return `theta` before the last step.

    What diverges is put by before the update and turns to NaN thereafter, which no other network notices.
    """
    take_step, before = OPTIMIZERS[settings.optimizer][0], live.theta
    for x, y in shown:
        loss, gradient = stack_gradient(treated.stack(treated.rows(live.theta)), x, y, live.smoothing)
        # One sum tells of any NaN or infinity among loss and gradient.
        if (broken := ~(loss + gradient.sum(1)).isfinite().cpu()).any():
            trained.diverge(live.index, broken, treated.rows(live.theta.where(loss.isfinite()[:, None], before)))
        before = live.theta.clone()
        take_step(live, treated.thetas(gradient), settings)  # by the chain rule of `row = constants + scale * theta`
    return before


def _begin(treated: Treated, start: Tensor, hyperparameters: Hyperparameters, settings: Optimizer, data: Data) -> Live:
    """Lay out everything that a stack needs to train."""
    networks, steps_per_epoch = len(start), len(data.train_y) // _batch_size(data, settings.batch_size)
    rates = np.zeros((networks, int(hyperparameters.epochs.max()) * steps_per_epoch))
    for k, (rate, epochs) in enumerate(
        zip(hyperparameters.learning_rate.tolist(), hyperparameters.epochs.tolist(), strict=True)
    ):
        rates[k, : epochs * steps_per_epoch] = rate * settings.factors(epochs, steps_per_epoch)
    theta = treated.thetas(start).clone()
    moments = OPTIMIZERS[settings.optimizer][1]
    return Live(
        index=torch.arange(networks),
        theta=theta,
        moments=[torch.zeros_like(theta) for _ in range(moments)],
        rates=torch.from_numpy(rates).to(theta),
        decay=hyperparameters.weight_decay[:, None].to(theta) * treated.decay.to(theta),
        smoothing=hyperparameters.label_smoothing.to(theta),
    )


def _batch_size(data: Data, size: int) -> int:
    return min(size, len(data.train_y))


def batches(
    data: Data,
    size: int,
    seed: int,
    pairs: Sequence[int],
    epoch: int,
    *,
    augmentation: Augmentation | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the minibatches of an epoch, `(K, B, ...)` and `(K, B)`, each network's in the order of its pair."""
    examples, batch, device = len(data.train_y), _batch_size(data, size), data.train_y.device
    orders = [rng_for(seed, "order", pair, epoch).permutation(examples) for pair in pairs]
    order = torch.from_numpy(np.stack(orders)).to(device)
    moves = None
    if augmentation is not None:
        height, width = data.shape[-2:]
        rngs = [rng_for(seed, "augmentation", pair, epoch) for pair in pairs]
        drawn = [augmentation.draw(rng, examples, height, width) for rng in rngs]
        moves = Moves.stack(drawn).to(device)
    for begin in range(0, examples - batch + 1, batch):
        index = order[:, begin : begin + batch]
        x = data.train_x.index_select(0, index.flatten()).unflatten(0, index.shape)  # faster than by two dimensions
        if augmentation is not None and moves is not None:
            x = augmentation(x, moves.batch(slice(begin, begin + batch)))
        yield x, data.train_y[index]


def _measure(stack: Stack, data: Data) -> dict[str, Tensor]:
    """Return the `METRICS` of a stack on the plain data, on the CPU."""
    train, test = stack.evaluate_splits((data.train_x, data.train_y), (data.test_x, data.test_y))
    return {name: values.cpu() for name, values in zip(METRICS, (*train, *test), strict=True)}
