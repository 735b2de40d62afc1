"""What symmetry does to everything else, one phenomenon a file: how it is measured, and how it is drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmark.figures import Figure
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
from zoo.errors import AsymZooError
from zoo.store.zoo import Zoo
from zoo.training.engines import Advance, run_in_processes


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


def measure(
    phenomenon: str,
    zoo: Zoo,
    data: Data,
    *,
    workers: int = 1,
    advance: Advance,
    left_out: Callable[[str, AsymZooError], object] = lambda treatment, error: None,
) -> list[Finding]:
    """Measure a phenomenon under every treatment of a zoo.

    Arguments:
        phenomenon: a key of `PHENOMENA`.
        zoo: whose networks.
        data: that they are measured on.
        workers: processes, of one thread each.
        advance: called with numbers of treatments that have been measured, and with words on how it goes.
        left_out: called with each treatment that cannot be measured, and why, if others can.

    Returns:
        The findings in the order of treatments.

    Raises:
        TaskError: if no treatment can be measured, as with too few networks.
    """
    jobs = [Job(phenomenon, zoo, treatment, data) for treatment in zoo.treatments]
    done = list(run_in_processes(jobs, _measure, workers, advance))
    errors = {treatment: result for treatment, result in done if isinstance(result, AsymZooError)}
    if len(errors) == len(jobs):
        raise errors[zoo.treatments[0]]
    for treatment in filter(errors.get, zoo.treatments):
        left_out(treatment, errors[treatment])
    found = [finding for _, result in done if not isinstance(result, AsymZooError) for finding in result]
    return sorted(found, key=lambda finding: list(zoo.treatments).index(finding.treatment))


def _measure(job: Job, advance: Advance) -> tuple[str, Sequence[Finding] | AsymZooError]:
    """Return what a treatment is like, or why it cannot be measured."""

    def tell(progress: int | str) -> None:
        if isinstance(progress, str):
            advance(f"{job.treatment}: {progress}")

    try:
        findings = PHENOMENA[job.phenomenon].measure(job.zoo, job.treatment, job.data, progress=tell)
    except AsymZooError as error:
        return job.treatment, error
    advance(1)
    return job.treatment, findings
