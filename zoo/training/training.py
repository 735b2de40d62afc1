"""Trains a stack of networks, each with its own learning rate, decay, label smoothing, epochs and order of examples.

The networks are the first dimension of every tensor, so a training step is a few operations on tensors `(K, P)`. A
network leaves the stack after its last epoch, or when its loss is no longer finite.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.data import Data
from zoo.data.augmentation import Augmentation, Moves
from zoo.networks.stack import Stack, stack_gradient
from zoo.progress import Progress, ignore
from zoo.recipes.optimizer import Optimizer
from zoo.seeds import rng_for
from zoo.treatments import Treated

# Columns of `theta` that AdamW updates at a time, so that they, their gradient and their moments stay in cache. An
# update of 935,434 parameters takes the same time, within 15 %, from 2^16 to 2^19 columns; 30 % more at 2^15 and 40 %
# more at 2^20 (two cores of an AMD EPYC, AVX2, one thread).
COLUMNS = 1 << 17
MEASURED = ("train_accuracy", "train_loss", "test_accuracy", "test_loss")  # metrics of every network, and its curves


@dataclass(frozen=True)
class Draws:
    """Pair and hyperparameters of K networks, each `(K,)`.

    Attributes:
        pair: Number of the pair, which seeds the order and the augmentation of the examples.
        learning_rate, weight_decay, label_smoothing, epochs: Hyperparameters of the pair.
    """

    pair: Int[Tensor, " networks"]
    learning_rate: Float[Tensor, " networks"]
    weight_decay: Float[Tensor, " networks"]
    label_smoothing: Float[Tensor, " networks"]
    epochs: Int[Tensor, " networks"]


@dataclass(frozen=True)
class Trained:
    """Result of training, on the CPU.

    Attributes:
        rows: Trained weights as the network uses them, `(K, P)`. Those of a diverged network are the weights of its
            last finite loss.
        diverged: Whether the network diverged, `(K,)`.
        seconds: Training time of the network, `(K,)`: in every epoch, the time of the stack divided by its networks.
        metrics: Metrics of `rows` on the data without augmentation, `(K,)`, by the names in `MEASURED`.
        curves: Metrics after each epoch, `(K, epochs)`, NaN after the last epoch of a network.
    """

    rows: Float[Tensor, "networks parameters"]
    diverged: Bool[Tensor, " networks"]
    seconds: Float[Tensor, " networks"]
    metrics: dict[str, Float[Tensor, " networks"]]
    curves: dict[str, Float[Tensor, "networks epochs"]]

    @classmethod
    def blank(cls, start: Tensor, epochs: int) -> "Trained":
        """Return a result to be filled, for K networks with `start` `(K, P)` and at most `epochs` epochs."""
        networks, dtype = len(start), start.dtype
        return cls(
            rows=torch.empty_like(start, device="cpu"),
            diverged=torch.zeros(networks, dtype=torch.bool),
            seconds=torch.zeros(networks),
            metrics={name: torch.full((networks,), torch.nan, dtype=dtype) for name in MEASURED},
            curves={name: torch.full((networks, epochs), torch.nan, dtype=dtype) for name in MEASURED},
        )

    def record(self, which: Tensor, metrics: dict[str, Tensor]) -> None:
        """Store the final metrics of the networks that a mask or positions select."""
        for name, values in metrics.items():
            self.metrics[name][which] = values

    def diverge(self, index: Tensor, broken: Tensor, rows: Tensor) -> None:
        """Flag networks that diverge now, and store their last finite weights.

        Arguments:
            index: Positions of the networks in training.
            broken: Whether each of them has a loss that is not finite.
            rows: Last finite weights of each of them.
        """
        broken = broken & ~self.diverged[index]
        self.rows[index[broken]] = rows[broken].cpu()
        self.diverged[index[broken]] = True


@dataclass
class Live:
    """The networks still in training, and the state of their optimiser.

    Attributes:
        index: Positions of the networks among all networks of the stack, `(K,)`.
        theta: Trained parameters, `(K, P)`.
        moments: Running averages of the optimiser, each `(K, P)`.
        rates: Learning rate at every step, `(K, steps)`.
        decay: Weight decay, `(K, 1)` or `(K, P)`.
        smoothing: Label smoothing, `(K,)`.
        step: Number of steps taken.
    """

    index: Tensor
    theta: Tensor
    moments: list[Tensor]
    rates: Tensor
    decay: Tensor
    smoothing: Tensor
    step: int = 0

    def keep(self, which: Tensor) -> None:
        """Keep only the networks selected by the mask `which`, `(K,)`."""
        self.index, self.theta, self.rates = self.index[which], self.theta[which], self.rates[which]
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


def train(
    treated: Treated,
    start: Float[Tensor, "networks parameters"],
    draws: Draws,
    data: Data,
    settings: Optimizer,
    *,
    seed: int,
    progress: Progress = ignore,
) -> Trained:
    """Train K networks together.

    Arguments:
        treated: Architecture and treatment of the networks.
        start: Initial `theta`, `(K, P)`. Training runs on its device and in its precision.
        draws: Pair and hyperparameters of each network.
        data: Data that the networks learn.
        settings: Optimiser and schedule, the same for all networks.
        seed: Seed of the recipe.
        progress: Called with the number of networks whose training has just ended.
    """
    treated, data = treated.to(start.device, start.dtype), data.to(start.device, start.dtype)
    epochs, all_treated, pairs = draws.epochs, treated, draws.pair.tolist()
    live = _begin(treated, start, draws, settings, data)
    trained = Trained.blank(start, int(epochs.max()))
    for epoch in range(int(epochs.max())):
        began, index = time.perf_counter(), live.index
        order = [pairs[k] for k in index.tolist()]
        minibatches = batches(data, settings.batch_size, seed, order, epoch, augmentation=settings.augmentation)
        before = _take_steps(treated, live, minibatches, settings, trained)
        rows = treated.to_rows(live.theta)
        measured = _measure(treated.stack(rows), data)
        trained.diverge(index, ~measured["train_loss"].isfinite(), treated.to_rows(before))
        finite = ~trained.diverged[index]
        ended = finite & (epochs[index] == epoch + 1)
        trained.rows[index[ended]] = rows[ended].cpu()
        for name, values in measured.items():
            trained.curves[name][index[finite], epoch] = values[finite]
        trained.record(index[ended], {name: values[ended] for name, values in measured.items()})
        trained.seconds[index] += (time.perf_counter() - began) / len(index)
        if (leaving := ended | ~finite).any():
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
) -> Tensor:
    """Take a step on each minibatch; return `theta` before the last step.

    A diverged network's last finite weights are saved before the update. Its `theta` then becomes NaN without affecting
    the other networks.
    """
    take_step, before = OPTIMIZERS[settings.optimizer][0], live.theta
    for x, y in minibatches:
        loss, gradient = stack_gradient(treated.stack(treated.to_rows(live.theta)), x, y, live.smoothing)
        # The sum is finite only if the loss and every entry of the gradient are.
        if (broken := ~(loss + gradient.sum(1)).isfinite().cpu()).any():
            trained.diverge(live.index, broken, treated.to_rows(live.theta.where(loss.isfinite()[:, None], before)))
        before = live.theta.clone()
        take_step(live, treated.keep_trainable(gradient), settings)  # chain rule of `row = constants + scale * theta`
    return before


def _begin(treated: Treated, start: Tensor, draws: Draws, settings: Optimizer, data: Data) -> Live:
    """Return the state of K networks before the first step."""
    networks, steps_per_epoch = len(start), len(data.train_y) // _batch_size(data, settings.batch_size)
    rates = np.zeros((networks, int(draws.epochs.max()) * steps_per_epoch))
    for k, (rate, epochs) in enumerate(zip(draws.learning_rate.tolist(), draws.epochs.tolist(), strict=True)):
        rates[k, : epochs * steps_per_epoch] = rate * settings.factors(epochs, steps_per_epoch)
    theta = treated.keep_trainable(start).clone()
    moments = OPTIMIZERS[settings.optimizer][1]
    return Live(
        index=torch.arange(networks),
        theta=theta,
        moments=[torch.zeros_like(theta) for _ in range(moments)],
        rates=torch.from_numpy(rates).to(theta),
        decay=draws.weight_decay[:, None].to(theta) * treated.decay.to(theta),
        smoothing=draws.label_smoothing.to(theta),
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
    """Yield the minibatches of an epoch, `(K, B, ...)` and `(K, B)`, for each network in the order of its pair.

    Arguments:
        data: Data with the training examples.
        size: Number of examples in a minibatch. An incomplete minibatch at the end is left out.
        seed: Seed of the recipe.
        pairs: Pair of each network, K of them.
        epoch: Number of the epoch, from 0.
        augmentation: Augmentation of the examples, if any.
    """
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
        # `index_select` with a flat index is faster than indexing with two dimensions.
        x = data.train_x.index_select(0, index.flatten()).unflatten(0, index.shape)
        if augmentation is not None and moves is not None:
            x = augmentation(x, moves.batch(slice(begin, begin + batch)))
        yield x, data.train_y[index]


def _measure(stack: Stack, data: Data) -> dict[str, Tensor]:
    """Return the metrics of `MEASURED` for a stack on the data without augmentation, on the CPU."""
    train, test = stack.evaluate_splits((data.train_x, data.train_y), (data.test_x, data.test_y))
    return {name: values.cpu() for name, values in zip(MEASURED, (*train, *test), strict=True)}
