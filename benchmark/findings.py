"""What all findings of phenomena have in common: a line for the terminal, and a form for JSON files."""

from dataclasses import fields, is_dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from metanets.metrics import Estimate

DIGITS = 4


@runtime_checkable
class Finding(Protocol):
    """What a phenomenon is like under a treatment; a dataclass."""

    @property
    def treatment(self) -> str:
        """Whose networks."""
        ...

    def headline(self) -> str:
        """Say the most important figure in one line."""
        ...


def to_json(value: Any) -> Any:
    """Return dataclasses, arrays and estimates as JSON values, numbers of arrays with four significant digits."""
    if isinstance(value, Estimate):
        return value._asdict()
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
