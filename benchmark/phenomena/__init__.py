"""What symmetry does to everything else, one phenomenon a file: how it is measured, and how it is drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmark.findings import Finding
from benchmark.phenomena import (
    bayesian,
    curvature,
    geometry,
    merging,
    mode_connectivity,
    monotonic_interpolation,
    optimisation,
    planes,
)
from zoo.data import Data
from zoo.engines import Advance, run_in_processes
from zoo.store import Zoo


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
    "bayesian": Phenomenon(bayesian.bayesian, bayesian.draw),
}


@dataclass(frozen=True)
class Job:
    """A phenomenon, a key of `PHENOMENA`, under one treatment."""

    phenomenon: str
    zoo: Zoo
    treatment: str
    data: Data


def measure(phenomenon: str, zoo: Zoo, data: Data, *, workers: int = 1, advance: Advance) -> list[Finding]:
    """Measure a phenomenon under every treatment of a zoo.

    Arguments:
        phenomenon: a key of `PHENOMENA`.
        zoo: whose networks.
        data: that they are measured on.
        workers: processes, of one thread each.
        advance: called with numbers of treatments that have been measured, and with words on how it goes.

    Returns:
        The findings in the order of treatments.

    Raises:
        TaskError: if the zoo has too few networks.
    """
    jobs = [Job(phenomenon, zoo, treatment, data) for treatment in zoo.treatments]
    found = [finding for findings in run_in_processes(jobs, _measure, workers, advance) for finding in findings]
    return sorted(found, key=lambda finding: list(zoo.treatments).index(finding.treatment))


def _measure(job: Job, advance: Advance) -> Sequence[Finding]:
    def tell(progress: int | str) -> None:
        if isinstance(progress, str):
            advance(f"{job.treatment}: {progress}")

    findings = PHENOMENA[job.phenomenon].measure(job.zoo, job.treatment, job.data, progress=tell)
    advance(1)
    return findings
