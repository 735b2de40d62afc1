"""Loss and accuracy along straight lines in weight space, for many lines at once."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import bootstrap
from torch import Tensor

from metanets.metrics import Estimate
from zoo.data import Data
from zoo.errors import TaskError
from zoo.seeds import rng_for
from zoo.stack import Stack
from zoo.store import Zoo

Curves = Float[np.ndarray, "lines points"]
Change = Callable[[Stack, tuple[Stack, Stack], Float[Tensor, " networks"]], Stack]


def trained_networks(zoo: Zoo, treatment: str, least: int) -> Int[np.ndarray, " networks"]:
    """Return which networks have not diverged.

    Raises:
        TaskError: if they are fewer than `least`.
    """
    return _enough(zoo, treatment, zoo.index(treatment), "trained", least)


def good_networks(zoo: Zoo, treatment: str, least: int) -> Int[np.ndarray, " networks"]:
    """Return which networks are worth connecting or merging.

    All trained ones of replicas; where hyperparameters differ, those of at least the median train accuracy.

    Raises:
        TaskError: if they are fewer than `least`.
    """
    index = zoo.index(treatment)
    if any(np.ptp(values) > 0 for values in zoo.group(treatment, "hyperparameters").values()):
        accuracy = zoo.field(treatment, "metrics/train_accuracy")[index]
        index = index[accuracy >= np.median(accuracy)] if len(index) else index
    return _enough(zoo, treatment, index, "good", least)


def _enough(
    zoo: Zoo, treatment: str, index: Int[np.ndarray, " networks"], kind: str, least: int
) -> Int[np.ndarray, " networks"]:
    if len(index) < least:
        raise TaskError(
            f"{zoo.folder}: {treatment} has {len(index)} {kind} networks; {least} or more are needed: "
            f"asymzoo zoo generate {zoo.recipe.name} with more --pairs"
        )
    return index


def interpolate(a: Stack, b: Stack, points: int) -> Stack:
    """Return the stack of `(1 - t) a + t b`: all points of the first line, then of the next."""
    t = torch.linspace(0, 1, points)[:, None]
    rows = (1 - t) * a.rows[:, None] + t * b.rows[:, None]  # (lines, points, P)
    return Stack(rows.flatten(0, 1), a.module, a.layout)


def measure_lines(
    a: Stack,
    b: Stack,
    data: Data,
    points: int,
    *,
    splits: Sequence[Literal["train", "test"]] = ("train", "test"),
    change: Change | None = None,
) -> dict[str, Curves]:
    """Measure lines from the networks of `a` to those of `b`.

    Arguments:
        a, b: the ends, one of each for every line.
        data: to measure on.
        points: on a line, both ends included.
        splits: of the data.
        change: what is done to the networks of the lines first, told their ends and places.

    Returns:
        `train_loss`, `train_accuracy`, `test_loss` and `test_accuracy`, of the splits asked for.
    """
    stack = interpolate(a, b, points)
    if change is not None:
        ends = [Stack(end.rows.repeat_interleave(points, 0), end.module, end.layout) for end in (a, b)]
        stack = change(stack, (ends[0], ends[1]), torch.linspace(0, 1, points).repeat(len(a)))
    of = {"train": (data.train_x, data.train_y), "test": (data.test_x, data.test_y)}
    measured = stack.evaluate_splits(*(of[split] for split in splits))
    return {
        f"{split}_{name}": values.view(-1, points).numpy()
        for split, own in zip(splits, measured, strict=True)
        for name, values in own._asdict().items()
    }


def as_loss(name: str, curves: Curves) -> Curves:
    """Turn accuracies, so that what is lost is above the line for all curves."""
    return -curves if name.endswith("accuracy") else curves


def excess(curves: Curves) -> Curves:
    """Return what the loss has above the straight line between its ends."""
    t = np.linspace(0, 1, curves.shape[1])
    return curves - ((1 - t) * curves[:, :1] + t * curves[:, -1:])


def barrier(curves: Curves) -> Float[np.ndarray, " lines"]:
    """Return the largest excess of each line, at least 0 because the ends have none."""
    return excess(curves).max(1)


def mean_interval(values: Float[np.ndarray, " lines"]) -> Estimate:
    """Return the mean over lines with its 95 % bootstrap interval."""
    if np.ptp(values) < 1e-12:  # the same but for rounding, of which BCa makes nan
        return Estimate(*[float(values[0])] * 3)
    interval = bootstrap((values,), np.mean, method="BCa", rng=rng_for(0, "bootstrap")).confidence_interval
    return Estimate(float(values.mean()), float(interval.low), float(interval.high))
