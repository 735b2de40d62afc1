"""Intervals over test networks and trainings: how often they hold the true value of a metric, and what they depend on."""

import numpy as np
import pytest

from metanets.intervals import difference, estimate
from metanets.metrics import METRICS, SCALES
from zoo import statistics

CORRELATION = 0.8
# Of normal targets and predictions with this correlation and the same spread, in an infinite sample.
TRUTH = {
    "r2": 2 * CORRELATION - 1,
    "kendall_tau": 2 / np.pi * np.arcsin(CORRELATION),
    "rmse": np.sqrt(2 - 2 * CORRELATION),
}


def mean_of(true, predicted):
    return predicted.mean()


@pytest.mark.parametrize("name", TRUTH)
def test_intervals_of_metrics_of_normal_predictions_hold_their_values(name, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 200)
    rng, covered = np.random.default_rng(0), []
    for _ in range(200 if name == "rmse" else 40):
        true, noise = rng.standard_normal((2, 35))
        predicted = CORRELATION * true + np.sqrt(1 - CORRELATION**2) * noise
        found = estimate(METRICS[name], true, predicted[None], SCALES[name])
        covered.append(found.low <= TRUTH[name] <= found.high)
    assert np.mean(covered) > 0.87  # of about .94, two standard errors of which are .03 and .07


def test_an_interval_of_three_trainings_holds_their_mean(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    rng, covered = np.random.default_rng(0), []
    for _ in range(500):
        predicted = rng.standard_normal(40) + 0.3 * rng.standard_normal((3, 1))
        found = estimate(mean_of, np.zeros(40), predicted)
        covered.append(found.low <= 0 <= found.high)
    assert np.mean(covered) > 0.93


def test_intervals_stay_within_the_range_of_their_metrics():
    rng = np.random.default_rng(0)
    true = rng.standard_normal(8)
    predicted = true + np.array([[0.01], [0.5], [-0.9]]) * rng.standard_normal(8)
    for name, metric in METRICS.items():
        found = estimate(metric, true, predicted, SCALES[name])
        assert found.low < found.mean <= found.high
        assert found.high <= 1 or name == "rmse"
        assert found.low >= -1 or name == "r2"
        assert found.low > 0 or name != "rmse"


def test_the_difference_of_two_metanetworks_varies_with_the_trainings_of_both():
    rng = np.random.default_rng(0)
    one, other = (rng.standard_normal((3, 1)) + rng.standard_normal(40) for _ in range(2))
    alone, both = estimate(mean_of, np.zeros(40), one), difference(mean_of, np.zeros(40), one, other)
    assert alone.varies == both.varies == "test networks and 3 trainings"
    assert both.high - both.low > 0.9 * (alone.high - alone.low)
    assert difference(mean_of, np.zeros(40), one, other[:1]).varies == "test networks and 3 trainings"
    assert difference(mean_of, np.zeros(40), one[:2], other[:1]).varies == "test networks"


def test_few_test_networks_are_not_taken_for_trainings():
    true = np.array([0.0, 1.0])
    found = estimate(METRICS["rmse"], true, true + np.array([[0.1, 0.2], [0.3, 0.1]]), SCALES["rmse"])
    assert (found.n, found.values) == (2, ())
    assert str(found) == f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"
