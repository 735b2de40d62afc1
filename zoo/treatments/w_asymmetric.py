"""Networks without permutation symmetry: each row of a weight has a different set of fixed entries.

A weight `W` with mask `M` and constants `C` is used as `W * M + C * (1 - M)`.
Source: Lim et al. 2024, section 3.1, https://arxiv.org/abs/2405.20231. With `kappa` 0, only the masks remain (Bürgin
et al. 2026, *Beyond Structural Symmetries*).
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from zoo.networks.parameters import ParameterLayout
from zoo.treatments.base import Held
from zoo.treatments.masks import FixedEntries


class WAsymmetric(FixedEntries):
    """Fixed entries, the same in every network of a zoo unless not `shared`; arguments as in `FixedEntries`."""

    kind: Literal["w_asymmetric"]
    later: ClassVar[frozenset[str]] = frozenset({"shared"})

    @property
    def shares(self) -> bool:
        """Whether masks and constants are the zoo's."""
        return self.shared

    def holds(self, sites: Mapping[str, str]) -> set[str]:
        """Return the names of what is held."""
        return {"mask", "constants"}

    def hold(self, layout: ParameterLayout, sites: Mapping[str, str], seed: int, *pair: int) -> Held:
        """Return the mask, true where entries train, and the constants."""
        fixed, constants = self.draw(layout, seed, *pair)
        return {"mask": ~fixed, "constants": constants}
