"""What symmetry does to everything else, one phenomenon a file: how it is measured, and how it is drawn."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmark.findings import Finding
from benchmark.phenomena import (
    curvature,
    geometry,
    merging,
    mode_connectivity,
    monotonic_interpolation,
    optimisation,
    planes,
)


class Phenomenon(NamedTuple):
    """How a phenomenon is measured on a zoo, a treatment and data, and how its findings are drawn."""

    measure: Callable[..., Sequence[Finding]]
    draw: Callable[[Any], Figure]


PHENOMENA = {
    "mode_connectivity": Phenomenon(mode_connectivity.all_variants, mode_connectivity.draw),
    "merging": Phenomenon(merging.merging, merging.draw),
    "monotonic_interpolation": Phenomenon(
        monotonic_interpolation.monotonic_interpolation, monotonic_interpolation.draw
    ),
    "curvature": Phenomenon(curvature.curvature, curvature.draw),
    "geometry": Phenomenon(geometry.geometry, geometry.draw),
    "planes": Phenomenon(planes.planes, planes.draw),
    "optimisation": Phenomenon(optimisation.optimisation, optimisation.draw),
}
