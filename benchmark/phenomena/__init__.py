"""What symmetry does to everything else, one phenomenon a file. To add one: a function of a zoo, and a line here."""

from collections.abc import Callable

from benchmark.phenomena.mode_connectivity import ModeConnectivity, mode_connectivity

PHENOMENA: dict[str, Callable[..., ModeConnectivity]] = {"mode_connectivity": mode_connectivity}
