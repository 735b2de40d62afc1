"""Linear mode connectivity: is the loss low all the way between two trained networks?

Source: Frankle, Dziugaite, Roy, Carbin 2020; Lim et al. 2024, Table 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import bootstrap

from metanets.metrics import Estimate
from zoo.data import Data
from zoo.errors import TaskError
from zoo.seeds import rng_for
from zoo.stack import Stack, stack_size
from zoo.store import Zoo

POINTS = 25
Curves = Float[np.ndarray, "couples points"]


@dataclass(frozen=True)
class ModeConnectivity:
    """Loss and accuracy along the lines between couples of networks.

    Attributes:
        treatment: whose networks.
        couples: `(couples, 2)`, which.
        curves: `train_loss`, `test_accuracy` and so on, each `(couples, points)`.
        barriers: for each curve, mean over couples with its 95 % interval, see `barrier`.
        midpoints: the same in the middle of the line.
        zoo: name and digest of the zoo's recipe.
    """

    treatment: str
    couples: list[tuple[int, int]]
    curves: dict[str, Curves]
    barriers: dict[str, Estimate]
    midpoints: dict[str, Estimate]
    zoo: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "treatment": self.treatment,
            "couples": self.couples,
            "curves": {name: curves.astype(float).round(6).tolist() for name, curves in self.curves.items()},
            "barriers": {name: estimate._asdict() for name, estimate in self.barriers.items()},
            "midpoints": {name: estimate._asdict() for name, estimate in self.midpoints.items()},
            "zoo": self.zoo,
        }


def mode_connectivity(
    zoo: Zoo,
    treatment: str,
    data: Data,
    *,
    points: int = POINTS,
    progress: Callable[[int], None] = lambda couples: None,
) -> ModeConnectivity:
    """Measure the lines between replicas: pairs 0 and 1, 2 and 3, and so on, each network in one couple.

    Arguments:
        zoo: of a recipe whose networks differ in nothing but their seeds.
        treatment: whose networks.
        data: to measure on, both splits.
        points: on a line, both ends included; odd, so that the middle is one.
        progress: called with the number of couples just done.

    Raises:
        TaskError: if there are fewer than two couples of trained networks.
    """
    index = zoo.index(treatment)
    couples = index[: len(index) // 2 * 2].reshape(-1, 2)
    if len(couples) < 2:
        raise TaskError(f"{zoo.folder}: {treatment} has {len(index)} trained networks; four or more are needed")
    treated = zoo.treated(treatment)
    parts: list[dict[str, Curves]] = []
    portion = max(1, stack_size(treated.module, treated.layout, "cpu") // points)
    for some in np.split(couples, range(portion, len(couples), portion)):
        stack = interpolate(zoo.stack(treatment, some[:, 0]), zoo.stack(treatment, some[:, 1]), points)
        measured = {
            "train": stack.evaluate(data.train_x, data.train_y),
            "test": stack.evaluate(data.test_x, data.test_y),
        }
        parts.append(
            {
                f"{split}_{name}": getattr(evaluation, name).reshape(-1, points).numpy()
                for split, evaluation in measured.items()
                for name in ("loss", "accuracy")
            }
        )
        progress(len(some))
    curves = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return ModeConnectivity(
        treatment=treatment,
        couples=[(int(a), int(b)) for a, b in couples],
        curves=curves,
        barriers={name: mean_interval(barrier(_as_loss(name, c))) for name, c in curves.items()},
        midpoints={name: mean_interval(excess(_as_loss(name, c))[:, points // 2]) for name, c in curves.items()},
        zoo={"name": zoo.recipe.name, "digest": zoo.manifest.digest},
    )


def interpolate(a: Stack, b: Stack, points: int) -> Stack:
    """Return the stack of `(1 - t) a + t b`: all points of the first couple, then of the next."""
    t = torch.linspace(0, 1, points)[:, None]
    rows = (1 - t) * a.rows[:, None] + t * b.rows[:, None]  # (couples, points, P)
    return Stack(rows.flatten(0, 1), a.module, a.layout)


def excess(curves: Curves) -> Curves:
    """Return what the loss has above the straight line between its ends."""
    t = np.linspace(0, 1, curves.shape[1])
    return curves - ((1 - t) * curves[:, :1] + t * curves[:, -1:])


def barrier(curves: Curves) -> Float[np.ndarray, " couples"]:
    """Return the largest excess of each line, at least 0 because the ends have none."""
    return excess(curves).max(1)


def mean_interval(values: Float[np.ndarray, " couples"]) -> Estimate:
    """Return the mean over couples with its 95 % bootstrap interval."""
    if np.ptp(values) < 1e-12:  # the same but for rounding, of which BCa makes nan
        return Estimate(*[float(values[0])] * 3)
    interval = bootstrap((values,), np.mean, method="BCa", rng=rng_for(0, "bootstrap")).confidence_interval
    return Estimate(float(values.mean()), float(interval.low), float(interval.high))


def _as_loss(name: str, curves: Curves) -> Curves:
    return -curves if name.endswith("accuracy") else curves
