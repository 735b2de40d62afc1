"""Curvature of the train loss where training ended: largest eigenvalues and trace of the Hessian.

All is over trainable entries, for many networks at once, by products of the Hessian with vectors.

Source: Lanczos 1950, *An iteration method for the solution of the eigenvalue problem of linear differential and
integral operators*, https://doi.org/10.6028/jres.045.026; Hutchinson 1990, *A stochastic estimator of the trace of the
influence matrix for Laplacian smoothing splines*, https://doi.org/10.1080/03610919008812866; Ghorbani, Krishnan, Xiao
2019, *An Investigation into Neural Net Optimization via Hessian Eigenvalue Density*, https://arxiv.org/abs/1901.10159.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from benchmark.figures import Figure, panels
from benchmark.lines import trained_networks
from zoo.data import Data
from zoo.networks.stack import Stack, cross_entropy, run_stack, stack_size
from zoo.seeds import rng_for
from zoo.statistics import Estimate, mean_interval
from zoo.store.zoo import Zoo

NETWORKS = 64
EXAMPLES = 2048  # of the train split
AT_ONCE = 256  # of these: what the way back twice needs stays in cache
STEPS = 24  # of Lanczos
PROBES = 16
LARGEST = 5

Vectors = Float[Tensor, "networks parameters"]
Product = Callable[[Vectors], Vectors]
Trainable = Bool[Tensor, "*networks parameters"]


@dataclass(frozen=True)
class Curvature:
    """The Hessian of the train loss over trainable entries.

    Attributes:
        treatment: whose networks.
        networks: which, `(networks,)`.
        eigenvalues: the largest first, `(networks, LARGEST)`.
        trace: Hutchinson's estimate for each network, `(networks,)`.
        trace_error: its standard error, `(networks,)`.
        means: over networks with 95 % intervals, of the largest eigenvalue and the trace.
        zoo: name and digest of the zoo's recipe.
    """

    treatment: str
    networks: list[int]
    eigenvalues: Float[np.ndarray, "networks largest"]
    trace: Float[np.ndarray, " networks"]
    trace_error: Float[np.ndarray, " networks"]
    means: dict[str, Estimate]
    zoo: dict[str, str]

    def headline(self) -> str:
        """Say the means."""
        return f"largest eigenvalue {self.means['largest_eigenvalue']}, trace {self.means['trace']}"


def curvature(
    zoo: Zoo,
    treatment: str,
    data: Data,
    *,
    networks: int = NETWORKS,
    seed: int = 0,
    progress: Callable[[int], None] = lambda networks: None,
) -> list[Curvature]:
    """Measure the Hessian of trained networks.

    Arguments:
        zoo, treatment: whose networks; those that diverged are left out.
        data: the first 2,048 examples of the train split are those of the loss.
        networks: the first so many.
        seed: of the vectors that probe the Hessian.
        progress: called with the number of networks just done.

    Raises:
        TaskError: if there are fewer than two trained networks.
    """
    index = trained_networks(zoo, treatment, 2)[:networks]
    treated, rng = zoo.treated(treatment, index), rng_for(seed, "curvature")
    x, y = data.train_x[:EXAMPLES], data.train_y[:EXAMPLES]
    # The double backward pass takes more room.
    portion = max(1, stack_size(treated.module, treated.layout, data.train_x.device) // 4)
    eigenvalues, traces, errors = [], [], []
    for some in np.split(index, range(portion, len(index), portion)):
        stack, trainable = zoo.stack(treatment, some), zoo.treated(treatment, some).trainable

        def product(v: Vectors, stack: Stack = stack, trainable: Trainable = trainable) -> Vectors:
            return hessian_product(stack, trainable, x, y, v)

        eigenvalues.append(largest_eigenvalues(product, _draw(stack, trainable, rng)))
        samples = torch.stack([_probe(product, stack, trainable, rng) for _ in range(PROBES)], 1)
        traces.append(samples.mean(1))
        errors.append(samples.std(1) / PROBES**0.5)
        progress(len(some))
    values, trace, error = (torch.cat(parts).double().numpy() for parts in (eigenvalues, traces, errors))
    return [
        Curvature(
            treatment=treatment,
            networks=index.tolist(),
            eigenvalues=values,
            trace=trace,
            trace_error=error,
            means={"largest_eigenvalue": mean_interval(values[:, 0]), "trace": mean_interval(trace)},
            zoo=zoo.origin,
        )
    ]


def draw(findings: Sequence[Curvature]) -> Figure:
    """Show the largest eigenvalues and the trace of every network."""
    figure, axes = panels(["largest eigenvalue", "trace"], sharey=True)
    names = [finding.treatment for finding in findings]
    for row, finding in enumerate(findings):
        for ax, values in zip(axes[0], (finding.eigenvalues[:, 0], finding.trace), strict=True):
            ax.plot(values, np.full(len(values), row), "|", color="C0", alpha=0.5)
            ax.plot(np.median(values), row, "o", color="C3", markersize=4)
    for ax in axes[0]:
        ax.set_xscale("log")
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    return figure


def hessian_product(
    stack: Stack,
    trainable: Trainable,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    v: Vectors,
) -> Vectors:
    """Return `H v` of each network, H the Hessian of its mean cross-entropy; `v` is zero where nothing trains."""
    rows = stack.rows.detach().requires_grad_()
    total = torch.zeros_like(rows)
    for images, labels in zip(x.split(AT_ONCE), y.split(AT_ONCE), strict=True):
        logits = run_stack(stack.with_rows(rows), images.expand(len(rows), *images.shape))
        loss = cross_entropy(logits, labels.expand(len(rows), -1)) * (len(labels) / len(y))
        (gradient,) = torch.autograd.grad(loss.sum(), rows, create_graph=True)
        total += torch.autograd.grad((gradient * v).sum(), rows)[0]
    return total * trainable


def largest_eigenvalues(
    product: Product, start: Vectors, *, steps: int = STEPS, largest: int = LARGEST
) -> Float[Tensor, "networks largest"]:
    """Return the largest eigenvalues of symmetric maps, the largest first, by Lanczos iteration.

    Each new direction is made orthogonal to all before, twice, which rounding makes necessary.

    Arguments:
        product: applies the map of each network to a vector of its own.
        start: directions to begin with, drawn at random.
        steps: at least as many as eigenvalues; the outer ones converge first.
        largest: how many.
    """
    q = start / start.norm(dim=1, keepdim=True)
    basis, diagonal, beside = q[:, None], [], []  # (K, steps, P)
    greatest = start.new_zeros(len(start))
    for _ in range(steps):
        w = product(q)
        diagonal.append((w * q).sum(1))
        for _ in range(2):
            w = w - torch.einsum("ksp,ks->kp", basis, torch.einsum("ksp,kp->ks", basis, w))
        norm = w.norm(dim=1)
        greatest = greatest.maximum(norm)
        norm = norm.where(norm > 100 * torch.finfo(norm.dtype).eps * greatest, 0)  # no direction is left
        beside.append(norm)
        q = torch.where(norm[:, None] > 0, w / norm[:, None], 0)
        basis = torch.cat([basis, q[:, None]], 1)
    tridiagonal = torch.diag_embed(torch.stack(diagonal, 1))
    off = torch.diag_embed(torch.stack(beside[:-1], 1), offset=1)
    return torch.linalg.eigvalsh(tridiagonal + off + off.mT).flip(1)[:, :largest]


def _draw(stack: Stack, trainable: Trainable, rng: np.random.Generator) -> Vectors:
    """Draw a direction for each network."""
    return torch.from_numpy(rng.standard_normal(stack.rows.shape)).to(stack.rows) * trainable


def _probe(
    product: Product, stack: Stack, trainable: Trainable, rng: np.random.Generator
) -> Float[Tensor, " networks"]:
    """Return one estimate of each trace: `v H v` with random signs for `v`."""
    v = torch.from_numpy(rng.choice([-1.0, 1.0], stack.rows.shape)).to(stack.rows) * trainable
    return (v * product(v)).sum(1)
