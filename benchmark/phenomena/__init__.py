"""What symmetry does to everything else: one phenomenon per file, with how it is measured and drawn."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any, Protocol

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
from benchmark.selection import trained
from zoo.data import Data
from zoo.errors import AsymZooError
from zoo.progress import Log, Progress, ignore
from zoo.store.networks import Networks
from zoo.store.zoo import Zoo
from zoo.training.workers import Report, run_in_processes

Measure = Callable[..., Sequence[Finding]]  # called with networks and data, and with `log=` if it takes that


class Phenomenon(Protocol):
    """A phenomenon, as a module with these two functions."""

    def measure(self, networks: Networks, data: Data, *, progress: Progress = ignore) -> Sequence[Finding]:
        """Measure it on the networks of one treatment.

        Arguments:
            networks: Networks of one treatment; those that diverged are left out.
            data: Data that the networks are measured on.
            progress: Function that is called with the number of networks, lines, ... just measured.

        Raises:
            TaskError: If it cannot be measured on these networks, for example because they are too few.
        """
        ...

    def draw(self, findings: Sequence[Any]) -> Figure:
        """Draw findings of one or more treatments."""
        ...


PHENOMENA: dict[str, Phenomenon] = {
    "mode_connectivity": mode_connectivity,
    "merging": merging,
    "monotonic_interpolation": monotonic_interpolation,
    "curvature": curvature,
    "geometry": geometry,
    "planes": planes,
    "optimisation": optimisation,
    "bayesian": bayesian,
}

LEAST = 2  # networks that a treatment needs to be measured


@dataclass(frozen=True)
class PhenomenonJob:
    """A phenomenon to measure on the networks of one treatment."""

    measure: Measure
    networks: Networks
    data: Data


def warn_left_out(treatment: str, error: AsymZooError) -> None:
    """Warn that a treatment is left out, and why."""
    warnings.warn(f"left out: {treatment}: {error}", stacklevel=3)


def run(
    measure: Measure,
    zoo: Zoo,
    data: Data,
    *,
    workers: int = 1,
    progress: Progress = ignore,
    log: Log = ignore,
    left_out: Callable[[str, AsymZooError], object] = warn_left_out,
) -> list[Finding]:
    """Measure a phenomenon under every treatment of a zoo, on the pairs that trained under all of them.

    A treatment with fewer than two trained networks is left out, and does not restrict the pairs of the others.

    Arguments:
        measure: Function `measure(networks, data)` that returns findings, such as `measure` of a phenomenon or your
            own. With several workers it must be importable: a function of a module, not one inside another function.
        zoo: Zoo whose networks are measured.
        data: Data that the networks are measured on.
        workers: Number of processes, of one thread each.
        progress: Function that is called with the number of treatments just measured.
        log: Function that is called with the lines of text that `measure` reports, each prefixed by the treatment.
        left_out: Function that is called with each treatment that cannot be measured, and the error, if others can.

    Returns:
        Findings in the order of treatments.

    Raises:
        TaskError: If no treatment can be measured, for example because it has too few networks.
    """
    results: dict[str, Sequence[Finding] | AsymZooError] = {}
    for treatment in zoo.treatments:
        try:
            trained(zoo[treatment], LEAST)
        except AsymZooError as error:
            results[treatment] = error
    if measurable := [treatment for treatment in zoo.treatments if treatment not in results]:
        jobs = [PhenomenonJob(measure, networks, data) for networks in zoo.paired(*measurable)]
        results |= run_in_processes(jobs, _measure, workers, partial(_pass_on, progress=progress, log=log))
    errors = {treatment: result for treatment, result in results.items() if isinstance(result, AsymZooError)}
    if len(errors) == len(zoo.treatments):
        raise errors[zoo.treatments[0]]
    findings: list[Finding] = []
    for treatment in zoo.treatments:
        result = results[treatment]
        if isinstance(result, AsymZooError):
            left_out(treatment, result)
        else:
            findings += result
    return findings


def _pass_on(report: int | str, progress: Progress, log: Log) -> None:
    """Pass on a report of a worker: the number of treatments that it has measured, or a line of text."""
    if isinstance(report, str):
        log(report)
    else:
        progress(report)


def _measure(job: PhenomenonJob, report: Report) -> tuple[str, Sequence[Finding] | AsymZooError]:
    """Return the findings of a treatment, or why it cannot be measured."""
    treatment = job.networks.treatment
    takes_log = "log" in signature(job.measure).parameters
    options = {"log": lambda line: report(f"{treatment}: {line}")} if takes_log else {}
    try:
        findings = job.measure(job.networks, job.data, **options)
    except AsymZooError as error:
        return treatment, error
    report(1)
    return treatment, findings
