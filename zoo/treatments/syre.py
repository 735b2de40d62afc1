"""Networks without reflection symmetry at the origin: a fixed offset and a slightly anisotropic decay.

The network uses `theta + theta_0`, and decay pulls `theta`, not the weights, to zero, each entry at a rate of
its own.

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
    """An offset and a decay for each entry, the same in every network of a zoo.

    Arguments:
        std: `theta_0 ~ std * N(0, 1)`.
        anisotropy: the decay of an entry is multiplied by `1 + anisotropy * U(-1, 1)`.
    """

    kind: Literal["syre"]
    std: PositiveFloat = 0.01
    anisotropy: float = Field(0.01, ge=0, lt=1)

    def holds(self, sites: Mapping[str, str]) -> set[str]:
        """Return the names of what is held."""
        return {"constants", "decay"}

    def hold(self, layout: ParameterLayout, sites: Mapping[str, str], seed: int, *pair: int) -> Held:
        """Return `theta_0` as constants, and the factors on the decay."""
        offset = self.std * rng_for(seed, "syre/offset").standard_normal(layout.size)
        decay = 1 + self.anisotropy * rng_for(seed, "syre/decay").uniform(-1, 1, layout.size)
        return {name: torch.from_numpy(v.astype(np.float32)) for name, v in (("constants", offset), ("decay", decay))}
