"""Intervals of metrics of metanetworks, in which test networks and trainings vary."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from zoo import statistics
from zoo.seeds import rng_for
from zoo.statistics import Estimate, draw_means, with_bounds

Metric = Callable[[Any, Any], float]  # takes targets and predictions


class Scale(NamedTuple):
    """A scale on which draws of a metric are nearly normal: a function to it, and one back."""

    to: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


LINEAR = Scale(np.asarray, np.asarray)


def estimate(
    metric: Metric,
    true: Shaped[np.ndarray, " networks"],
    predicted: Float[np.ndarray, "trainings networks *classes"],
    scale: Scale = LINEAR,
) -> Estimate:
    """Return the mean of a metric over trainings of a metanetwork, where test networks and trainings vary.

    With one or two trainings only the test networks vary. See `zoo.statistics.crossed`.

    Coverage with one training, for normal targets and errors: of R^2 and of the RMSE on logarithmic scales .93 or more
    from 35 test networks on. Where a few networks make up most of the squared errors, as in real zoos, it is .6 to .9
    with 35 to 99 test networks. Of Kendall's tau it is .95 or more there, too.

    Arguments:
        metric: The metric.
        true: Targets of the networks.
        predicted: Predictions of each training.
        scale: Scale on which the interval is found.
    """
    values = _of_trainings(metric, true, predicted)
    found = Estimate(float(values[0].mean()), None, None, len(true), _varies(predicted), "crossed", ())
    return with_bounds(found, _draws(values, len(true), 0, scale))


def difference(
    metric: Metric,
    true: Shaped[np.ndarray, " networks"],
    predicted: Float[np.ndarray, "trainings networks *classes"],
    other: Float[np.ndarray, "_ networks *classes"],
    other_true: Shaped[np.ndarray, " networks"] | None = None,
    *,
    scale: Scale = LINEAR,
) -> Estimate:
    """Return the mean of a metric over trainings, less that of other predictions for the same networks or their pairs.

    Both sides have the same test networks, or networks of the same pairs, in each resample.

    Arguments:
        metric: The metric.
        true: Targets of the networks.
        predicted: Predictions of each training.
        other: Predictions of other trainings.
        other_true: Targets that these predict, if they are others.
        scale: Scale on which the draws of each side are made.
    """
    values = _of_trainings(metric, true, predicted)
    others = _of_trainings(metric, true if other_true is None else other_true, other)
    mean = float(values[0].mean() - others[0].mean())
    found = Estimate(mean, None, None, len(true), _varies(predicted, other), "crossed", ())
    return with_bounds(found, _draws(values, len(true), 0, scale) - _draws(others, len(true), 1, scale))


def _varies(*sides: np.ndarray) -> str:
    """Return what varies, given the predictions of each training on one side or on two."""
    trainings = " and ".join(dict.fromkeys(str(len(side)) for side in sides if len(side) > 2))
    return f"test networks and {trainings} trainings" if trainings else "test networks"


def _draws(
    values: Float[np.ndarray, "resamples trainings"], networks: int, side: int, scale: Scale
) -> Float[np.ndarray, " draws"]:
    """Return draws of the mean over trainings, made on a scale."""
    return scale.back(draw_means(scale.to(values.mean(1)), scale.to(values[0]), networks, side))


def _of_trainings(metric: Metric, true: np.ndarray, predicted: np.ndarray) -> Float[np.ndarray, "resamples trainings"]:
    """Return the metric of each training, first on all test networks, then on each resample of them."""
    resampled = rng_for(0, "bootstrap").integers(len(true), size=(statistics.RESAMPLES, len(true)))
    chosen = [np.arange(len(true)), *resampled]
    return np.array([[metric(true[index], p[index]) for p in predicted] for index in chosen])
