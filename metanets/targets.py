"""What is to be predicted of networks: a column, a quantity derived from columns, or the treatment."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from numpy.typing import NDArray

from metanets.tasks import TREATMENT
from zoo.errors import TaskError, nearest
from zoo.store.columns import Column
from zoo.store.networks import Networks

_GAP = Column(
    name="generalisation_gap",
    kind="metric",
    dtype="float32",
    unit="fraction",
    bounds=(-1.0, 1.0),
    meaning="Train accuracy minus test accuracy.",
)
# Quantities derived from columns: their description and how they are computed.
DERIVED: dict[str, tuple[Column, Callable[[Networks], NDArray[Any]]]] = {
    _GAP.name: (_GAP, lambda networks: networks["train_accuracy"] - networks["test_accuracy"]),
}


def describe_target(networks: Networks, target: str) -> Column:
    """Return the description of a numeric target.

    Raises:
        TaskError: If there is no such column, or it does not hold one number for each network.
    """
    if target in DERIVED:
        return DERIVED[target][0]
    if target == TREATMENT:
        raise TaskError(f"{target}: is a class, no number; `ZooRows.of(task, ...)` reads the classes of a task")
    place = f"{networks.zoo.folder}: {networks.treatment}"
    known = [name for name, column in networks.columns.items() if _is_number(column)]
    if target in known:
        return networks.columns[target]
    if target in networks.columns:
        raise TaskError(f"{place}: {target} is not one number for each network; choose one of {', '.join(known)}")
    near = nearest(target, [*known, *DERIVED, TREATMENT])
    raise TaskError(f"{place} has no target {target!r}{near}; it has {', '.join([*known, *DERIVED, TREATMENT])}")


def read_targets(networks: Networks, target: str) -> Float[np.ndarray, " networks"]:
    """Return the target of each network in its units, in double precision; NaN where it is missing or not finite.

    Raises:
        TaskError: If there is no such target.
    """
    describe_target(networks, target)
    values = DERIVED[target][1](networks) if target in DERIVED else networks[target]
    values = values.astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def to_scale(values: Float[np.ndarray, " networks"], column: Column) -> Float[np.ndarray, " networks"]:
    """Return targets on the scale of their column: logarithms, NaN for those not above 0, or the values themselves."""
    if column.scale == "linear":
        return values
    return np.log(values, where=values > 0, out=np.full_like(values, np.nan))


def to_units(values: Shaped[np.ndarray, "..."], column: Column | None) -> Shaped[np.ndarray, "..."]:
    """Return values in the units of their column, the inverse of `to_scale`; without a column they are unchanged."""
    return values if column is None or column.scale == "linear" else np.exp(values)


def _is_number(column: Column) -> bool:
    return column.width is None and column.dtype not in ("string", "bool") and column.kind != "id"
