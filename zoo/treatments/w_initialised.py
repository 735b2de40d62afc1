"""A control for the start: networks with the initial weights of W-Asymmetric networks, in which every entry trains.

If constants are shared, all networks have the symmetries of standard ones, but start with units that differ in the same
way in the whole zoo. If constants are drawn for each pair, only the scale of a W-Asymmetric start remains.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from zoo.networks.parameters import ParameterLayout
from zoo.treatments.masks import FixedEntries


class WInitialised(FixedEntries):
    """Networks that start at the constants of the W-Asymmetric treatment; arguments as in `FixedEntries`."""

    kind: Literal["w_initialised"]

    def start(
        self, initial: Float[Tensor, " parameters"], layout: ParameterLayout, seed: int, pair: int
    ) -> Float[Tensor, " parameters"]:
        """Return the initial values, with the constants where a W-Asymmetric network has fixed entries."""
        fixed, constants = self.draw(layout, seed, *(() if self.shared else (pair,)))
        return initial.where(~fixed, constants)
