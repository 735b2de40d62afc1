"""Fills the tables of a documentation page from stored results, so that no number is typed by hand.

A table stands under a comment that says what it shows:

    <!-- FILE METRIC -->                   a row for each metanetwork, a column for each treatment
    <!-- FILE METRIC ROWS COLUMNS -->      the same, by keys of `benchmark.metanetworks.LABELS`
    <!-- FILE costs -->                    parameters and seconds
    <!-- FILE MODEL less OTHER -->         differences between the metrics of two metanetworks

FILE is in `benchmark/results`; several files are joined by `+`. A table of a phenomenon has a row for each treatment:

    <!-- ZOO/FILE PATH … -->               a column for each path, such as `barriers.test_loss`
    <!-- ZOO/FILE PATH by FIELD -->        a column for each value of a field, such as `variant`
    <!-- ZOO/FILE FIELD=VALUE … -->        only findings whose field has that value
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.metanetworks import in_order, markdown, read_entries, tabulate, tabulate_costs, tabulate_differences
from zoo.errors import TaskError
from zoo.statistics import Estimate

RESULTS = Path(__file__).parent / "results"
COMMENT = re.compile(r"(<!-- (\S+\.json) (.+?) -->\n)(?:\|.*\n)*")


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
    cells: dict[str, dict[str, str]] = {}  # treatment, column
    match [word for word in words if "=" not in word]:
        case [place, "by", field]:
            for finding in findings:
                if text := _read(finding, place):
                    cells.setdefault(finding["treatment"], {})[f"{field} {finding[field]}"] = text
            if not cells:
                raise TaskError(f"{path}: {place}: no finding has it")
        case places:
            cells = {finding["treatment"]: {place: _read(finding, place) for place in places} for finding in findings}
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    if nowhere := [column for column in columns if not any(row.get(column) for row in cells.values())]:
        raise TaskError(f"{path}: {nowhere[0]}: no finding has it")
    rows = [[treatment, *(row.get(column, "") for column in columns)] for treatment, row in cells.items()]
    return markdown([["", *columns], *rows])


def _read(finding: Any, place: str) -> str:
    """Return the value at a place in a finding as text; empty if there is no such place or no value."""
    for part in place.split("."):
        if isinstance(finding, dict) and part not in finding:
            return ""
        finding = finding[int(part)] if isinstance(finding, list) else finding[part]
    if finding is None:
        return ""
    if isinstance(finding, dict):
        return str(Estimate(**finding))
    return f"{finding:.3g}" if isinstance(finding, float) else str(finding)
