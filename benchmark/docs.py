"""Fills the tables of a documentation page from stored results, so that no number is typed by hand.

A table stands under a comment that says what it shows:

    <!-- FILE METRIC -->                   a row for each metanetwork, a column for each treatment
    <!-- FILE METRIC ROWS COLUMNS -->      the same, by keys of `benchmark.metanetworks.LABELS`
    <!-- FILE costs -->                    parameters and seconds
    <!-- FILE MODEL less OTHER -->         differences between the metrics of two metanetworks
    <!-- FILE TREATMENT less OTHER -->     differences between the metrics of each metanetwork under two treatments

FILE is in `benchmark/results`; several files are joined by `+`. A table of a phenomenon has a row for each treatment:

    <!-- ZOO/FILE PATH … -->               a column for each path, such as `barriers.test_loss`
    <!-- ZOO/FILE PATH by FIELD -->        a column for each value of a field, such as `variant`
    <!-- ZOO/FILE FIELD=VALUE … -->        only findings whose field has that value
    <!-- ZOO/FILE … less TREATMENT -->     differences from another treatment over the same pairs

A table is followed by a line that says what varies within its brackets.

    python -m benchmark.docs docs/*.md     fills pages
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.metanetworks import (
    in_order,
    read_entries,
    tabulate,
    tabulate_costs,
    tabulate_differences,
    tabulate_gains,
    with_note,
)
from zoo.errors import TaskError
from zoo.statistics import Estimate, Times, paired

Cell = Estimate | Times | float | int | str | None
Cells = dict[str, dict[str, Cell]]  # by row and column
RESULTS = Path(__file__).parent / "results"
COMMENT = re.compile(r"(<!-- (\S+\.json) (.+?) -->\n)(?:\|.*\n)*(?:\nBrackets: .*\n)?")


def fill(page: str) -> str:
    """Return a page with its tables filled from the present results.

    Raises:
        TaskError: If a file is missing or holds no results.
    """
    return COMMENT.sub(lambda found: f"{found[1]}{_table(found[2], *found[3].split())}\n", page)


def _table(files: str, *words: str) -> str:
    if "/" in files:
        return _phenomenon(RESULTS / files, words)
    entries = []
    for file in files.split("+"):
        if not (found := read_entries(RESULTS / file)):
            raise TaskError(f"{RESULTS / file}: holds no results; see `asymzoo benchmark metanetworks`")
        entries += found
    results = [entry.result for entry in in_order(entries)]
    match words:
        case ["costs"]:
            return tabulate_costs(results)
        case [treatment, "less", other] if treatment in {result.treatment for result in results}:
            return tabulate_gains(results, treatment, other)
        case [model, "less", other]:
            return tabulate_differences(results, model, other)
        case _:
            return tabulate(results, *words)


def _phenomenon(path: Path, words: Sequence[str]) -> str:
    """Return a table of what `asymzoo benchmark run` wrote."""
    if not path.exists():
        raise TaskError(f"{path}: there are no such results; see `asymzoo benchmark run`")
    (findings,) = (value for name, value in json.loads(path.read_bytes()).items() if name != "made")
    for field, value in (word.split("=") for word in words if "=" in word):
        findings = [finding for finding in findings if str(finding[field]) == value]
    match [word for word in words if "=" not in word]:
        case [*places, "less", other]:
            _check_paired(path, findings, other)
            cells = _less(_cells(findings, places), other)
        case places:
            cells = _cells(findings, places)
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    if nowhere := [place for place in columns or places if all(row.get(place) is None for row in cells.values())]:
        raise TaskError(f"{path}: {nowhere[0]}: no finding has it")
    rows = [[name, *(_text(row.get(column)) for column in columns)] for name, row in cells.items()]
    shown = (_estimate(value) for row in cells.values() for value in row.values())
    return with_note([["", *columns], *rows], [value for value in shown if value is not None])


def _cells(findings: Sequence[Any], places: Sequence[str]) -> Cells:
    """Return the value in each row, of a treatment, and in each column."""
    cells: Cells = {}
    for finding in findings:
        row = cells.setdefault(finding["treatment"], {})
        match places:
            case [place, "by", field]:
                if (value := _read(finding, place)) is not None:
                    row[f"{field} {finding[field]}"] = value
            case _:
                row |= {place: _read(finding, place) for place in places}
    return cells


def _check_paired(path: Path, findings: Sequence[Any], other: str) -> None:
    """Raise a `TaskError` if findings of several treatments are not over the same pairs as those of another one."""
    if other not in {finding["treatment"] for finding in findings}:
        raise TaskError(f"{path}: there is no treatment {other}; name one that was measured")
    for field in ("networks", "couples", "groups"):
        known: dict[int, Any] = {}
        for finding in findings:
            pairs = finding.get(field)
            if isinstance(pairs, list) and known.setdefault(len(pairs), pairs) != pairs:
                raise TaskError(
                    f"{path}: {finding['treatment']}: its {field} are others than those of a treatment before"
                )


def _less(cells: Cells, other: str) -> Cells:
    """Return differences from the row of another treatment, where both have estimates."""
    rows: Cells = {}
    for treatment, row in cells.items():
        for column, value in row.items() if treatment != other else ():
            estimate, than = _estimate(value), _estimate(cells[other].get(column))
            if estimate is not None and than is not None:
                rows.setdefault(f"{treatment} less {other}", {})[column] = paired(estimate, than)
    return rows


def _estimate(value: Cell) -> Estimate | None:
    """Return the estimate in a cell; None if there is none."""
    if isinstance(value, Times):
        return value.mean
    return value if isinstance(value, Estimate) else None


def _read(finding: dict[str, Any], place: str) -> Cell:
    """Return the value at a place in a finding; None if there is no such place or no value."""
    value: Any = finding
    for part in place.split("."):
        if isinstance(value, dict) and part not in value:
            return None
        value = value[int(part)] if isinstance(value, list) else value[part]
    if isinstance(value, dict) and "varies" not in value:
        return _stored_before(finding, place, value["mean"])
    if isinstance(value, dict):
        return (Times if "limit" in value else Estimate)(**value | {"values": tuple(value["values"])})
    return value


def _stored_before(finding: dict[str, Any], place: str, mean: float) -> Cell:
    """Return what holds of a value from before estimates said what varies: its mean, but of censored ones a count."""
    if place == "steps_needed" and finding["succeeded"] < len(finding["networks"]):
        return f"{finding['succeeded']} of {len(finding['networks'])}"
    return mean


def _text(value: Cell) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(fill(page.read_text()))
