"""Callbacks for progress: library code calls them, and commands print or draw what they receive."""

from collections.abc import Callable

Progress = Callable[[int], object]  # receives the number of networks, trainings, ... that were just completed
Log = Callable[[str], object]  # receives one line of text


def ignore(report: object) -> None:
    """Do nothing: the default of every callback."""
