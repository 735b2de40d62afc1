"""Means with 95 % intervals, by the bootstrap.

There are two, since they answer two questions. `mean_interval` has one sample of independent values, where BCa
(Efron 1987, https://doi.org/10.1080/01621459.1987.10478410) covers better than percentiles. `estimate` and `difference`
resample seeds and networks together and take any metric; BCa needs one sample and its jackknife, so percentiles serve.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from zoo.seeds import rng_for

RESAMPLES = 500

Vector = Float[np.ndarray, " networks"]
Metric = Callable[[Vector, Vector], float]


class Estimate(NamedTuple):
    """A mean with the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Write it as `0.512 [0.430, 0.601]`."""
        mean, low, high = (f"{value:.3f}".replace("-", "\N{MINUS SIGN}") for value in self)
        return f"{mean} [{low}, {high}]"


def mean_interval(values: Float[np.ndarray, " values"]) -> Estimate:
    """Return the mean of independent values with its 95 % interval, by the BCa bootstrap."""
    if np.ptp(values) < 1e-12:  # the same but for rounding, of which BCa makes nan
        return Estimate(*[float(values[0])] * 3)
    from scipy.stats import bootstrap

    interval = bootstrap((values,), np.mean, method="BCa", rng=rng_for(0, "bootstrap")).confidence_interval
    return Estimate(float(values.mean()), float(interval.low), float(interval.high))


def estimate(metric: Metric, true: Vector, predicted: Float[np.ndarray, "seeds networks"]) -> Estimate:
    """Return the metric's mean over seeds, with the percentile bootstrap's interval of one seed on other networks."""
    rng = rng_for(0, "bootstrap")
    seeds, networks = predicted.shape
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
    """Return how much greater the metric is than that of other predictions for the same networks, means over seeds.

    The interval is the percentile bootstrap's over seeds and networks; both sides see the same networks each time.
    """
    rng = rng_for(0, "bootstrap")

    def reached(predictions: Float[np.ndarray, "_ networks"], index: slice | np.ndarray) -> float:
        return float(np.mean([metric(true[index], p[index]) for p in predictions]))

    resampled = []
    for _ in range(RESAMPLES):
        index = rng.integers(len(true), size=len(true))
        one, another = (side[rng.integers(len(side), size=len(side))] for side in (predicted, other))
        resampled.append(reached(one, index) - reached(another, index))
    whole = slice(None)
    return _interval(reached(predicted, whole) - reached(other, whole), resampled)


def _interval(mean: float, resampled: Sequence[float]) -> Estimate:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(mean, float(low), float(high))
