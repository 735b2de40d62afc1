"""The networks everyone trains, with all their symmetries."""

from typing import Literal

from zoo.treatments.base import Treatment


class Standard(Treatment):
    """The identity."""

    kind: Literal["standard"]
