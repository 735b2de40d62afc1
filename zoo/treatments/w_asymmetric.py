"""Networks without permutation symmetry: each row of a weight has a different set of fixed entries.

A weight `W` with mask `M`, which is 1 where entries train, and constants `C` is used as `W * M + C * (1 - M)`.

Source: Lim et al. 2024, section 3.1, https://arxiv.org/abs/2405.20231. With `kappa` 0 the fixed entries are zero
(Bürgin et al. 2026, *Beyond Structural Symmetries*).
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from zoo.networks.parameters import ParameterLayout
from zoo.treatments.base import Held
from zoo.treatments.masks import FixedEntries


class WAsymmetric(FixedEntries):
    """Networks with fixed entries, the same in all networks of a zoo if `shared`; arguments as in `FixedEntries`."""

    kind: Literal["w_asymmetric"]
    later: ClassVar[frozenset[str]] = frozenset({"shared"})

    @property
    def shares(self) -> bool:
        """Whether all networks of a zoo have the same masks and constants."""
        return self.shared

    def holds(self, sites: Mapping[str, str]) -> set[str]:
        """Return the names of the mask and of the constants."""
        return {"mask", "constants"}

    def hold(self, layout: ParameterLayout, sites: Mapping[str, str], seed: int, *pair: int) -> Held:
        """Draw the mask, true where entries train, and the constants."""
        fixed, constants = self.draw(layout, seed, *pair)
        return {"mask": ~fixed, "constants": constants}
