"""How well accuracies are predicted, with intervals over seeds and test networks."""

from collections.abc import Callable
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


METRICS: dict[str, Callable[[Vector, Vector], float]] = {
    "r2": r2,
    "kendall_tau": kendall_tau,
    "kendall_tau_of_good": kendall_tau_of_good,
    "rmse": rmse,
}


def estimate(
    metric: Callable[[Vector, Vector], float], true: Vector, predicted: Float[np.ndarray, "seeds networks"]
) -> Estimate:
    """Return the metric's mean over seeds, with the percentile bootstrap's interval over seeds and networks."""
    rng = rng_for(0, "bootstrap")
    seeds, networks = predicted.shape
    resampled = []
    for _ in range(RESAMPLES):
        index = rng.integers(networks, size=networks)
        resampled.append(metric(true[index], predicted[rng.integers(seeds), index]))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(np.mean([metric(true, p) for p in predicted])), float(low), float(high))
