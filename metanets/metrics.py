"""How well accuracies are predicted, with intervals over seeds and test networks."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import kendalltau
from sklearn.metrics import r2_score

from zoo.seeds import rng_for

RESAMPLES = 500

Vector = Float[np.ndarray, " networks"]


class Estimate(NamedTuple):
    """A mean with the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Write it as `0.512 [0.430, 0.601]`."""
        mean, low, high = (f"{value:.3f}".replace("-", "\N{MINUS SIGN}") for value in self)
        return f"{mean} [{low}, {high}]"


def r2(true: Vector, predicted: Vector) -> float:
    """Return the share of variance explained, 1 at best, 0 for the mean, negative for worse."""
    return float(r2_score(true, predicted))


def kendall_tau(true: Vector, predicted: Vector) -> float:
    """Return Kendall's rank correlation, tau-b; 0 if all predictions are the same, or there are fewer than two."""
    if len(true) < 2:
        return 0.0
    return float(np.nan_to_num(kendalltau(true, predicted).statistic))


def kendall_tau_of_good(true: Vector, predicted: Vector) -> float:
    """Return Kendall's tau among networks above the median: wide hyperparameter ranges make the overall tau easy."""
    good = true > np.median(true)
    return kendall_tau(true[good], predicted[good])


def rmse(true: Vector, predicted: Vector) -> float:
    """Return the root of the mean squared error, in the units of the target."""
    return float(np.sqrt(np.mean((true - predicted) ** 2)))


def selection_score(true: Vector, predicted: Vector) -> float:
    """Return the mean of R^2 and tau, by which epochs and settings are chosen on validation networks.

    R^2 hangs on the few bad networks, tau on the many good ones. Minus infinity if a prediction is not finite.
    """
    return (r2(true, predicted) + kendall_tau(true, predicted)) / 2 if np.isfinite(predicted).all() else -np.inf


METRICS: dict[str, Callable[[Vector, Vector], float]] = {
    "r2": r2,
    "kendall_tau": kendall_tau,
    "kendall_tau_of_good": kendall_tau_of_good,
    "rmse": rmse,
}


def estimate(
    metric: Callable[[Vector, Vector], float], true: Vector, predicted: Float[np.ndarray, "seeds networks"]
) -> Estimate:
    """Return the metric's mean over seeds, with the percentile bootstrap's interval of one seed on other networks."""
    rng = rng_for(0, "bootstrap")
    seeds, networks = predicted.shape
    resampled = []
    for _ in range(RESAMPLES):
        index = rng.integers(networks, size=networks)
        resampled.append(metric(true[index], predicted[rng.integers(seeds), index]))
    return _interval(float(np.mean([metric(true, p) for p in predicted])), resampled)


def difference(
    metric: Callable[[Vector, Vector], float],
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
