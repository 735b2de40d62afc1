"""Means with 95 % bootstrap intervals.

Two kinds of bootstrap are used. `mean_interval` has one sample of independent values. There the BCa interval (Efron
1987, https://doi.org/10.1080/01621459.1987.10478410) covers better than the percentile interval. `estimate` and
`difference` resample seeds and networks together, for any metric. BCa needs one sample and its jackknife values, so
there the interval is the percentile interval.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from zoo.seeds import rng_for

RESAMPLES = 500  # bootstrap samples of `estimate` and `difference`

Vector = Float[np.ndarray, " networks"]
Metric = Callable[[Any, Any], float]  # takes targets and predictions


class Estimate(NamedTuple):
    """A mean and the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return text such as `0.512 [0.430, 0.601]`."""
        mean, low, high = (f"{value:.3f}".replace("-", "\N{MINUS SIGN}") for value in self)
        return f"{mean} [{low}, {high}]"


def mean_interval(values: Float[np.ndarray, " values"]) -> Estimate:
    """Return the mean of independent values with its BCa bootstrap interval."""
    if np.ptp(values) < 1e-12:  # equal up to rounding, where BCa returns NaN
        return Estimate(*[float(values[0])] * 3)
    from scipy.stats import bootstrap

    interval = bootstrap((values,), np.mean, method="BCa", rng=rng_for(0, "bootstrap")).confidence_interval
    return Estimate(float(values.mean()), float(interval.low), float(interval.high))


def estimate(
    metric: Metric, true: Shaped[np.ndarray, " networks"], predicted: Float[np.ndarray, "seeds networks *classes"]
) -> Estimate:
    """Return the mean of a metric over seeds, with its percentile bootstrap interval.

    Each bootstrap sample resamples the networks and picks one seed at random, so the interval is that of one training.
    """
    rng = rng_for(0, "bootstrap")
    seeds, networks = predicted.shape[:2]
    resampled = []
    for _ in range(RESAMPLES):
        index = rng.integers(networks, size=networks)
        resampled.append(metric(true[index], predicted[rng.integers(seeds), index]))
    return _interval(float(np.mean([metric(true, p) for p in predicted])), resampled)


def difference(
    metric: Metric,
    true: Vector,
    predicted: Float[np.ndarray, "seeds networks"],
    other: Float[np.ndarray, "_ networks"],
) -> Estimate:
    """Return the mean of a metric over seeds, less that of other predictions for the same networks.

    The percentile bootstrap interval resamples seeds and networks; both sides see the same networks in each sample.
    """
    rng = rng_for(0, "bootstrap")

    def mean_metric(predictions: Float[np.ndarray, "_ networks"], index: slice | np.ndarray) -> float:
        return float(np.mean([metric(true[index], p[index]) for p in predictions]))

    resampled = []
    for _ in range(RESAMPLES):
        index = rng.integers(len(true), size=len(true))
        first, second = (side[rng.integers(len(side), size=len(side))] for side in (predicted, other))
        resampled.append(mean_metric(first, index) - mean_metric(second, index))
    every = slice(None)
    return _interval(mean_metric(predicted, every) - mean_metric(other, every), resampled)


def _interval(mean: float, resampled: Sequence[float]) -> Estimate:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(mean, float(low), float(high))
