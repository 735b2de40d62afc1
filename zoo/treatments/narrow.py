"""A control for size: standard networks with about as many parameters as W-Asymmetric networks train.

Source: Lim et al. 2024, "Smaller ResNet", https://arxiv.org/abs/2405.20231.
"""

from typing import Any, Literal

from pydantic import PositiveFloat

from zoo.networks.architectures import Architecture, architecture_of
from zoo.treatments.base import Treatment


class Narrow(Treatment):
    """Networks whose hidden layers are `width` times as wide.

    Arguments:
        width: Factor on the number of units of every hidden layer.
    """

    kind: Literal["narrow"]
    width: PositiveFloat

    def architecture(self, name: str, arguments: dict[str, Any]) -> Architecture:
        """Construct the architecture `name` with hidden layers `width` times as wide."""
        architecture = architecture_of(name)
        return architecture(**architecture.narrow(arguments, self.width))
