"""The control for the start: networks that begin just like W-Asymmetric ones, but of which everything trains.

Shared, their symmetry group is the standard one while their start tells the units apart, the same way in the
whole zoo. Not shared, only the scale of a W-Asymmetric start remains.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from zoo.networks.parameters import ParameterLayout
from zoo.treatments.masks import FixedEntries


class WInitialised(FixedEntries):
    """Constants as initial values, those of the W-Asymmetric treatment with the same arguments, see `FixedEntries`."""

    kind: Literal["w_initialised"]

    def start(
        self, initial: Float[Tensor, " parameters"], layout: ParameterLayout, seed: int, pair: int
    ) -> Float[Tensor, " parameters"]:
        """Return the initial numbers, with constants where the W-Asymmetric network has them."""
        fixed, constants = self.draw(layout, seed, *(() if self.shared else (pair,)))
        return initial.where(~fixed, constants)
