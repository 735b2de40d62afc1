from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import log_loss as sklearn_log_loss

from metanets.intervals import difference, estimate
from metanets.metrics import (
    CLASS_METRICS,
    METRICS,
    accuracy,
    kendall_tau,
    kendall_tau_of_good,
    log_loss,
    metrics_of,
    r2,
    rmse,
    selection_score,
)
from zoo import statistics
from zoo.statistics import mean_interval


@pytest.fixture(autouse=True)
def rough(rough_intervals):
    """Intervals from few resamples."""


def true_and_predicted(ties):
    rng = np.random.default_rng(1)
    true, noise = rng.normal(size=(2, 40))
    predicted = 0.7 * true + 0.7 * noise
    return (true.round(), predicted.round()) if ties else (true, predicted)


@pytest.mark.parametrize("ties", [False, True])
def test_r2_is_one_minus_the_share_of_squares_left(ties):
    true, predicted = true_and_predicted(ties)
    assert r2(true, predicted) == pytest.approx(1 - ((true - predicted) ** 2).sum() / ((true - true.mean()) ** 2).sum())
    assert r2(true, true) == 1
    assert r2(true, np.full_like(true, true.mean())) == pytest.approx(0)
    assert r2(true, 2 * true.mean() - true) == pytest.approx(-3)


@pytest.mark.parametrize("ties", [False, True])
def test_kendall_tau_counts_couples_in_and_out_of_order(ties):
    true, predicted = true_and_predicted(ties)
    signs = np.array(
        [(np.sign(true[i] - true[j]), np.sign(predicted[i] - predicted[j])) for i, j in combinations(range(40), 2)]
    )
    closed_form = signs.prod(1).sum() / np.sqrt((signs != 0).sum(0).prod())
    assert kendall_tau(true, predicted) == pytest.approx(closed_form)
    assert kendall_tau(true, np.exp(true)) == pytest.approx(1)
    assert kendall_tau(true, -true) == pytest.approx(-1)


@pytest.mark.parametrize("ties", [False, True])
def test_kendall_tau_of_good_sees_the_networks_above_the_median_alone(ties):
    true, predicted = true_and_predicted(ties)
    good = true > np.median(true)
    assert 0 < good.sum() <= 20
    assert kendall_tau_of_good(true, predicted) == kendall_tau(true[good], predicted[good])
    bad_reversed = np.where(good, predicted, -true)
    assert kendall_tau_of_good(true, bad_reversed) == kendall_tau_of_good(true, predicted)
    assert kendall_tau_of_good(true, np.where(good, -true, true)) == pytest.approx(-1)


def test_kendall_tau_of_good_is_zero_where_no_two_networks_are_better_than_the_median():
    assert kendall_tau_of_good(np.full(8, 0.5), np.arange(8.0)) == 0
    assert kendall_tau_of_good(np.array([0.1, 0.2, 0.3]), np.arange(3.0)) == 0


def test_rmse_is_in_the_units_of_the_target():
    true, predicted = true_and_predicted(ties=False)
    assert rmse(true, predicted) == pytest.approx(np.linalg.norm(true - predicted) / np.sqrt(40))
    assert rmse(true, true + 0.25) == pytest.approx(0.25)
    assert rmse(100 * true, 100 * predicted) == pytest.approx(100 * rmse(true, predicted))
    assert r2(true, predicted) == pytest.approx(1 - rmse(true, predicted) ** 2 / true.var())


def some_classes(networks=40, classes=3, dtype=np.float64):
    """Classes, and probabilities that know something of them."""
    rng = np.random.default_rng(2)
    true = rng.integers(0, classes, networks)
    z = rng.normal(size=(networks, classes)) + 2 * np.eye(classes)[true]
    return true, (np.exp(z) / np.exp(z).sum(1, keepdims=True)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_accuracy_and_log_loss_of_classes_are_their_closed_forms(dtype):
    true, predicted = some_classes(dtype=dtype)
    likeliest = [max(range(3), key=lambda c: row[c]) for row in predicted]
    assert accuracy(true, predicted) == np.mean([c == t for c, t in zip(likeliest, true, strict=True)])
    assert log_loss(true, predicted) == pytest.approx(
        np.mean([-np.log(p[t]) for p, t in zip(predicted, true, strict=True)])
    )
    assert log_loss(true, predicted.astype(np.float32).astype(np.float64)) == pytest.approx(
        log_loss(true, predicted), rel=1e-5
    )


def test_ties_are_predicted_as_the_first_class():
    predicted = np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [1 / 3, 1 / 3, 1 / 3]])
    assert accuracy(np.array([0, 1, 0]), predicted) == 1
    assert accuracy(np.array([1, 2, 2]), predicted) == 0


def test_a_class_that_no_network_has_counts_nothing():
    true, predicted = some_classes()
    few = true < 2
    expected = sklearn_log_loss(true[few], predicted[few], labels=[0, 1, 2])
    assert log_loss(true[few], predicted[few]) == pytest.approx(expected)


def test_metrics_are_those_that_fit_predictions():
    assert metrics_of(np.zeros(4)) is METRICS
    assert metrics_of(np.zeros((4, 2))) is CLASS_METRICS


def test_classes_are_chosen_by_log_loss():
    true, predicted = some_classes()
    assert selection_score(true, predicted) == -log_loss(true, predicted)
    sharper = predicted**2 / (predicted**2).sum(1, keepdims=True)
    assert accuracy(true, sharper) == accuracy(true, predicted)
    assert selection_score(true, sharper) != selection_score(true, predicted)
    predicted[0, 0] = np.nan
    assert selection_score(true, predicted) == -np.inf


def test_epochs_are_chosen_by_size_of_errors_and_by_order_alike_and_never_where_predictions_are_not_finite():
    true, predicted = true_and_predicted(ties=False)
    assert selection_score(true, true) == 1
    assert selection_score(true, predicted) == pytest.approx((r2(true, predicted) + kendall_tau(true, predicted)) / 2)
    constant = np.full_like(true, true.mean())
    assert selection_score(true, constant) == pytest.approx(0)
    assert selection_score(true, np.where(true == true.max(), np.nan, true)) == -np.inf
    assert selection_score(true, np.where(true == true.max(), np.inf, true)) == -np.inf


def ends(found):
    return found.mean, found.low, found.high


def test_predictions_all_the_same_have_kendall_tau_zero():
    true, _ = true_and_predicted(ties=False)
    assert kendall_tau(true, np.full_like(true, 0.3)) == 0
    assert ends(estimate(kendall_tau, true, np.full((3, 40), 0.3))) == (0, None, None)


@pytest.mark.parametrize("name", CLASS_METRICS)
def test_estimates_of_classes_have_the_mean_over_seeds_within_their_interval(name):
    true, predicted = some_classes()
    seeds = np.stack([predicted, predicted**2 / (predicted**2).sum(1, keepdims=True), np.roll(predicted, 1, 1)])
    mean, low, high = ends(estimate(CLASS_METRICS[name], true, seeds))
    assert mean == pytest.approx(np.mean([CLASS_METRICS[name](true, p) for p in seeds]))
    assert low < mean < high


@pytest.mark.parametrize("name", METRICS)
def test_estimate_has_the_mean_over_seeds_within_its_interval(name):
    true, predicted = true_and_predicted(ties=False)
    seeds = np.stack([predicted, true, predicted + 0.1])
    mean, low, high = ends(estimate(METRICS[name], true, seeds))
    assert mean == pytest.approx(np.mean([METRICS[name](true, p) for p in seeds]))
    assert low < mean < high
    assert ends(estimate(METRICS[name], true, seeds)) == (mean, low, high)


def mean_of_targets(true, predicted):
    return true.mean()


def test_interval_shrinks_with_the_root_of_the_number_of_networks(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)
    rng = np.random.default_rng(0)
    few, many = (estimate(mean_of_targets, rng.normal(size=n), np.zeros((1, n))) for n in (50, 1250))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(5, rel=0.2)


def test_interval_of_three_trainings_has_their_spread_as_student_t_does(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)

    def mean_of_predictions(true, predicted):
        return predicted.mean()

    predicted = np.repeat([[1.0], [2.0], [6.0]], 10, 1)
    found, expected = estimate(mean_of_predictions, np.zeros(10), predicted), mean_interval(predicted[:, 0])
    assert (found.mean, found.varies) == (3, "test networks and 3 trainings")
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.02)
    assert (
        estimate(mean_of_predictions, np.zeros(10), predicted[:2]).low is None
    )  # no network varies, and two say little


def test_a_difference_is_of_the_means_over_seeds_and_changes_its_sign_with_the_sides():
    true, predicted = true_and_predicted(ties=False)
    better, worse = np.stack([true, predicted + 0.1]), np.stack([predicted, predicted + 0.2, -predicted])
    mean, low, high = ends(difference(r2, true, better, worse))
    assert mean == pytest.approx(np.mean([r2(true, p) for p in better]) - np.mean([r2(true, p) for p in worse]))
    assert low < mean < high
    assert difference(r2, true, worse, better).mean == pytest.approx(-mean)
    assert ends(difference(r2, true, better[:1], better[:1])) == (0, None, None)


def test_a_difference_on_the_same_networks_is_known_better_than_either_side():
    true, predicted = true_and_predicted(ties=False)
    first, second = predicted[None], (predicted + 0.05 * np.sin(np.arange(40)))[None]
    alone, together = estimate(r2, true, first), difference(r2, true, first, second)
    assert together.high - together.low < 0.2 * (alone.high - alone.low)
