"""Ordinary networks, with all their symmetries."""

from typing import Literal

from zoo.treatments.base import Treatment


class Standard(Treatment):
    """The treatment that changes nothing."""

    kind: Literal["standard"]
