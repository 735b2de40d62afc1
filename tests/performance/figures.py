"""Figures of the benchmark: stored as JSON, compared with stored ones, and shown as tables."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmark.docs import COMMENT
from benchmark.metanetworks import markdown

FORMATS = {
    "ratio": "{:.3g}×",
    "fraction": "{:.1%}",
    "seconds": "{:.2g} s",
    "a second": "{:.3g}",
    "GB a second": "{:.2g}",
}
ALLOWED = 1.15  # how many times as long something may take before it counts as slower


@dataclass(frozen=True)
class Figure:
    """What was measured in some rounds.

    Arguments:
        unit: Key of `FORMATS`. Of a `ratio`, more is faster; a `fraction` is that of the time which is lost.
        rounds: Value of each round.
    """

    unit: str
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, unit: str, rounds: Iterable[float]) -> "Figure":
        """Return a figure of four digits."""
        return cls(unit, tuple(float(f"{value:.4g}") for value in rounds))

    @property
    def median(self) -> float:
        """Median of the rounds."""
        return median(self.rounds)

    @property
    def speed(self) -> float | None:
        """What can be compared between runs: a number that grows with the speed; None for plain seconds and rates."""
        return {"ratio": self.median, "fraction": 1 - self.median}.get(self.unit)

    def __str__(self) -> str:
        return FORMATS[self.unit].format(self.median)


Section = Mapping[str, Mapping[str, Figure | None]]  # figures by case, then by what was measured; None if not possible
Sections = Mapping[str, Section]


def to_json(sections: Sections) -> dict[str, Any]:
    """Return figures as values that JSON can hold."""

    def values(figure: Figure | None) -> dict[str, Any] | None:
        return figure and {"unit": figure.unit, "median": figure.median, "rounds": list(figure.rounds)}

    return {
        name: {case: {what: values(figure) for what, figure in row.items()} for case, row in section.items()}
        for name, section in sections.items()
    }


def from_json(stored: Mapping[str, Any]) -> Sections:
    """Return the figures that `to_json` gave."""

    def figure(values: Mapping[str, Any] | None) -> Figure | None:
        return values and Figure(values["unit"], tuple(values["rounds"]))

    return {
        name: {case: {what: figure(values) for what, values in row.items()} for case, row in section.items()}
        for name, section in stored.items()
    }


def name_slower(before: Sections, now: Sections) -> list[str]:
    """Return a line for each figure that is more than 15 % slower than before, or is not there any more."""
    lines = []
    for name, section in before.items():
        for case, row in section.items():
            for what, old in row.items():
                new = now.get(name, {}).get(case, {}).get(what)
                place = f"{name}, {case}, {what}"
                if old is None or old.speed is None:
                    continue
                if new is None or new.speed is None:
                    lines.append(f"{place}: was {old}, is not measured any more")
                elif new.speed * ALLOWED < old.speed:
                    lines.append(f"{place}: was {old}, is {new}")
    return lines


def tabulate(section: Section) -> str:
    """Return a table with a row for each case."""
    columns = list(dict.fromkeys(what for row in section.values() for what in row))
    cells = ([case, *(str(row.get(what) or "–") for what in columns)] for case, row in section.items())
    return markdown([["", *columns], *cells])


def fill(page: str, stored: Mapping[str, Any]) -> str:
    """Return a page whose tables under `<!-- performance.json SECTION -->` are filled from the content of that file.

    The section `made` is where the figures were measured.
    """

    def table(name: str) -> str:
        if name == "made":
            shown = {key: stored["made"][key] for key in ("date", "processor", "torch", "numba")}
            return markdown([list(shown), list(shown.values())])
        return tabulate(from_json(stored["figures"])[name])

    return COMMENT.sub(lambda found: f"{found[1]}{table(found[3])}\n", page)
