"""The control for size: a standard network with about as many parameters as the W-Asymmetric one trains.

Source: Lim et al. 2024, "Smaller ResNet", https://arxiv.org/abs/2405.20231.
"""

from typing import Any, Literal

from pydantic import PositiveFloat

from zoo.networks.architectures import Architecture, architecture_of
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
        architecture = architecture_of(name)
        return architecture(**architecture.narrow(arguments, self.width))
