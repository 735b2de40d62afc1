"""SWAG: Gaussian posteriors of the weights that SGD visits, K at once.

SGD continues from trained networks at a constant learning rate. Its weights after every few steps are the iterates
`w_1 … w_n`. The posterior keeps their mean and variance and, as the columns of D, the last r deviations of an iterate
from the mean of all iterates up to it:

    q(w) = N(mean, diag(variance) / 2 + D D^T / (2 (r - 1)))

Source: Maddox, Garipov, Izmailov, Vetrov, Wilson 2019, *A Simple Baseline for Bayesian Uncertainty in Deep Learning*,
https://arxiv.org/abs/1902.02476. As in their code, the initial network is not one of the iterates.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.inference.energy import PRECISION, Energy, Loss, Precision, draw_normal, endless_batches
from zoo.data import Data
from zoo.errors import TaskError
from zoo.networks.stack import cross_entropy
from zoo.treatments import Treated


@dataclass(frozen=True)
class Settings:
    """How SGD continues.

    Arguments:
        epochs: Number of epochs.
        learning_rate: Constant learning rate.
        momentum: Momentum of SGD.
        batch_size: Number of examples in a step; the incomplete batch at the end of an epoch is left out.
        every: Number of steps from one iterate to the next; an epoch by default.
        rank: Number of deviations that are kept, 2 or more.
        precision: Precision of the prior, one for all parameters or `(P,)`: a weight decay of `precision / examples`.
        seed: Seed of the order of the data.
        loss: Mean negative log-likelihood of labels, given a network's outputs.
    """

    epochs: int = 40
    learning_rate: float = 1e-2
    momentum: float = 0.9
    batch_size: int = 64
    every: int | None = None
    rank: int = 20
    precision: Precision = PRECISION
    seed: int = 0
    loss: Loss = cross_entropy


@dataclass(frozen=True)
class Swag:
    """K Gaussian posteriors.

    Attributes:
        mean: Mean of the iterates, rows `(K, P)`.
        variance: Variance of the iterates, `(K, P)`, zero at fixed entries.
        deviations: Last r deviations from the mean, `(K, r, P)`, zero at fixed entries.
    """

    mean: Float[Tensor, "networks parameters"]
    variance: Float[Tensor, "networks parameters"]
    deviations: Float[Tensor, "networks rank parameters"]

    def draw(self, samples: int, generator: torch.Generator) -> Float[Tensor, "networks samples parameters"]:
        """Draw rows from each posterior."""
        networks, rank, columns = self.deviations.shape
        z = draw_normal((networks, samples, columns), generator, self.mean)
        low_rank = draw_normal((networks, samples, rank), generator, self.mean) @ self.deviations
        return self.mean[:, None] + (self.variance / 2).sqrt()[:, None] * z + low_rank / (2 * (rank - 1)) ** 0.5


def fit(
    treated: Treated,
    rows: Float[Tensor, "networks parameters"],
    data: Data,
    settings: Settings,
    *,
    pairs: Sequence[int],
) -> Swag:
    """Return the posteriors around K trained networks.

    Arguments:
        treated: Architecture and treatment of the networks.
        rows: Rows of the trained networks.
        data: Data whose train split is observed.
        settings: How SGD continues.
        pairs: Numbers of the networks' pairs; each seeds the order in which its network sees the data.

    Raises:
        TaskError: If there are fewer iterates than the rank, or SGD diverges.
    """
    energy = Energy.of(rows, treated, data, settings.precision, settings.loss)
    epoch = energy.examples // min(settings.batch_size, energy.examples)
    every, steps = settings.every or epoch, settings.epochs * epoch
    iterates, rank = steps // every, settings.rank
    if not 2 <= rank <= iterates:
        raise TaskError(f"swag: rank {rank} of {iterates} iterates; it must be 2 or more, and at most {iterates}")
    velocity, mean, squares = torch.zeros_like(rows), torch.zeros_like(rows), torch.zeros_like(rows)
    deviations: deque[Tensor] = deque(maxlen=rank)
    batches = endless_batches(energy.data, settings.batch_size, settings.seed, pairs)
    for step, (x, y) in enumerate(islice(batches, steps), 1):
        velocity = settings.momentum * velocity + energy.gradient(rows, x, y) / energy.examples
        rows = rows - settings.learning_rate * velocity
        if step % every == 0:  # one pass (Welford 1962), which rounds less than a mean of squares
            before, mean = rows - mean, mean + (rows - mean) / (step // every)
            deviations.append(rows - mean)
            squares = squares + before * deviations[-1]
    if not rows.isfinite().all():
        raise TaskError(f"swag: SGD diverged at a learning rate of {settings.learning_rate}; take a smaller one")
    return Swag(mean, squares / iterates, torch.stack(list(deviations), 1))
