"""Findings of phenomena: their common interface, and how they are written as JSON."""

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from benchmark.evidence import evidence
from zoo.files import write_whole
from zoo.statistics import Estimate

DIGITS = 4


@runtime_checkable
class Finding(Protocol):
    """What was measured under one treatment; a dataclass."""

    @property
    def treatment(self) -> str:
        """Name of the networks' treatment."""
        ...

    def headline(self) -> str:
        """State the most important number in one line."""
        ...


def to_json(value: Any) -> Any:
    """Return dataclasses, arrays and estimates as JSON values; numbers in arrays have four significant digits.

    Values of estimates have seven, because differences are taken from them.
    """
    if isinstance(value, Estimate):
        return vars(value) | {"values": [float(f"{each:.7g}") for each in value.values]}
    if isinstance(value, np.ndarray):
        return [to_json(part) for part in value]
    if isinstance(value, np.floating):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, np.integer):
        return int(value)
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {name: to_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    return value


def write_findings(path: str | Path, phenomenon: str, findings: Sequence[Finding]) -> None:
    """Write findings, and how they were made, to a JSON file.

    Arguments:
        path: Path of the file.
        phenomenon: Name of the phenomenon, such as a key of `PHENOMENA`.
        findings: Findings to write.
    """
    values = {"made": evidence(), phenomenon: to_json(findings)}
    write_whole(Path(path), json.dumps(values, separators=(",", ":")).encode())
