"""How good predictions are."""

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import kendalltau
from sklearn.metrics import accuracy_score, r2_score
from sklearn.metrics import log_loss as sklearn_log_loss

from metanets.intervals import Metric, Scale, estimate
from zoo.statistics import Estimate

Vector = Float[np.ndarray, " networks"]
Classes = Int[np.ndarray, " networks"]
Probabilities = Float[np.ndarray, "networks classes"]


def r2(true: Vector, predicted: Vector) -> float:
    """Return the fraction of variance explained: 1 at best, 0 for predicting the mean, negative for worse."""
    return float(r2_score(true, predicted))


def kendall_tau(true: Vector, predicted: Vector) -> float:
    """Return Kendall's rank correlation tau-b; 0 if all predictions are equal, or there are fewer than two."""
    if len(true) < 2:
        return 0.0
    return float(np.nan_to_num(kendalltau(true, predicted).statistic))


def kendall_tau_of_good(true: Vector, predicted: Vector) -> float:
    """Return Kendall's tau among networks above the median: wide hyperparameter ranges make the overall tau easy."""
    good = true > np.median(true)
    return kendall_tau(true[good], predicted[good])


def rmse(true: Vector, predicted: Vector) -> float:
    """Return the root mean squared error, on the scale of the target."""
    return float(np.sqrt(np.mean((true - predicted) ** 2)))


def accuracy(true: Classes, predicted: Probabilities) -> float:
    """Return the fraction of networks whose likeliest class is the true one."""
    return float(accuracy_score(true, predicted.argmax(1)))


def log_loss(true: Classes, predicted: Probabilities) -> float:
    """Return the mean negative log probability of the true class, in nats."""
    normalised = predicted / predicted.sum(1, keepdims=True)  # in the precision that they come in
    return float(sklearn_log_loss(true, normalised, labels=np.arange(predicted.shape[1])))


def selection_score(true: Vector | Classes, predicted: Vector | Probabilities) -> float:
    """Return the score by which epochs and settings are chosen on validation networks; higher is better.

    Of numbers, the mean of R^2, which depends on the few bad networks, and tau, which depends on the many good ones; of
    classes, minus the log loss. Minus infinity if a prediction is not finite.
    """
    if not np.isfinite(predicted).all():
        return -np.inf
    if predicted.ndim == 2:
        return -log_loss(true, predicted)
    return (r2(true, predicted) + kendall_tau(true, predicted)) / 2


METRICS: dict[str, Metric] = {
    "r2": r2,
    "kendall_tau": kendall_tau,
    "kendall_tau_of_good": kendall_tau_of_good,
    "rmse": rmse,
}
CLASS_METRICS: dict[str, Metric] = {"accuracy": accuracy, "log_loss": log_loss}

TINY = np.finfo(float).tiny
ERROR = Scale(lambda error: np.log(np.maximum(error, TINY)), np.exp)
SCALES: dict[str, Scale] = {
    "r2": Scale(lambda r2: np.log(np.maximum(1 - r2, TINY)), lambda log: 1 - np.exp(log)),
    "kendall_tau": Scale(np.asarray, lambda tau: tau.clip(-1, 1)),
    "kendall_tau_of_good": Scale(np.asarray, lambda tau: tau.clip(-1, 1)),
    "rmse": ERROR,
    "accuracy": Scale(np.asarray, lambda fraction: fraction.clip(0, 1)),
    "log_loss": ERROR,
}


def measure(true: Vector | Classes, predicted: Vector | Probabilities) -> dict[str, float]:
    """Return the value of each metric by name."""
    return {name: metric(true, predicted) for name, metric in metrics_of(predicted).items()}


def metrics_of(predicted: Vector | Probabilities) -> dict[str, Metric]:
    """Return the metrics by name that fit predictions: of numbers `(N,)`, or of classes `(N, classes)`."""
    return METRICS if predicted.ndim == 1 else CLASS_METRICS


def estimates_of(true: Vector | Classes, predicted: np.ndarray) -> dict[str, Estimate]:
    """Return the mean of each metric over trainings, given their predictions `(trainings, networks, *classes)`."""
    return {name: estimate(metric, true, predicted, SCALES[name]) for name, metric in metrics_of(predicted[0]).items()}
