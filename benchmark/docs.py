"""Fills the tables of a page of documentation from the results that are kept, so that no figure is typed.

A table stands under a comment that says what it shows:

    <!-- FILE METRIC -->                   a row for each metanetwork, a column for each treatment
    <!-- FILE METRIC ROWS COLUMNS -->      the same, by keys of `benchmark.metanetworks.LABELS`
    <!-- FILE costs -->                    parameters and seconds
    <!-- FILE MODEL less OTHER -->         how much more one metanetwork reaches than another

with FILE in `benchmark/results`, or several joined by `+`.
"""

import re
from pathlib import Path

from benchmark.metanetworks import in_order, read_entries, tabulate, tabulate_costs, tabulate_differences
from zoo.errors import TaskError

RESULTS = Path(__file__).parent / "results"
COMMENT = re.compile(r"(<!-- (\S+\.json) (.+?) -->\n)(?:\|.*\n)*")


def fill(page: str) -> str:
    """Return a page with its tables as the results now are.

    Raises:
        TaskError: if a file is missing or is none of results.
    """
    return COMMENT.sub(lambda found: f"{found[1]}{_table(found[2], *found[3].split())}\n", page)


def _table(files: str, *words: str) -> str:
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
