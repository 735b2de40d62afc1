"""Diagonal Laplace posteriors around trained networks, K at once.

    q(w) = N(w*, diag(1 / (F + precision))),    F_i = sum_n sum_c p_nc (d log p_nc / d w_i)^2

F is the diagonal of the Fisher information of the train split, summed over all classes instead of sampling them; for
cross-entropy it is that of the generalised Gauss-Newton matrix. The posterior is so wide that networks drawn from it
predict worse than the trained network; its linearisation in the weights, `f(x; w*) + J(x) (w - w*)`, predicts better.

Source: MacKay 1992, *A Practical Bayesian Framework for Backpropagation Networks*,
https://doi.org/10.1162/neco.1992.4.3.448; Ritter, Botev, Barber 2018, *A Scalable Laplace Approximation for Neural
Networks*, https://openreview.net/forum?id=Skdvd2xAZ; Daxberger et al. 2021, *Laplace Redux: Effortless Bayesian Deep
Learning*, https://arxiv.org/abs/2106.14806; on linearised predictions Immer, Korzepa, Bauer 2021, *Improving
predictions of Bayesian neural nets via local linearization*, https://arxiv.org/abs/2008.08400.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, vjp, vmap

from benchmark.inference.energy import Precision, draw_normal
from zoo.data import Data
from zoo.treatments import Treated

STEPS = 100  # of re-estimation, the same number for every network
PORTION_BYTES = 16 << 20  # of gradients computed together; several times as many do not stay in cache

Root = Callable[[Float[Tensor, " outputs"]], Float[Tensor, "vectors outputs"]]


def softmax_root(logits: Float[Tensor, " classes"]) -> Float[Tensor, "classes classes"]:
    """Return `sqrt(p_c) (e_c - p)` for each class c.

    This is `sqrt(p_c)` times the gradient of `log p_c` with respect to the logits.
    """
    p = logits.softmax(-1)
    return p.sqrt()[:, None] * (torch.eye(len(p), dtype=p.dtype, device=p.device) - p)


def identity_root(outputs: Float[Tensor, " outputs"]) -> Float[Tensor, "outputs outputs"]:
    """Return the unit vectors, with which `gradients` yields the rows of the Jacobian."""
    return torch.eye(len(outputs), dtype=outputs.dtype, device=outputs.device)


@dataclass(frozen=True)
class Settings:
    """Prior and likelihood.

    Arguments:
        precision: Precision of the prior, one for all parameters or `(P,)`; positive. By default the one with the
            greatest evidence for each network, see `best_precision`.
        root: Function from the outputs for one example to vectors `s_r`, such that the Hessian of the negative
            log-likelihood with respect to the outputs is `sum_r s_r s_r^T`.
    """

    precision: Precision | None = None
    root: Root = softmax_root


@dataclass(frozen=True)
class Laplace:
    """K Gaussian posteriors.

    Attributes:
        treated: Architecture and treatment of the networks.
        rows: Rows of the trained networks, `(K, P)`.
        variance: Variance of each weight, `(K, P)`, zero at fixed entries.
    """

    treated: Treated
    rows: Float[Tensor, "networks parameters"]
    variance: Float[Tensor, "networks parameters"]

    def draw(self, samples: int, generator: torch.Generator) -> Float[Tensor, "networks samples parameters"]:
        """Draw rows from each posterior."""
        networks, columns = self.rows.shape
        z = draw_normal((networks, samples, columns), generator, self.rows)
        return self.rows[:, None] + self.variance.sqrt()[:, None] * z

    @torch.no_grad()
    def linearised_logits(
        self, x: Float[Tensor, "examples ..."]
    ) -> tuple[Float[Tensor, "networks examples classes"], Float[Tensor, "networks examples classes classes"]]:
        """Return mean `f(x; w*)` and covariance `J diag(v) J^T` of the linearised networks' logits at each input."""
        mean, covariance = [], []
        for logits, jacobian in gradients(self.treated, self.rows, x, identity_root):
            mean.append(logits)
            covariance.append(jacobian * self.variance[:, None, None] @ jacobian.mT)
        return torch.cat(mean, 1), torch.cat(covariance, 1)

    @torch.no_grad()
    def draw_logits(
        self, x: Float[Tensor, "examples ..."], samples: int, generator: torch.Generator
    ) -> Float[Tensor, "networks samples examples classes"]:
        """Return the logits of linearised networks drawn from the posterior, each drawn once for all inputs."""
        deviation = self.draw(samples, generator) - self.rows[:, None]
        parts = []
        for logits, jacobian in gradients(self.treated, self.rows, x, identity_root):
            change = deviation @ jacobian.flatten(1, 2).mT  # (K, S, B C)
            parts.append(logits[:, None] + change.unflatten(2, logits.shape[1:]))
        return torch.cat(parts, 2)


def fit(
    treated: Treated,
    rows: Float[Tensor, "networks parameters"],
    data: Data,
    settings: Settings,
    *,
    pairs: Sequence[int] = (),
) -> Laplace:
    """Return the posteriors around K trained networks.

    Arguments:
        treated: Architecture and treatment of the networks.
        rows: Rows of the trained networks.
        data: Data whose train split is observed.
        settings: Prior and likelihood.
        pairs: Numbers of the networks' pairs, which are not used because nothing is drawn.
    """
    treated, data = treated.to(rows.device, rows.dtype), data.to(rows.device, rows.dtype)
    fisher = fisher_diagonal(treated, rows, data.train_x, settings.root)
    precision = settings.precision
    if precision is None:
        precision = best_precision(treated, rows, fisher)
    variance = 1 / (fisher + (precision.to(rows) if isinstance(precision, Tensor) else precision))
    return Laplace(treated, rows.detach(), treated.keep_trainable(variance))


def best_precision(
    treated: Treated, rows: Float[Tensor, "networks parameters"], fisher: Float[Tensor, "networks parameters"]
) -> Float[Tensor, "networks 1"]:
    """Return the prior's precision under which the train split is most probable, by Laplace's approximation.

    It solves `precision * |theta|^2 = gamma`, the effective number of parameters `sum_i F_i / (F_i + precision)`.

    Arguments:
        treated: Architecture and treatment of the networks.
        rows: Rows of the trained networks.
        fisher: Diagonal F of the Fisher information.

    Source: MacKay 1992, *Bayesian Interpolation*, https://doi.org/10.1162/neco.1992.4.3.415, by re-estimation.
    """
    energy = treated.from_rows(rows).square().sum(1, keepdim=True)
    precision, fisher = torch.ones_like(energy), treated.keep_trainable(fisher)
    for _ in range(STEPS):
        precision = (fisher / (fisher + precision)).sum(1, keepdim=True) / energy
    return precision


@torch.no_grad()
def fisher_diagonal(
    treated: Treated,
    rows: Float[Tensor, "networks parameters"],
    x: Float[Tensor, "examples ..."],
    root: Root = softmax_root,
) -> Float[Tensor, "networks parameters"]:
    """Return the diagonal of `sum_n J_n^T H_n J_n`, J_n the Jacobian of the outputs for example n.

    Arguments:
        treated: Architecture and treatment of the networks.
        rows: Rows of the trained networks.
        x: Examples n.
        root: Function that decomposes H_n, the Hessian of the negative log-likelihood with respect to the outputs; see
            `Settings`.
    """
    total = torch.zeros_like(rows)
    for _, products in gradients(treated, rows, x, root):
        total += products.square_().sum((1, 2))
    return total


def gradients(
    treated: Treated,
    rows: Float[Tensor, "networks parameters"],
    x: Float[Tensor, "examples ..."],
    root: Root,
) -> Iterator[tuple[Float[Tensor, "networks batch outputs"], Float[Tensor, "networks batch vectors parameters"]]]:
    """Yield the outputs for a few examples at a time, and the products `s_r^T J_n` for each example n.

    Arguments:
        treated: Architecture and treatment of the networks.
        rows: Rows of the networks.
        x: Examples n.
        root: Function from the outputs for one example to the vectors `s_r`.
    """
    module, layout = treated.module, treated.layout

    def one(network: dict[str, Tensor], example: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        outputs, back = vjp(lambda tensors: functional_call(module, tensors, (example[None],))[0], network)  # type: ignore[misc]
        (products,) = vmap(back)(root(outputs))
        return outputs, products

    tensors = treated.stack(rows).tensors()
    batched = vmap(vmap(one, (None, 0)), (0, None))
    vectors = len(root(module(x[:1])[0]))
    portion = max(1, PORTION_BYTES // (rows.element_size() * rows.numel() * vectors))
    for examples in x.split(portion):
        outputs, products = batched(tensors, examples)
        yield outputs, layout.flatten(products)
