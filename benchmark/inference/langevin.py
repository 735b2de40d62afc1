"""Langevin dynamics: K chains whose weights are draws from the posterior.

    dw = m dt,    dm = -grad U(w) dt - friction m dt + sqrt(2 friction) dW

leaves the distribution `exp(-U(w) - |m|^2 / 2)` unchanged. It is simulated in steps of length h with four parts (BAOA):

    m <- m - h grad U(w);    w <- w + h/2 m;    m <- c m + sqrt(1 - c^2) N(0, I);    w <- w + h/2 m

with `c = exp(-friction h)`. If the posterior is Gaussian, the weights have exactly its covariance for every h; the
plain steps of SGHMC have an error of O(h). With gradients of all examples, the only error is that of chains that are
too short; gradients of minibatches add the variance of their noise.

Source: Chen, Fox, Guestrin 2014, *Stochastic Gradient Hamiltonian Monte Carlo*, https://arxiv.org/abs/1402.4102; the
steps Leimkuhler, Matthews 2013, *Rational Construction of Stochastic Numerical Methods for Molecular Sampling*,
https://doi.org/10.1093/amrx/abs010; as a reference for the true posterior Izmailov, Vikram, Hoffman, Wilson 2021, *What
Are Bayesian Neural Network Posteriors Really Like?*, https://arxiv.org/abs/2104.14421.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from math import exp

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import norm, rankdata
from torch import Tensor

from benchmark.inference.energy import (
    PRECISION,
    Energy,
    Loss,
    Precision,
    draw_normal,
    endless_batches,
    generators_for,
)
from zoo.data import Data
from zoo.errors import TaskError
from zoo.networks.stack import cross_entropy
from zoo.treatments import Treated


@dataclass(frozen=True)
class Settings:
    """How chains run.

    Arguments:
        step_size: Length h of a step; chains are stable below `2 / sqrt(largest eigenvalue of the Hessian of U)`.
        friction: Friction per unit of time.
        burn_in: Number of steps before the first draw.
        draws: Number of draws that are kept.
        every: Number of steps from one draw to the next.
        batch_size: Number of examples in a step; all of them by default.
        precision: Precision of the prior, one for all parameters or `(P,)`.
        seed: Seed of the noise and of the order of the data.
        loss: Mean negative log-likelihood of labels, given a network's outputs.
    """

    step_size: float = 1e-2
    friction: float = 2.0
    burn_in: int = 1000
    draws: int = 50
    every: int = 100
    batch_size: int | None = None
    precision: Precision = PRECISION
    seed: int = 0
    loss: Loss = cross_entropy


@dataclass(frozen=True)
class Langevin:
    """K chains.

    Attributes:
        kept: Rows that were drawn, in order, `(K, draws, P)`.
        temperature: Mean square of the momenta after the burn-in, `(K,)`. It is 1 unless steps that are too large, or
            the noise of minibatches, raise it.
    """

    kept: Float[Tensor, "networks draws parameters"]
    temperature: Float[Tensor, " networks"]

    def draw(self, samples: int, generator: torch.Generator) -> Float[Tensor, "networks samples parameters"]:
        """Pick draws of each chain at random, without replacement.

        Raises:
            TaskError: If the chains have fewer than `samples` draws.
        """
        networks, draws, columns = self.kept.shape
        if samples > draws:
            raise TaskError(f"langevin: the chains have {draws} draws, not {samples}; set `draws` to {samples} or more")
        order = torch.rand(networks, draws, generator=generator, device=generator.device).argsort(1)
        order = order[:, :samples].to(self.kept.device)
        return self.kept.gather(1, order[..., None].expand(-1, -1, columns))


def fit(
    treated: Treated,
    rows: Float[Tensor, "networks parameters"],
    data: Data,
    settings: Settings,
    *,
    pairs: Sequence[int],
) -> Langevin:
    """Run K chains from K networks.

    Arguments:
        treated: Architecture and treatment of the networks.
        rows: Rows of the networks that chains start from.
        data: Data whose train split is observed.
        settings: How the chains run.
        pairs: Numbers of the networks' pairs; each seeds the noise of a chain and the order in which it sees the data.

    Raises:
        TaskError: If a chain diverges.
    """
    energy = Energy.of(rows, treated, data, settings.precision, settings.loss)
    generators = generators_for(settings.seed, "langevin", pairs, rows.device)
    h, c = settings.step_size, exp(-settings.friction * settings.step_size)
    momenta, kept, heat = _noise(energy, rows, generators), [], torch.zeros_like(rows[:, 0])
    steps = settings.draws * settings.every
    seen = islice(_batches(energy, settings, pairs), settings.burn_in + steps)
    for step, (x, y) in enumerate(seen, 1 - settings.burn_in):
        momenta = momenta - h * energy.gradient(rows, x, y)
        rows = rows + h / 2 * momenta
        momenta = c * momenta + (1 - c**2) ** 0.5 * _noise(energy, rows, generators)
        rows = rows + h / 2 * momenta
        if step > 0:
            heat = heat + momenta.square().sum(1)
            if step % settings.every == 0:
                kept.append(rows)
    if not rows.isfinite().all():
        raise TaskError(f"langevin: a chain diverged at a step_size of {h}; take a smaller one")
    return Langevin(torch.stack(kept, 1), heat / (steps * int(treated.mask.sum())))


def _noise(energy: Energy, rows: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw a standard normal for each trainable entry of each chain, from the chain's own generator."""
    drawn = torch.stack([draw_normal((rows.shape[1],), generator, rows) for generator in generators])
    return energy.treated.keep_trainable(drawn)


def _batches(energy: Energy, settings: Settings, pairs: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the examples of each step, without end."""
    if settings.batch_size is not None:
        return endless_batches(energy.data, settings.batch_size, settings.seed, pairs)
    x, y = energy.data.train_x, energy.data.train_y
    return repeat((x.expand(len(pairs), *x.shape), y.expand(len(pairs), -1)))


def split_rhat(values: Float[np.ndarray, "chains draws *scalars"]) -> Float[np.ndarray, "*scalars"]:
    """Return R-hat of chains: close to 1 when they have mixed; values above 1.01 suggest that they have not.

    The halves of all chains are compared twice: by the ranks of their values, and by the ranks of their distances from
    the median. The larger R-hat is returned. It is NaN for values that never change.

    Source: Gelman, Rubin 1992, *Inference from Iterative Simulation Using Multiple Sequences*,
    https://doi.org/10.1214/ss/1177011136; Vehtari, Gelman, Simpson, Carpenter, Bürkner 2021, *Rank-Normalization,
    Folding, and Localization: An Improved R-hat for Assessing Convergence of MCMC*, https://arxiv.org/abs/1903.08008.
    """
    half = values.shape[1] // 2
    halves = np.concatenate([values[:, :half], values[:, -half:]])
    folded = np.abs(halves - np.median(halves, (0, 1)))
    return np.maximum(_rhat(_normal_scores(halves)), _rhat(_normal_scores(folded)))


def _normal_scores(values: Float[np.ndarray, "chains draws *scalars"]) -> Float[np.ndarray, "chains draws *scalars"]:
    """Replace values by the quantiles of a standard normal at their ranks among all chains (Blom 1958)."""
    flat = values.reshape(-1, *values.shape[2:])
    return norm.ppf((rankdata(flat, axis=0) - 3 / 8) / (len(flat) + 1 / 4)).reshape(values.shape)


def _rhat(values: Float[np.ndarray, "chains draws *scalars"]) -> Float[np.ndarray, "*scalars"]:
    """Return `sqrt((n - 1) / n + B / W)` of n draws, with the variance B of chain means and W within chains."""
    draws, within = values.shape[1], values.var(1, ddof=1).mean(0)
    between = values.mean(1).var(0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((draws - 1) / draws + between / within)
