"""What symmetry does to everything else, one phenomenon a file. To add one: a function of a zoo, and a line here."""

from collections.abc import Callable, Sequence

from benchmark.phenomena.mode_connectivity import ModeConnectivity, all_variants

PHENOMENA: dict[str, Callable[..., Sequence[ModeConnectivity]]] = {"mode_connectivity": all_variants}
