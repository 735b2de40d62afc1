"""Langevin dynamics: K chains whose weights are draws from the posterior.

    dw = m dt,    dm = -grad U(w) dt - friction m dt + sqrt(2 friction) dW

leaves `exp(-U(w) - |m|^2 / 2)` as it is. It is followed in steps h of four parts (BAOA):

    m <- m - h grad U(w);    w <- w + h/2 m;    m <- c m + sqrt(1 - c^2) N(0, I);    w <- w + h/2 m

with `c = exp(-friction h)`. If the posterior is Gaussian, the weights then have its very covariance, whatever the step,
where the plain steps of SGHMC err by O(h). With gradients of all examples, chains too short are the one cause of error
left; gradients of minibatches add the variance of their noise.

Source: Chen, Fox, Guestrin 2014, *Stochastic Gradient Hamiltonian Monte Carlo*, https://arxiv.org/abs/1402.4102; the
steps Leimkuhler, Matthews 2013, *Rational Construction of Stochastic Numerical Methods for Molecular Sampling*,
https://doi.org/10.1093/amrx/abs010; as a measure of the true posterior Izmailov, Vikram, Hoffman, Wilson 2021, *What
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

from benchmark.inference.energy import Energy, Loss, Precision, endless_batches, generators_for
from zoo.data import Data
from zoo.errors import TaskError
from zoo.networks.stack import cross_entropy
from zoo.treatments import Treated


@dataclass(frozen=True)
class Settings:
    """How chains run.

    Arguments:
        step_size: h; stable below `2 / sqrt(the largest eigenvalue of the Hessian of U)`.
        friction: for each unit of time.
        burn_in: steps before the first draw.
        draws: how many are kept.
        every: steps from one draw to the next.
        batch_size: examples a step; all of them by default.
    """

    step_size: float = 1e-2
    friction: float = 2.0
    burn_in: int = 1000
    draws: int = 50
    every: int = 100
    batch_size: int | None = None


@dataclass(frozen=True)
class Langevin:
    """K chains.

    Attributes:
        kept: their draws in order, `(K, draws, P)`, as networks use them.
        temperature: the mean square of the momenta after the burn-in, `(K,)`: 1 but for a step too large, or too much
            noise from minibatches, which raise it.
    """

    kept: Float[Tensor, "networks draws parameters"]
    temperature: Float[Tensor, " networks"]

    def draw(self, samples: int, generator: torch.Generator) -> Float[Tensor, "networks samples parameters"]:
        """Pick rows of each chain at random, none twice.

        Raises:
            TaskError: if the chains have fewer.
        """
        networks, draws, columns = self.kept.shape
        if samples > draws:
            raise TaskError(f"langevin: the chains have {draws} draws, not {samples}; ask for more of them")
        order = torch.rand(networks, draws, generator=generator, device=self.kept.device).argsort(1)[:, :samples]
        return self.kept.gather(1, order[..., None].expand(-1, -1, columns))


def langevin(
    treated: Treated,
    rows: Float[Tensor, "networks parameters"],
    data: Data,
    settings: Settings,
    *,
    precision: Precision,
    seed: int,
    pairs: Sequence[int],
    loss: Loss = cross_entropy,
) -> Langevin:
    """Run K chains from K networks.

    Arguments:
        treated: what the networks are.
        rows: the networks to begin with, as they are used.
        data: whose train split is observed.
        settings: of the chains.
        precision: of the prior, one for all or `(P,)`.
        seed, pairs: chain `k` draws its noise, and sees the data, in the order of `pairs[k]`.
        loss: the mean negative log-likelihood of labels given a network's outputs.

    Raises:
        TaskError: if a chain diverges.
    """
    energy = Energy.of(rows, treated, data, precision, loss)
    generators = generators_for(seed, "langevin", pairs)
    h, share = settings.step_size, exp(-settings.friction * settings.step_size)
    momenta, kept, heat = _noise(energy, rows, generators), [], torch.zeros_like(rows[:, 0])
    steps = settings.draws * settings.every
    shown = islice(_batches(energy, settings, seed, pairs), settings.burn_in + steps)
    for step, (x, y) in enumerate(shown, 1 - settings.burn_in):
        momenta = momenta - h * energy.gradient(rows, x, y)
        rows = rows + h / 2 * momenta
        momenta = share * momenta + (1 - share**2) ** 0.5 * _noise(energy, rows, generators)
        rows = rows + h / 2 * momenta
        if step > 0:
            heat = heat + momenta.square().sum(1)
            if step % settings.every == 0:
                kept.append(rows)
    if not rows.isfinite().all():
        raise TaskError(f"langevin: a chain diverged at a step_size of {h}; take a smaller one")
    return Langevin(torch.stack(kept, 1), heat / (steps * int(treated.trainable.sum())))


def _noise(energy: Energy, rows: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw a standard normal for each weight that trains, of each chain by its own generator."""
    drawn = torch.stack([torch.randn(rows.shape[1], generator=generator, dtype=rows.dtype) for generator in generators])
    return energy.treated.thetas(drawn.to(rows.device))


def _batches(energy: Energy, settings: Settings, seed: int, pairs: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what each step sees, for ever."""
    if settings.batch_size is not None:
        return endless_batches(energy.data, settings.batch_size, seed, pairs)
    x, y = energy.data.train_x, energy.data.train_y
    return repeat((x.expand(len(pairs), *x.shape), y.expand(len(pairs), -1)))


def split_rhat(values: Float[np.ndarray, "chains draws *scalars"]) -> Float[np.ndarray, "*scalars"]:
    """Return how far chains are from having mixed: 1 if they have, which is doubted above 1.01.

    The halves of all chains are compared, once by the ranks of the values, once by those of their distances from the
    median, and the worse is returned; NaN for what never changes.

    Source: Gelman, Rubin 1992, *Inference from Iterative Simulation Using Multiple Sequences*,
    https://doi.org/10.1214/ss/1177011136; Vehtari, Gelman, Simpson, Carpenter, Bürkner 2021, *Rank-Normalization,
    Folding, and Localization: An Improved R-hat for Assessing Convergence of MCMC*, https://arxiv.org/abs/1903.08008.
    """
    half = values.shape[1] // 2
    halves = np.concatenate([values[:, :half], values[:, -half:]])
    folded = np.abs(halves - np.median(halves, (0, 1)))
    return np.maximum(_rhat(_normal_scores(halves)), _rhat(_normal_scores(folded)))


def _normal_scores(values: Float[np.ndarray, "chains draws *scalars"]) -> Float[np.ndarray, "chains draws *scalars"]:
    """Replace values by what a standard normal has at their ranks among all chains (Blom 1958)."""
    flat = values.reshape(-1, *values.shape[2:])
    return norm.ppf((rankdata(flat, axis=0) - 3 / 8) / (len(flat) + 1 / 4)).reshape(values.shape)


def _rhat(values: Float[np.ndarray, "chains draws *scalars"]) -> Float[np.ndarray, "*scalars"]:
    """Compare the variance of all chains together with that within each."""
    draws, within = values.shape[1], values.var(1, ddof=1).mean(0)
    between = values.mean(1).var(0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((draws - 1) / draws + between / within)
