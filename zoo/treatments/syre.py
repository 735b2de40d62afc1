"""Networks without reflection symmetry at the origin, by a fixed offset and a slightly anisotropic weight decay.

The network uses `theta + theta_0`. Weight decay pulls `theta`, not the weights, to zero, at a different rate for each
entry.

Source: Ziyin, Xu, Chuang 2024, *Remove Symmetries to Control Model Expressivity and Improve Optimization*,
https://arxiv.org/abs/2408.15495.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat

from zoo.networks.parameters import ParameterLayout
from zoo.seeds import rng_for
from zoo.treatments.base import Held, Treatment


class Syre(Treatment):
    """Networks with a fixed offset and a decay factor for each entry, the same in every network of a zoo.

    Arguments:
        std: Standard deviation of the offset, `theta_0 ~ std * N(0, 1)`.
        anisotropy: Width of the decay factors, which are `1 + anisotropy * U(-1, 1)`.
    """

    kind: Literal["syre"]
    std: PositiveFloat = 0.01
    anisotropy: float = Field(0.01, ge=0, lt=1)

    def holds(self, sites: Mapping[str, str]) -> set[str]:
        """Return the names of the offset and of the decay factors."""
        return {"constants", "decay"}

    def hold(self, layout: ParameterLayout, sites: Mapping[str, str], seed: int, *pair: int) -> Held:
        """Draw the offset `theta_0`, as constants, and the factors on the weight decay."""
        offset = self.std * rng_for(seed, "syre/offset").standard_normal(layout.size)
        offset[~layout.learned.numpy()] = 0  # running statistics are measured, not learned
        decay = 1 + self.anisotropy * rng_for(seed, "syre/decay").uniform(-1, 1, layout.size)
        return {name: torch.from_numpy(v.astype(np.float32)) for name, v in (("constants", offset), ("decay", decay))}
