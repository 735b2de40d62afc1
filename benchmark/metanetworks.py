"""How well metanetworks read networks: every model on every treatment, in one file of results that grows.

A treatment that makes networks easier to read shows in its column, a metanetwork that reads them better in its row.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from benchmark.evidence import evidence
from metanets.datasets import split_index
from metanets.evaluation import REFERENCES, Result, evaluate_model
from metanets.inputs import READERS
from metanets.metrics import METRICS
from metanets.models import MODELS
from metanets.settings import Settings
from zoo.errors import TaskError
from zoo.files import write_whole
from zoo.statistics import difference
from zoo.store.zoo import Zoo
from zoo.training.engines import Advance, run_in_processes


@dataclass(frozen=True)
class Job:
    """An entry to be: arguments of `metanets.evaluation.evaluate_model`."""

    zoo: Zoo
    treatment: str
    model: str
    task: str
    seeds: int
    train_networks: int | None = None
    test_on: str | None = None

    def is_done_by(self, result: Result) -> bool:
        """Whether a result is of this zoo, these networks and the settings as they now are."""
        return (
            result.zoo["digest"] == self.zoo.manifest.digest
            and (result.treatment, result.model, result.task, result.seeds)
            == (self.treatment, self.model, self.task, self.seeds)
            and result.tested_on == (self.test_on or self.treatment)
            and result.networks["train"] == len(split_index(self.zoo, self.treatment, "train", self.train_networks))
            and result.settings == Settings.best(self.model, self.task)
        )

    def refusal(self) -> str | None:
        """Return why the metanetwork cannot read such networks, if so."""
        if self.model in MODELS:
            kind = MODELS[self.model]
            try:
                kind(READERS[kind.reads].of(self.zoo.treated(self.treatment)))
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
    """Read a file of results; of none, no entries.

    Raises:
        TaskError: if it is something else.
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
    """Return entries model by model, references first, whatever the order in which they came."""
    rank = {model: place for place, model in enumerate([*REFERENCES, *MODELS])}
    return sorted(entries, key=lambda entry: (rank.get(entry.result.model, len(rank)), entry.result.networks["train"]))


def measure(jobs: Sequence[Job], path: Path, *, workers: int = 1, advance: Advance) -> Iterator[Entry]:
    """Run the jobs whose results a file does not hold; add each result to it at once.

    Arguments:
        jobs: whose metanetworks can read their networks.
        path: of the file. What it holds of jobs whose settings have since changed is replaced.
        workers: processes, of one thread each.
        advance: called with numbers of trainings that have come to their end.
    """
    entries, made = read_entries(path), evidence()
    for result in run_in_processes(jobs, _evaluate, workers, advance):
        entries = [entry for entry in entries if _place(entry.result) != _place(result)]
        entry = Entry(result, made)
        entries = in_order([*entries, entry])
        write_whole(path, ENTRIES.dump_json(entries))
        yield entry


def _evaluate(job: Job, advance: Advance) -> Result:
    return evaluate_model(
        job.zoo,
        job.treatment,
        job.model,
        task=job.task,
        seeds=job.seeds,
        train_networks=job.train_networks,
        test_on=job.test_on,
        progress=advance,
    )[0]


def _place(result: Result) -> tuple[object, ...]:
    zoo, networks = result.zoo["name"], result.networks["train"]
    return zoo, result.treatment, result.model, result.task, result.tested_on, networks


LABELS: dict[str, Callable[[Result], str]] = {
    "model": lambda result: f"`{result.model}`",
    "treatment": lambda result: result.treatment,
    "tested": lambda result: f"{result.treatment}, tested on {result.tested_on}",
    "model_treatment": lambda result: f"`{result.model}`, {result.treatment}",
    "networks": lambda result: str(result.networks["train"]),
}


def tabulate(results: Sequence[Result], metric: str, rows: str = "model", columns: str = "treatment") -> str:
    """Return a table in Markdown of means with intervals, rows and columns being keys of `LABELS`."""
    found = {(LABELS[rows](result), LABELS[columns](result)): result.metrics[metric] for result in results}
    heads, sides = list(dict.fromkeys(column for _, column in found)), list(dict.fromkeys(row for row, _ in found))
    return markdown([["", *heads]] + [[side, *(str(found.get((side, head), "")) for head in heads)] for side in sides])


def tabulate_costs(results: Sequence[Result]) -> str:
    """Return a table in Markdown of each model's parameters and seconds, the mean over treatments."""
    rows = [["", "parameters", "seconds a pass", "seconds a training"]]
    for model in dict.fromkeys(result.model for result in results if result.seconds):
        own = [result for result in results if result.model == model]
        epoch, training = (np.mean([result.seconds[name] for result in own]) for name in ("epoch", "training"))
        rows.append([f"`{model}`", f"{own[0].parameters:,}", f"{epoch:.3g}", f"{training:.3g}"])
    return markdown(rows)


def tabulate_differences(results: Sequence[Result], model: str, other: str) -> str:
    """Return a table in Markdown of how much more a model reaches than another on the same test networks."""
    found = {(result.model, result.treatment): result for result in results}
    treatments = [t for m, t in found if m == model and (other, t) in found]
    rows = [[f"`{model}` less `{other}`", *treatments]]
    for name, metric in METRICS.items():
        couples = [(found[model, t], found[other, t]) for t in treatments]
        gains = [difference(metric, *(np.array(x) for x in (a.true, a.predicted, b.predicted))) for a, b in couples]
        rows.append([f"`{name}`", *map(str, gains)])
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, its heads first."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
