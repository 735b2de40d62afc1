"""Networks whose activation mixes units: FiGLU, `x * sigmoid(F x)`, with a fixed random matrix `F`.

Source: Lim et al. 2024, section 3.2, https://arxiv.org/abs/2405.20231.
"""

from collections.abc import Mapping
from math import sqrt
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.networks.parameters import ParameterLayout
from zoo.seeds import rng_for
from zoo.treatments.base import F_OF, Held, Treatment


class FiGLU(nn.Module):
    """The activation `x * sigmoid(F x)`, over units or, as a 1x1 convolution, over channels.

    `F` is not a parameter and not in the `state_dict`, so the `state_dict` fits the plain architecture.

    Arguments:
        F: Mixing matrix, `(units, units)`.
    """

    F: Tensor

    def __init__(self, F: Float[Tensor, "units units"]) -> None:
        super().__init__()
        self.register_buffer("F", F.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, units)` or `(B, units, H, W)` to the same shape."""
        mixed = nn.functional.linear(x, self.F) if x.ndim == 2 else nn.functional.conv2d(x, self.F[:, :, None, None])
        return x * mixed.sigmoid()


class SigmaAsymmetric(Treatment):
    """Networks in which FiGLU replaces every activation, each with its own matrix `F`.

    Arguments:
        variance: Variance of the entries of `F`: `unit` is 1, as in the paper's MLPs; `inverse_width` is 1 over the
            number of units, as in its ResNets.
        shared: Whether all networks of a zoo have the same matrices; otherwise these are drawn for each pair.
    """

    kind: Literal["sigma_asymmetric"]
    variance: Literal["unit", "inverse_width"] = "unit"
    shared: bool = True
    later: ClassVar[frozenset[str]] = frozenset({"shared"})

    @property
    def shares(self) -> bool:
        """Whether all networks of a zoo have the same matrices."""
        return self.shared

    def holds(self, sites: Mapping[str, str]) -> set[str]:
        """Return the names of the matrices, `F/<site>`."""
        return {F_OF + site for site in sites}

    def hold(self, layout: ParameterLayout, sites: Mapping[str, str], seed: int, *pair: int) -> Held:
        """Draw a matrix `F/<site>` for every activation site."""
        held = {}
        for site, axis in sites.items():
            units = layout.axes[axis]
            scale = 1.0 if self.variance == "unit" else 1 / sqrt(units)
            F = scale * rng_for(seed, f"F/{site}", *pair).standard_normal((units, units))
            held[F_OF + site] = torch.from_numpy(F).float()
        return held

    def activations(self, held: Held) -> dict[str, nn.Module]:
        """Return a FiGLU for every matrix."""
        return {key.removeprefix(F_OF): FiGLU(F) for key, F in held.items() if key.startswith(F_OF)}
