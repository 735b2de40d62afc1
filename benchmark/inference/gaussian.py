"""K Gaussian posteriors `q(w) = N(mu, V V^T / r + diag(s))`: low rank plus a diagonal, independent between layers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from benchmark.inference.energy import draw_normal
from benchmark.inference.local import layers_of
from zoo.treatments import Treated


@dataclass(frozen=True)
class Variational:
    """K Gaussian posteriors.

    Attributes:
        treated: Architecture and treatment of the networks.
        theta: Mean of the trained parameters theta, `(K, P)`.
        factors: Columns of V, `(K, r, P)`, zero where weights are not random.
        log_variance: Logarithm of `s`, `(K, P)`, or `(K, 1)` if there are factors.
        random: True for weights that are random, `(P,)`.
        precision: Precision of the prior, `(P,)`, zero where there is none.
    """

    treated: Treated
    theta: Float[Tensor, "networks parameters"]
    factors: Float[Tensor, "networks rank parameters"]
    log_variance: Float[Tensor, "networks #parameters"]
    random: Bool[Tensor, " parameters"]
    precision: Float[Tensor, " parameters"]

    @property
    def rows(self) -> Float[Tensor, "networks parameters"]:
        """Means of the rows."""
        return self.treated.to_rows(self.theta)

    @property
    def variance(self) -> Float[Tensor, "networks parameters"]:
        """Diagonal `s`, zero where weights are not random."""
        return self.log_variance.exp() * self.random

    @torch.no_grad()
    def draw(self, samples: int, generator: torch.Generator) -> Float[Tensor, "networks samples parameters"]:
        """Draw rows from each posterior."""
        networks, rank, columns = self.factors.shape
        noise = draw_normal((networks, samples, columns), generator, self.theta)
        rows = noise * self.variance.sqrt()[:, None] + self.rows[:, None]
        for places in layers_of(self.treated).values():
            z = draw_normal((networks, samples, rank), generator, self.theta) / max(1, rank) ** 0.5
            for place in places.values():
                rows[..., place] += z @ self.factors[..., place]
        return rows

    def part(self, which: slice) -> "Variational":
        """Return some of the posteriors."""
        theta, factors, log_variance = (tensor[which] for tensor in (self.theta, self.factors, self.log_variance))
        return replace(self, theta=theta, factors=factors, log_variance=log_variance)

    @classmethod
    def join(cls, parts: Sequence["Variational"]) -> "Variational":
        """Return the posteriors of all parts as one object."""
        each = ((part.theta, part.factors, part.log_variance) for part in parts)
        theta, factors, log_variance = map(torch.cat, zip(*each, strict=True))
        return replace(parts[0], theta=theta, factors=factors, log_variance=log_variance)
