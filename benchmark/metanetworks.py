"""Evaluates metanetworks on treatments and tasks, and collects the results in one file.

In a table of the results, columns show which treatments make networks easier to read, and rows which metanetworks read
them better.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from benchmark.evidence import evidence
from metanets.evaluation import REFERENCES, Result, evaluate
from metanets.identity import identify
from metanets.inputs import READERS
from metanets.intervals import difference
from metanets.metrics import METRICS, SCALES
from metanets.models import MODELS
from metanets.settings import Settings
from metanets.tasks import Task
from metanets.training import begin, check_access, class_of
from zoo.errors import TaskError
from zoo.files import write_whole
from zoo.progress import Progress, ignore
from zoo.statistics import Estimate, describe
from zoo.store.zoo import Zoo
from zoo.training.workers import run_in_processes


@dataclass(frozen=True)
class EvaluationJob:
    """An evaluation to run: arguments of `metanets.evaluation.evaluate`."""

    zoo: Zoo
    task: Task
    model: str
    seeds: int

    def is_done_by(self, result: Result) -> bool:
        """Return whether a result is that of this job with the present settings of the model."""
        settings = Settings() if self.model in REFERENCES else MODELS[self.model].settings
        now = identify(self.task, self.zoo)
        return (result.model, result.seeds, result.task.digest, result.settings) == (
            self.model,
            self.seeds,
            self.task.digest,
            settings,
        ) and (result.data.recipe, result.data.pairs) == (now.recipe, now.pairs)

    def refusal(self) -> str | None:
        """Return why the metanetwork cannot read these networks; None if it can."""
        if self.model in REFERENCES:
            return None
        kind = class_of(self.model)
        networks = [self.zoo[treatment] for treatment in self.task.learn_from]
        try:
            check_access(kind, self.task)
            begin(kind, READERS[kind.reads].of(*networks), len(self.task.classes) or 1, kind.settings, 0)
        except TaskError as error:
            return str(error)
        return None


@dataclass(frozen=True)
class Entry:
    """A result and how it was made, see `benchmark.evidence.evidence`."""

    result: Result
    made: dict[str, str]


ENTRIES = TypeAdapter(list[Entry])


def read_entries(path: Path) -> list[Entry]:
    """Read a file of results; a file that does not exist has no entries.

    Raises:
        TaskError: If the file holds something else.
    """
    if not path.exists():
        return []
    try:
        return ENTRIES.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise TaskError(
            f"{path}: no results of metanetworks ({str(error).splitlines()[0]}); name another file"
        ) from None


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries sorted by model, references first, and by number of training networks."""
    rank = {model: place for place, model in enumerate([*REFERENCES, *MODELS])}
    return sorted(entries, key=lambda entry: (rank.get(entry.result.model, len(rank)), entry.result.networks["train"]))


def run_jobs(
    jobs: Sequence[EvaluationJob], path: Path, *, workers: int = 1, progress: Progress = ignore
) -> Iterator[Entry]:
    """Run jobs, and add each result to a file as soon as it is known.

    Arguments:
        jobs: Jobs whose metanetworks can read their networks.
        path: Path of the file. A result in it of the same model and task is replaced.
        workers: Number of processes, of one thread each.
        progress: Function that is called with the number of trainings just completed.
    """
    entries, made = read_entries(path), evidence()
    for result in run_in_processes(jobs, _evaluate, workers, progress):
        entries = [entry for entry in entries if _place(entry.result) != _place(result)]
        entry = Entry(result, made)
        entries = in_order([*entries, entry])
        write_whole(path, ENTRIES.dump_json(entries))
        yield entry


def _evaluate(job: EvaluationJob, progress: Progress) -> Result:
    return evaluate(job.task, job.zoo, job.model, seeds=job.seeds, progress=progress)


def _place(result: Result) -> tuple[object, ...]:
    return result.model, result.task.digest


LABELS: dict[str, Callable[[Result], str]] = {
    "model": lambda result: f"`{result.model}`",
    "task": lambda result: result.task.name,
    "treatment": lambda result: result.treatment,
    "tested": lambda result: f"{result.treatment}, tested on {result.tested_on}",
    "model_treatment": lambda result: f"`{result.model}`, {result.treatment}",
    "networks": lambda result: str(result.networks["train"]),
}


def tabulate(results: Sequence[Result], metric: str, rows: str = "model", columns: str = "treatment") -> str:
    """Return a Markdown table of means with intervals, and a line that says what varies within these.

    Arguments:
        results: Results to show.
        metric: Name of the metric.
        rows: Key of `LABELS` for the rows.
        columns: Key of `LABELS` for the columns.
    """
    found = {(LABELS[rows](result), LABELS[columns](result)): result.metrics[metric] for result in results}
    heads, sides = list(dict.fromkeys(column for _, column in found)), list(dict.fromkeys(row for row, _ in found))
    table = [["", *heads]] + [[side, *(str(found.get((side, head), "")) for head in heads)] for side in sides]
    return with_note(table, list(found.values()))


def tabulate_costs(results: Sequence[Result]) -> str:
    """Return a Markdown table of each model's parameters and mean seconds over treatments."""
    rows = [["", "parameters", "seconds a pass", "seconds a training"]]
    for model in dict.fromkeys(result.model for result in results if result.seconds):
        own = [result for result in results if result.model == model]
        epoch, training = (np.mean([result.seconds[name] for result in own]) for name in ("epoch", "training"))
        rows.append([f"`{model}`", f"{own[0].parameters:,}", f"{epoch:.3g}", f"{training:.3g}"])
    return markdown(rows)


def tabulate_differences(results: Sequence[Result], model: str, other: str) -> str:
    """Return a Markdown table of the metrics of one model less those of another, on the same test networks."""
    found = {(result.model, result.treatment): result for result in results}
    treatments = [t for m, t in found if m == model and (other, t) in found]
    gains = {name: [_gain(name, found[model, t], found[other, t]) for t in treatments] for name in METRICS}
    rows = [[f"`{name}`", *map(str, of_metric)] for name, of_metric in gains.items()]
    return with_note([[f"`{model}` less `{other}`", *treatments], *rows], [*chain(*gains.values())])


def tabulate_gains(results: Sequence[Result], treatment: str, other: str) -> str:
    """Return a Markdown table of each model's metrics under one treatment less those under another, on the same pairs.

    Raises:
        TaskError: If the two were tested on different pairs.
    """
    found = {(result.model, result.treatment): result for result in results}
    models = [m for m, t in found if t == treatment and (m, other) in found]
    gains = {m: [_gain(name, found[m, treatment], found[m, other]) for name in METRICS] for m in models}
    rows = [[f"`{model}`", *map(str, of_model)] for model, of_model in gains.items()]
    heads = [f"{treatment} less {other}", *(f"`{name}`" for name in METRICS)]
    return with_note([heads, *rows], [*chain(*gains.values())])


def _gain(metric: str, result: Result, other: Result) -> Estimate:
    """Return the difference of a metric of two results on the same test pairs."""
    if not result.pairs or result.pairs != other.pairs:
        raise TaskError(
            f"{other.model} on {other.task.name}: its test pairs are others than those on {result.task.name}"
        )
    (true, predicted), (other_true, others) = result.on_scale(), other.on_scale()
    return difference(METRICS[metric], true, predicted, others, other_true, scale=SCALES[metric])


def with_note(rows: Sequence[Sequence[str]], estimates: Sequence[Estimate]) -> str:
    """Return a Markdown table, and a line that says what varies within the brackets of its estimates."""
    note = describe(estimates)
    return f"{markdown(rows)}\n\n{note}" if note else markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose first row is its header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
