"""Curvature of the train loss at the end of training: largest eigenvalues and trace of the Hessian.

The Hessian is over trainable entries. Its trace is estimated as the mean of `v^T H v` over random signs v.

Source: Hutchinson 1990, *A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines*,
https://doi.org/10.1080/03610919008812866; Ghorbani, Krishnan, Xiao 2019, *An Investigation into Neural Net Optimization
via Hessian Eigenvalue Density*, https://arxiv.org/abs/1901.10159; eigenvalues as in `benchmark.hessian`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.figures import Figure, panels
from benchmark.hessian import Mask, Product, Vectors, hessian_product, largest_eigenvalues
from benchmark.selection import portions, trained
from zoo.data import Data
from zoo.networks.stack import Stack
from zoo.progress import Progress, ignore
from zoo.seeds import rng_for
from zoo.statistics import Estimate, mean_interval
from zoo.store.networks import Networks

NETWORKS = 64  # networks per treatment, at most; digits-mlp-replicas has as many
EXAMPLES = 2048  # training examples, at most; the time grows with their number
PROBES = 16  # vectors of random signs for each trace; findings state the remaining standard error
LOAD = 4  # memory of double backward, as an estimated multiple of that of training


@dataclass(frozen=True)
class Curvature:
    """The Hessian of the train loss over trainable entries.

    Attributes:
        treatment: Name of the networks' treatment.
        networks: Numbers of their pairs, `(networks,)`.
        eigenvalues: The largest eigenvalues of each network, the largest first, `(networks, LARGEST)`.
        trace: Hutchinson's estimate for each network, `(networks,)`.
        trace_error: Its standard error, `(networks,)`.
        means: Means over networks, of the largest eigenvalue and of the trace.
        zoo: Name and digest of the zoo's recipe.
    """

    treatment: str
    networks: list[int]
    eigenvalues: Float[np.ndarray, "networks largest"]
    trace: Float[np.ndarray, " networks"]
    trace_error: Float[np.ndarray, " networks"]
    means: dict[str, Estimate]
    zoo: dict[str, str]

    def headline(self) -> str:
        """State the means."""
        return f"largest eigenvalue {self.means['largest_eigenvalue']}, trace {self.means['trace']}"


def measure(
    networks: Networks, data: Data, *, most: int = NETWORKS, seed: int = 0, progress: Progress = ignore
) -> list[Curvature]:
    """Measure the Hessian of trained networks.

    Arguments:
        networks: Networks of one treatment.
        data: Data on whose first 2,048 training examples the loss is computed.
        most: Largest number of networks; the first are used.
        seed: Seed of the vectors that probe the Hessian.
        progress: Function that is called with the number of networks just measured.

    Raises:
        TaskError: If there are fewer than two trained networks.
    """
    networks, rng = trained(networks, 2)[:most], rng_for(seed, "curvature")
    x, y = data.train_x[:EXAMPLES], data.train_y[:EXAMPLES]
    eigenvalues, traces, errors = [], [], []
    for portion in portions(networks, x.device, load=LOAD):
        stack, mask = portion.stack(), portion.treated.trainable
        product = partial(hessian_product, stack, mask, x, y)
        eigenvalues.append(largest_eigenvalues(product, _draw_direction(stack, mask, rng)))
        samples = torch.stack([_sample_trace(product, stack, mask, rng) for _ in range(PROBES)], 1)
        traces.append(samples.mean(1))
        errors.append(samples.std(1) / PROBES**0.5)
        progress(len(portion))
    values, trace, error = (torch.cat(parts).double().numpy() for parts in (eigenvalues, traces, errors))
    return [
        Curvature(
            treatment=networks.treatment,
            networks=networks.pairs.tolist(),
            eigenvalues=values,
            trace=trace,
            trace_error=error,
            means={"largest_eigenvalue": mean_interval(values[:, 0]), "trace": mean_interval(trace)},
            zoo=networks.zoo.origin,
        )
    ]


def draw(findings: Sequence[Curvature]) -> Figure:
    """Show the largest eigenvalue and the trace of every network, and their medians."""
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


def _draw_direction(stack: Stack, mask: Mask, rng: np.random.Generator) -> Vectors:
    """Draw a standard normal vector for each network, zero at fixed entries."""
    return torch.from_numpy(rng.standard_normal(stack.rows.shape)).to(stack.rows) * mask


def _sample_trace(product: Product, stack: Stack, mask: Mask, rng: np.random.Generator) -> Float[Tensor, " networks"]:
    """Return one estimate `v^T H v` of each trace, v being random signs."""
    v = torch.from_numpy(rng.choice([-1.0, 1.0], stack.rows.shape)).to(stack.rows) * mask
    return (v * product(v)).sum(1)
