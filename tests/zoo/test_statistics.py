"""Intervals: what they are, against independent references, and how often they hold the true mean."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from zoo import statistics
from zoo.statistics import (
    Estimate,
    Times,
    crossed,
    describe,
    mean_interval,
    over_couples,
    paired,
    proportion,
    resample,
)

DRAWS = {"normal": np.random.Generator.standard_normal, "exponential": np.random.Generator.standard_exponential}
MEANS = {"normal": 0.0, "exponential": 1.0}
LEAST = {"normal": 0.93, "exponential": 0.87}
EVERY = pytest.mark.parametrize("name", DRAWS)


def covers(found, mean):
    return found.low <= mean <= found.high


@EVERY
@pytest.mark.parametrize("n", [3, 4, 5, 8, 16, 31, 32, 64])
def test_intervals_of_independent_values_hold_their_mean(n, name, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    samples = DRAWS[name](np.random.default_rng(n), (2000 if n < 32 else 1000, n))
    assert np.mean([covers(mean_interval(values), MEANS[name]) for values in samples]) > LEAST[name]


# The value between networks that are two numbers, and its mean, by the distribution of the numbers.
BETWEEN = {
    "sum": (np.add, {"normal": 0.0, "exponential": 2.0}, {"normal": 0.93, "exponential": 0.87}),
    "distance": (
        lambda a, b: np.abs(a - b),
        {"normal": 2 / np.pi**0.5, "exponential": 1.0},
        {"normal": 0.92, "exponential": 0.82},
    ),
}


@EVERY
@pytest.mark.parametrize("n", [3, 4, 5, 16])
@pytest.mark.parametrize("between", BETWEEN)
def test_intervals_over_couples_hold_the_mean_although_couples_share_networks(n, name, between):
    rng, (i, j) = np.random.default_rng(n), np.triu_indices(n, 1)
    value, means, least = BETWEEN[between]
    networks = DRAWS[name](rng, (1500, n))
    covered = [covers(over_couples(value(each[i], each[j])), means[name]) for each in networks]
    assert np.mean(covered) >= least[name]


@EVERY
@pytest.mark.parametrize("units", [3, 5, 16])
@pytest.mark.parametrize("sizes", [(0.1, 1.0, 1.0), (1.0, 1.0, 1.0), (0.3, 4.0, 1.0)])  # of unit, example, and of both
def test_crossed_intervals_hold_the_mean_over_units_and_examples(units, name, sizes, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    rng, draw, covered, weights = np.random.default_rng(units), DRAWS[name], [], resample(100)
    for _ in range(500):
        parts = (draw(rng, shape) - MEANS[name] for shape in ((units, 1), (1, 100), (units, 100)))
        values = sum(size * part for size, part in zip(sizes, parts, strict=True))
        covered.append(covers(crossed(weights @ values.T, 100, "both"), 0))
    assert np.mean(covered) >= LEAST[name]


@pytest.mark.parametrize(("n", "p"), [(4, 0.5), (5, 0.9), (64, 0.98), (400, 0.3)])
def test_intervals_of_counts_hold_the_probability(n, p):
    covered = [covers(proportion(happened < p), p) for happened in np.random.default_rng(n).random((500, n))]
    assert np.mean(covered) > 0.93


def test_intervals_before_held_the_mean_of_five_values_in_fewer_than_nine_of_ten_cases():
    """What small samples need Student's t for: the percentile bootstrap resamples only the values that there are."""
    covered = []
    for values in np.random.default_rng(0).standard_normal((500, 5)):
        low, high = np.quantile((resample(5)[1:] @ values), [0.025, 0.975])
        covered.append(low <= 0 <= high)
    assert np.mean(covered) < 0.88


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=31), st.floats(0.1, 10), st.floats(-50, 50))
def test_few_values_have_the_interval_of_scipy_which_follows_scale_and_shift(values, scale, shift):
    values = np.array(values)
    found, changed = mean_interval(values), mean_interval(scale * values + shift)
    if found.low is None or changed.low is None:
        return
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)
    assert (changed.low, changed.high) == pytest.approx(
        (scale * found.low + shift, scale * found.high + shift), abs=1e-6
    )


def test_many_values_have_the_bca_interval_of_scipy():
    values = np.random.default_rng(0).exponential(size=50)
    found = mean_interval(values, "lines")
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=50_000, confidence_level=0.955, rng=1
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03)
    assert (found.n, found.varies, found.method, found.values) == (50, "lines", "BCa", tuple(values.tolist()))
    assert mean_interval(values, "lines") == found


def test_one_value_has_no_interval_two_are_both_shown_and_values_alike_say_nothing_of_how_much_they_vary():
    one, two = mean_interval(np.array([0.5])), mean_interval(np.array([0.134, 0.232]))
    assert (one.low, one.high, str(one)) == (None, None, "0.500")
    assert (two.mean, two.low, two.high, str(two)) == (0.183, None, None, "0.134 and 0.232")
    for n in (3, 64):
        for rounding in (0, 1e-17, 1e-16):
            alike = mean_interval(np.array([*[0.1] * n, 0.1 + rounding]))
            assert (alike.low, alike.high, str(alike)) == (None, None, "0.100")


def test_values_that_are_not_finite_have_no_interval_and_no_values_are_refused():
    for values in ([1.0, np.nan, 2.0], [1.0, np.inf, 2.0, 3.0], [np.nan] * 40):
        with np.errstate(invalid="ignore"):
            assert mean_interval(np.array(values)).low is None
    large = np.full(40, 1e5)
    large[0] += 1.5e-11
    assert mean_interval(large).low is None
    empty = np.array([])
    for refused in (mean_interval, over_couples, lambda values: proportion(values > 0)):
        with pytest.raises(ValueError, match="there are no values of "):
            refused(empty)


@pytest.mark.parametrize("n", [3, 4, 7])
def test_the_jackknife_over_networks_leaves_out_one_at_a_time(n):
    values = np.random.default_rng(n).exponential(size=n * (n - 1) // 2)
    couples = list(combinations(range(n), 2))
    without = [np.mean([v for v, couple in zip(values, couples, strict=True) if k not in couple]) for k in range(n)]
    error = np.sqrt((n - 1) / n * np.square(without - np.mean(without)).sum())
    found = over_couples(values, "posteriors")
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.mean == pytest.approx(error * stats.t.ppf(0.975, max(2, n - 2)))
    assert (found.n, found.varies, found.method) == (n, "posteriors", "jackknife")


def test_two_networks_have_one_value_and_no_interval():
    found = over_couples(np.array([0.25]))
    assert (found.mean, found.low, found.n, str(found)) == (0.25, None, 1, "0.250")


@pytest.mark.parametrize(("k", "n"), [(0, 5), (3, 4), (400, 400)])
def test_counts_have_the_interval_of_the_beta_distribution(k, n):
    found = proportion(np.arange(n) < k)
    low = stats.beta.ppf(0.025, k, n - k + 1) if k else 0
    high = stats.beta.ppf(0.975, k + 1, n - k) if k < n else 1
    assert (found.low, found.high) == pytest.approx((low, high))
    assert str(found) == f"{k} of {n} [{low:.3f}, {high:.3f}]"
    assert found.mean == k / n


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    network = rng.standard_normal(16)
    one, other = (mean_interval(10 * network + rng.standard_normal(16) + shift, "lines") for shift in (1, 0))
    found = paired(one, other)
    expected = stats.ttest_rel(one.values, other.values).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.high - found.low < 0.3 * (one.high - one.low)
    first, second = np.random.default_rng(0).exponential(size=(2, 28))  # of eight networks
    both = paired(over_couples(first), over_couples(second))
    alone = over_couples(first - second)
    assert (both.mean, both.low, both.n, both.method) == (
        pytest.approx(alone.mean),
        pytest.approx(alone.low),
        8,
        "jackknife",
    )
    count = proportion(np.arange(16) < 5)
    for others in ((one, mean_interval(np.zeros(3))), (one, both), (count, count), (replace(one, values=()), one)):
        with pytest.raises(ValueError, match="cannot be paired"):
            paired(*others)


def test_a_paired_difference_of_crossed_estimates_has_the_units_on_the_examples_that_there_are():
    values = resample(30) @ np.random.default_rng(0).random((30, 5))
    one, other = (crossed(v, 30, "posteriors and test examples") for v in (values, values**2))
    found = paired(one, other)
    assert (found.varies, found.method) == ("posteriors on these test examples", "t")
    expected = stats.ttest_rel(values[0], values[0] ** 2).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_resamples_begin_with_all_examples_and_weigh_as_many_in_each():
    weights = resample(7)
    assert weights.shape == (1 + statistics.RESAMPLES, 7)
    assert (weights[0] == 1 / 7).all()
    assert np.allclose(weights.sum(1), 1)
    assert np.allclose(weights * 7, (weights * 7).round())
    assert weights[1:].std(0).mean() == pytest.approx(np.sqrt(6 / 7) / 7, rel=0.05)
    assert np.array_equal(weights, resample(7))
    assert not np.array_equal(weights, resample(7, 1))


def test_examples_that_units_agree_on_widen_a_crossed_interval_and_not_that_of_the_units():
    of_example = np.random.default_rng(0).standard_normal((50, 1))
    values = of_example + np.array([[0.0, 0.01, -0.01, 0.02, -0.02]])
    both, units = crossed(resample(50) @ values, 50, "both"), mean_interval(values.mean(0))
    half = stats.sem(of_example[:, 0]) * 1.96
    assert both.high - both.low == pytest.approx(2 * half, rel=0.15)
    assert units.high - units.low < 0.2 * half


def test_one_posterior_has_no_crossed_interval_and_of_two_both_are_shown():
    values = resample(30) @ np.random.default_rng(0).random((30, 2))
    assert crossed(values[:, :1], 30, "both").low is None
    assert str(crossed(values, 30, "both")) == f"{values[0, 0]:.3f} and {values[0, 1]:.3f}"


def test_steps_are_averaged_only_if_all_are_known():
    assert str(Times((12.0, 13.0, 14.0), 250, "posteriors")) == str(mean_interval(np.array([12.0, 13.0, 14.0])))
    assert str(Times((None, 30.0, None, None, None), 250, "posteriors")) == "1 of 5 within 250 steps"
    assert str(Times((None,) * 5, 250, "posteriors")) == "0 of 5 within 250 steps"


def test_estimates_are_written_with_n_if_it_is_small_and_with_true_minus_signs():
    found = Estimate(-0.12345, -1.5, 0.5, 40, "lines", "t", ())
    assert str(found) == "−0.123 [−1.500, 0.500]"
    assert str(Estimate(0.1, 0.05, 0.15, 5, "lines", "t", (0.1,) * 5)) == "0.100 [0.050, 0.150], n = 5"
    assert str(Estimate(-90.98, -130.588, 9.5, 40, "lines", "t", ())) == "−91.0 [−130.6, 9.500]"


def test_a_line_says_what_varies_in_each_kind_of_interval_once():
    lines = [Estimate(0.0, -1.0, 1.0, n, "lines", "BCa", ()) for n in (50, 32, 40)]
    posteriors = Estimate(0.0, -1.0, 1.0, 5, "posteriors and test examples", "crossed", ())
    assert describe([*lines, posteriors, mean_interval(np.ones(1))]) == (
        "Brackets: 95 % intervals over 32 to 50 lines (BCa); 5 posteriors and test examples (crossed)."
    )
    assert describe([mean_interval(np.ones(1))]) == ""
