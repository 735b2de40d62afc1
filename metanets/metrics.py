"""How well accuracies are predicted."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.stats import kendalltau
from sklearn.metrics import r2_score

Vector = Float[np.ndarray, " networks"]


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
