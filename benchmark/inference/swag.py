"""SWAG: Gaussian posteriors of the weights that SGD visits, K at once.

SGD goes on from trained networks at a constant rate. Of its iterates `w_1 … w_n`, one now and then, are kept the mean,
the variance and the last r deviations from the mean as it then was, the columns of D:

    q(w) = N(mean, diag(variance) / 2 + D D^T / (2 (r - 1)))

Source: Maddox, Garipov, Izmailov, Vetrov, Wilson 2019, *A Simple Baseline for Bayesian Uncertainty in Deep Learning*,
https://arxiv.org/abs/1902.02476. As in their code, the network to begin with is none of the iterates.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.inference.energy import Energy, Loss, Precision, endless_batches
from zoo.data import Data
from zoo.errors import TaskError
from zoo.networks.stack import cross_entropy
from zoo.treatments import Treated


@dataclass(frozen=True)
class Settings:
    """How SGD goes on.

    Arguments:
        epochs: of SGD.
        learning_rate: constant.
        momentum: of SGD.
        batch_size: examples a step; the incomplete batch at the end of an epoch is left out.
        every: steps from one iterate to the next; an epoch by default.
        rank: deviations kept, 2 or more.
    """

    epochs: int = 40
    learning_rate: float = 1e-2
    momentum: float = 0.9
    batch_size: int = 64
    every: int | None = None
    rank: int = 20


@dataclass(frozen=True)
class Swag:
    """K Gaussian posteriors.

    Attributes:
        mean: `(K, P)`, as networks use it.
        variance: of the iterates, `(K, P)`, zero at fixed entries.
        deviations: the last ones, `(K, r, P)`, zero at fixed entries.
    """

    mean: Float[Tensor, "networks parameters"]
    variance: Float[Tensor, "networks parameters"]
    deviations: Float[Tensor, "networks rank parameters"]

    def draw(self, samples: int, generator: torch.Generator) -> Float[Tensor, "networks samples parameters"]:
        """Draw rows, as networks use them."""
        networks, rank, columns = self.deviations.shape
        z = self.mean.new_empty(networks, samples, columns).normal_(generator=generator)
        low_rank = self.mean.new_empty(networks, samples, rank).normal_(generator=generator) @ self.deviations
        return self.mean[:, None] + (self.variance / 2).sqrt()[:, None] * z + low_rank / (2 * (rank - 1)) ** 0.5


def swag(
    treated: Treated,
    rows: Float[Tensor, "networks parameters"],
    data: Data,
    settings: Settings,
    *,
    precision: Precision,
    seed: int,
    pairs: Sequence[int],
    loss: Loss = cross_entropy,
) -> Swag:
    """Return the posteriors around K trained networks.

    Arguments:
        treated: what the networks are.
        rows: the networks, as they are used.
        data: whose train split is observed.
        settings: of SGD.
        precision: of the prior, one for all or `(P,)`; a decay of `precision / examples`.
        seed, pairs: network `k` sees the data in the order of `pairs[k]`.
        loss: the mean negative log-likelihood of labels given a network's outputs.

    Raises:
        TaskError: if there are fewer iterates than the rank, or SGD diverges.
    """
    energy = Energy.of(rows, treated, data, precision, loss)
    epoch = energy.examples // min(settings.batch_size, energy.examples)
    every, steps = settings.every or epoch, settings.epochs * epoch
    iterates, rank = steps // every, settings.rank
    if not 2 <= rank <= iterates:
        raise TaskError(f"swag: rank {rank} of {iterates} iterates; it must be 2 or more, and no more than these")
    velocity, mean, squares = torch.zeros_like(rows), torch.zeros_like(rows), torch.zeros_like(rows)
    deviations: deque[Tensor] = deque(maxlen=rank)
    for step, (x, y) in enumerate(islice(endless_batches(energy.data, settings.batch_size, seed, pairs), steps), 1):
        velocity = settings.momentum * velocity + energy.gradient(rows, x, y) / energy.examples
        rows = rows - settings.learning_rate * velocity
        if step % every == 0:  # in one pass (Welford 1962), without the rounding of a mean of squares
            before, mean = rows - mean, mean + (rows - mean) / (step // every)
            deviations.append(rows - mean)
            squares = squares + before * deviations[-1]
    if not rows.isfinite().all():
        raise TaskError(f"swag: SGD diverged at a learning rate of {settings.learning_rate}; take a smaller one")
    return Swag(mean, squares / iterates, torch.stack(list(deviations), 1))
