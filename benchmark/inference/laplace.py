"""Diagonal Laplace posteriors around trained networks, K at once.

    q(w) = N(w*, diag(1 / (F + precision))),    F_i = sum_n sum_c p_nc (d log p_nc / d w_i)^2

F is the Fisher information of the train split, the classes summed and not drawn; for cross-entropy it is the
generalised Gauss-Newton matrix. Networks drawn from so wide a posterior are worse than the trained one; predictions are
better made by that one linearised in its weights, `f(x; w*) + J(x) (w - w*)`.

Source: MacKay 1992, *A Practical Bayesian Framework for Backpropagation Networks*,
https://doi.org/10.1162/neco.1992.4.3.448; Ritter, Botev, Barber 2018, *A Scalable Laplace Approximation for Neural
Networks*, https://openreview.net/forum?id=Skdvd2xAZ; Daxberger et al. 2021, *Laplace Redux: Effortless Bayesian Deep
Learning*, https://arxiv.org/abs/2106.14806; on linearised predictions Immer, Korzepa, Bauer 2021, *Improving
predictions of Bayesian neural nets via local linearization*, https://arxiv.org/abs/2008.08400.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, vjp, vmap

from benchmark.inference.energy import Precision
from zoo.data import Data
from zoo.treatments import Treated

STEPS = 100  # of re-estimation
PORTION_BYTES = 16 << 20  # of gradients worked on together: several times as many do not stay in cache

Root = Callable[[Float[Tensor, " outputs"]], Float[Tensor, "vectors outputs"]]


@dataclass(frozen=True)
class Laplace:
    """K Gaussian posteriors.

    Attributes:
        treated: what the networks are.
        rows: the trained networks, `(K, P)`.
        variance: of each weight, `(K, P)`, zero at fixed entries.
    """

    treated: Treated
    rows: Float[Tensor, "networks parameters"]
    variance: Float[Tensor, "networks parameters"]

    def draw(self, samples: int, generator: torch.Generator) -> Float[Tensor, "networks samples parameters"]:
        """Draw rows, as networks use them."""
        networks, columns = self.rows.shape
        z = self.rows.new_empty(networks, samples, columns).normal_(generator=generator)
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
        """Return the logits of linearised networks drawn from the posterior, each the same one for all inputs."""
        away = self.draw(samples, generator) - self.rows[:, None]
        parts = []
        for logits, jacobian in gradients(self.treated, self.rows, x, identity_root):
            change = away @ jacobian.flatten(1, 2).mT  # (K, S, B C)
            parts.append(logits[:, None] + change.unflatten(2, logits.shape[1:]))
        return torch.cat(parts, 2)


def softmax_root(logits: Float[Tensor, " classes"]) -> Float[Tensor, "classes classes"]:
    """Return `sqrt(p_c) (e_c - p)` for each class c: the gradients of its log probability, so weighted."""
    p = logits.softmax(-1)
    return p.sqrt()[:, None] * (torch.eye(len(p)).to(p) - p)


def identity_root(outputs: Float[Tensor, " outputs"]) -> Float[Tensor, "outputs outputs"]:
    """Return the unit vectors: what is pulled back are the rows of the Jacobian."""
    return torch.eye(len(outputs)).to(outputs)


def laplace(
    treated: Treated,
    rows: Float[Tensor, "networks parameters"],
    data: Data,
    *,
    precision: Precision | None = None,
    root: Root = softmax_root,
) -> Laplace:
    """Return the posteriors around K trained networks.

    Arguments:
        treated: what the networks are.
        rows: the networks, as they are used.
        data: whose train split is observed.
        precision: of the prior, one for all or `(P,)`; positive. By default that of the greatest evidence, for each
            network, see `best_precision`.
        root: vectors `s_r` of which the likelihood's Hessian by one example's outputs is `sum_r s_r s_r^T`.
    """
    treated, data = treated.to(rows.device, rows.dtype), data.to(rows.device, rows.dtype)
    fisher = fisher_diagonal(treated, rows, data.train_x, root)
    if precision is None:
        precision = best_precision(treated, rows, fisher)
    variance = 1 / (fisher + (precision.to(rows) if isinstance(precision, Tensor) else precision))
    return Laplace(treated, rows.detach(), treated.thetas(variance))


def best_precision(
    treated: Treated, rows: Float[Tensor, "networks parameters"], fisher: Float[Tensor, "networks parameters"]
) -> Float[Tensor, "networks 1"]:
    """Return the prior's precision under which the train split is likeliest, by Laplace's approximation.

    It solves `precision * |theta|^2 = gamma`, the effective number of parameters `sum_i F_i / (F_i + precision)`.

    Source: MacKay 1992, *Bayesian Interpolation*, https://doi.org/10.1162/neco.1992.4.3.415, by re-estimation.
    """
    energy = treated.thetas_of(rows).square().sum(1, keepdim=True)
    precision, fisher = torch.ones_like(energy), treated.thetas(fisher)
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
    """Return the diagonal of `sum_n J_n^T H_n J_n`, H the likelihood's Hessian by the outputs; see `laplace`."""
    total = torch.zeros_like(rows)
    for _, each in gradients(treated, rows, x, root):
        total += each.square_().sum((1, 2))
    return total


def gradients(
    treated: Treated,
    rows: Float[Tensor, "networks parameters"],
    x: Float[Tensor, "examples ..."],
    root: Root,
) -> Iterator[tuple[Float[Tensor, "networks batch outputs"], Float[Tensor, "networks batch vectors parameters"]]]:
    """Yield outputs and, for each example, its Jacobian's products with the vectors of `root`, a portion at a time."""
    module, layout = treated.module, treated.layout

    def one(network: dict[str, Tensor], example: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        outputs, back = vjp(lambda own: functional_call(module, own, (example[None],))[0], network)  # type: ignore[misc]
        (products,) = vmap(back)(root(outputs))
        return outputs, products

    tensors = layout.unflatten(rows)
    each = vmap(vmap(one, (None, 0)), (0, None))
    vectors = len(root(module(x[:1])[0]))
    portion = max(1, PORTION_BYTES // (rows.element_size() * rows.numel() * vectors))
    for some in x.split(portion):
        outputs, products = each(tensors, some)
        yield outputs, layout.flatten(products)
