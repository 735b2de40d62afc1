"""Networks without permutation symmetry: each row of a weight has a different set of fixed entries.

A weight `W` with mask `M` and constants `C` is used as `W * M + C * (1 - M)`.
Source: Lim et al. 2024, section 3.1. With `kappa` 0, only the masks remain (Bürgin et al. 2026).
"""

from collections.abc import Mapping
from typing import Literal

from zoo.parameters import ParameterLayout
from zoo.treatments.base import Held
from zoo.treatments.masks import FixedEntries


class WAsymmetric(FixedEntries):
    """Fixed entries, the same in every network of a zoo; arguments as in `FixedEntries`."""

    kind: Literal["w_asymmetric"]

    def hold(self, layout: ParameterLayout, sites: Mapping[str, str], seed: int) -> Held:
        """Return the mask, true where entries train, and the constants."""
        fixed, constants = self.draw(layout, seed)
        return {"mask": ~fixed, "constants": constants}
