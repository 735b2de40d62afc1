"""The control for size: a standard network with about as many parameters as the W-Asymmetric one trains.

Source: Lim et al. 2024, "Smaller ResNet".
"""

from typing import Any, Literal

from pydantic import PositiveFloat

from zoo.architectures import ARCHITECTURES, Architecture
from zoo.treatments.base import Treatment


class Narrow(Treatment):
    """Hidden layers `width` times as wide.

    Arguments:
        width: factor on the units of every hidden layer.
    """

    kind: Literal["narrow"]
    width: PositiveFloat

    def architecture(self, name: str, arguments: dict[str, Any]) -> Architecture:
        """Construct the narrower network."""
        architecture = ARCHITECTURES[name]
        return architecture(**architecture.narrow(arguments, self.width))
