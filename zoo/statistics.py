"""Means with 95 % intervals, and what varies within them.

| values | interval | coverage of normal values | of exponential values |
|---|---|---|---|
| 1 | none | | |
| 2 | none; both values are shown | | |
| 3 to 31, independent | Student's t | .95 | .88 (n = 3 to 5), .89 (8), .91 (16), .93 (31) |
| 32 or more, independent | BCa bootstrap | .94 | .91 (32), .93 (64) |
| one for every two of n networks | jackknife over networks, Student's t | .94 or more | .88 or more |
| k of n | Clopper-Pearson | .95 or more | |
| of units, measured on examples | bootstrap of examples, Student's t for units | .94 or more | .87 or more |

Values that are all alike have no interval, because they do not say how much they vary.

Sources: Efron 1987, *Better Bootstrap Confidence Intervals*, https://doi.org/10.1080/01621459.1987.10478410; Arvesen
1969, *Jackknifing U-Statistics*, https://doi.org/10.1214/aoms/1177697287; Clopper, Pearson 1934, *The Use of Confidence
or Fiducial Limits Illustrated in the Case of the Binomial*, https://doi.org/10.1093/biomet/26.4.404; for two kinds of
units that vary together Owen 2007, *The pigeonhole bootstrap*, https://doi.org/10.1214/07-AOAS122.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped

from zoo.seeds import rng_for

LEVEL = 0.95
MANY = 32  # independent values for which the bootstrap is used
RESAMPLES = 1000  # of test examples or test networks, and of independent values

Values = Float[np.ndarray, " values"]
Metric = Callable[[Any, Any], float]  # takes targets and predictions
Method = Literal["t", "BCa", "jackknife", "Clopper-Pearson", "nested"]


@dataclass(frozen=True)
class Estimate:
    """A mean, its 95 % interval, and what varies within the interval.

    Attributes:
        mean: The mean, of all values or over all test networks.
        low: Lower end of the interval; None if there is no interval.
        high: Its upper end; None if there is no interval.
        n: Number of networks, lines, posteriors, ... that vary.
        varies: What they are, such as `lines on these test examples`.
        method: How the interval was found.
        values: Value of each of them, from which the differences of two estimates are taken; for `jackknife` the
            pseudovalue of each network. `estimate` gives the value of each training, `difference` none.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    varies: str
    method: Method
    values: list[float]

    def __str__(self) -> str:
        """Return text such as `0.512 [0.430, 0.601]`, with n if that is five or less, or `3 of 4 [0.194, 0.994]`."""
        if self.method == "Clopper-Pearson":
            return f"{sum(self.values):.0f} of {self.n}{self._brackets()}"
        if self.n == 2 and len(self.values) == 2:
            return " and ".join(map(_text, self.values))
        shown = self.low is not None and self.n <= 5 and self.n == len(self.values)
        return f"{_text(self.mean)}{self._brackets()}{f', n = {self.n}' if shown else ''}"

    def moved(self, distance: float) -> "Estimate":
        """Return the estimate with its mean and its interval moved."""
        low, high = (None if end is None else end + distance for end in (self.low, self.high))
        return replace(self, mean=self.mean + distance, low=low, high=high)

    def _brackets(self) -> str:
        return "" if self.low is None or self.high is None else f" [{_text(self.low)}, {_text(self.high)}]"


@dataclass(frozen=True)
class Times:
    """Numbers of steps until something happened. Where it had not happened by the last step the number is not known.

    Attributes:
        values: Number of steps of each network; None where it is not known.
        limit: Number of the last step.
        varies: What the values vary over, such as `posteriors`.
    """

    values: list[float | None]
    limit: int
    varies: str

    @property
    def known(self) -> list[float]:
        """Numbers of steps that are known."""
        return [value for value in self.values if value is not None]

    def __str__(self) -> str:
        """Return the mean with its interval if all numbers are known, else text such as `0 of 5 within 250 steps`."""
        if len(self.known) < len(self.values):
            return f"{len(self.known)} of {len(self.values)} within {self.limit} steps"
        return str(mean_interval(np.array(self.known), self.varies))


def mean_interval(values: Values, varies: str = "networks") -> Estimate:
    """Return the mean of independent values from one distribution, and its interval.

    Student's t interval assumes normal values, and covers less if they are skewed, see the table above. From 32 values
    on the interval is the BCa bootstrap, which assumes no distribution but needs many values.

    Arguments:
        values: Independent values.
        varies: What they are values of.
    """
    if len(values) < MANY:
        return _t_interval(values, varies, "t")
    if np.ptp(values) < 1e-12:  # equal up to rounding, where BCa returns NaN
        return _estimate(values, varies, "BCa")
    from scipy.stats import bootstrap, norm

    level = 1 - 2 * norm.cdf(_expansion(len(values)) * norm.ppf((1 - LEVEL) / 2))
    options = {"n_resamples": RESAMPLES, "confidence_level": level, "rng": rng_for(0, "bootstrap")}
    found = bootstrap((values,), np.mean, method="BCa", **options)
    return _estimate(values, varies, "BCa", found.confidence_interval)


def over_couples(values: Float[np.ndarray, " couples"], varies: str = "networks") -> Estimate:
    """Return the mean of a value over all choices of two networks, and its jackknife interval.

    Every network takes part in many choices, so the values are not independent. The jackknife leaves out one network at
    a time. The networks must be independent and from one distribution. The value of only two networks has no interval.

    Arguments:
        values: Value of each choice of two networks i < j, in the order of `numpy.triu_indices(n, 1)`.
        varies: What the networks are.
    """
    if len(values) == 1:
        return mean_interval(values, "couple")
    from scipy.spatial.distance import squareform

    between = squareform(values)
    n = len(between)
    of_network = between.sum(1) / (n - 1)
    pseudovalues = values.mean() + 2 * (n - 1) / (n - 2) * (of_network - values.mean())
    return _t_interval(pseudovalues, varies, "jackknife")


def proportion(happened: Bool[np.ndarray, " values"], varies: str = "networks") -> Estimate:
    """Return the fraction of independent trials in which something happened, and its Clopper-Pearson interval.

    Arguments:
        happened: Whether it happened in each trial.
        varies: What the trials are.
    """
    from scipy.stats import binomtest

    interval = binomtest(int(happened.sum()), len(happened)).proportion_ci(LEVEL, method="exact")
    return replace(_estimate(happened.astype(float), varies, "Clopper-Pearson"), low=interval.low, high=interval.high)


def paired(estimate: Estimate, other: Estimate) -> Estimate:
    """Return the mean difference of two estimates over the same pairs, lines, groups, ..., and its interval.

    Test examples do not vary in it.

    Raises:
        ValueError: If the two are over different numbers of values.
    """
    difference = np.subtract(estimate.values, other.values)
    if estimate.method == "jackknife":
        return _t_interval(difference, estimate.varies, "jackknife")
    return mean_interval(difference, estimate.varies.replace(" and test examples", " on these test examples"))


def resample(examples: int, sample: int = 0) -> Float[np.ndarray, "resamples examples"]:
    """Return the weight of each example in each bootstrap resample, all of them alike in the first row.

    The weights of a row sum to 1, so `resample(n) @ losses` is the mean loss in each resample.

    Arguments:
        examples: Number of examples.
        sample: Number of the sample of examples; other samples are resampled independently.
    """
    weights = np.full((1 + RESAMPLES, examples), 1 / examples)
    weights[1:] = rng_for(0, "bootstrap", sample).multinomial(examples, weights[0], RESAMPLES) / examples
    return weights


def nested(values: Float[np.ndarray, "resamples units"], examples: int, varies: str) -> Estimate:
    """Return the mean over units that are all measured on the same test examples, where both vary.

    Units and examples must be drawn independently. The interval is that of the sum of two parts: the mean over units in
    each resample of the examples, and Student's t for the mean over units. What depends on both is counted twice, which
    makes the interval slightly too wide.

    Arguments:
        values: Value of each unit for each row of `resample`.
        examples: Number of test examples.
        varies: What units and examples are, such as `posteriors and test examples`.
    """
    found = _estimate(values[0], varies, "nested")
    return _with_bounds(found, _draws(values, examples, 0)) if len(values[0]) > 2 else found


def estimate(
    metric: Metric, true: Shaped[np.ndarray, " networks"], predicted: Float[np.ndarray, "trainings networks *classes"]
) -> Estimate:
    """Return the mean of a metric over trainings of a metanetwork, where test networks and trainings vary.

    With one or two trainings only the test networks vary. See `nested`.
    """
    values = _of_trainings(metric, true, predicted)
    varies = "test networks and trainings" if len(predicted) > 2 else "test networks"
    found = Estimate(float(values[0].mean()), None, None, len(true), varies, "nested", values[0].tolist())
    return _with_bounds(found, _draws(values, len(true), 0))


def difference(
    metric: Metric,
    true: Shaped[np.ndarray, " networks"],
    predicted: Float[np.ndarray, "trainings networks *classes"],
    other: Float[np.ndarray, "_ networks *classes"],
    other_true: Shaped[np.ndarray, " networks"] | None = None,
) -> Estimate:
    """Return the mean of a metric over trainings, less that of other predictions for the same networks or their pairs.

    Both sides have the same test networks, or networks of the same pairs, in each resample.

    Arguments:
        metric: The metric.
        true: Targets of the networks.
        predicted: Predictions of each training.
        other: Predictions of other trainings.
        other_true: Targets that these predict, if they are others.
    """
    values = _of_trainings(metric, true, predicted)
    others = _of_trainings(metric, true if other_true is None else other_true, other)
    varies = "test networks and trainings" if min(len(predicted), len(other)) > 2 else "test networks"
    mean = float(values[0].mean() - others[0].mean())
    found = Estimate(mean, None, None, len(true), varies, "nested", [])
    return _with_bounds(found, _draws(values, len(true), 0) - _draws(others, len(true), 1))


def _estimate(values: Values, varies: str, method: Method, interval: Any = None) -> Estimate:
    """Return the mean of values with an interval, or without."""
    low, high = (None, None) if interval is None else map(float, interval)
    return Estimate(float(values.mean()), low, high, len(values), varies, method, values.tolist())


def _t_interval(values: Values, varies: str, method: Method) -> Estimate:
    """Return the mean with Student's t interval; without one if there are one or two values, or all are alike."""
    found = _estimate(values, varies, method)
    if len(values) < 3 or np.ptp(values) < 1e-12:
        return found
    from scipy.stats import sem, t

    half = float(sem(values) * t.ppf((1 + LEVEL) / 2, len(values) - 1))
    return replace(found, low=found.mean - half, high=found.mean + half)


def _draws(values: Float[np.ndarray, "resamples units"], examples: int, side: int) -> Float[np.ndarray, " draws"]:
    """Return draws of the mean over units: as examples vary, and, with three units or more, as units vary."""
    mean, units = values[0].mean(), values.shape[1]
    draws = mean + _expansion(examples) * (values[1:].mean(1) - mean)
    if units < 3:
        return draws
    from scipy.stats import sem, t

    places = (rng_for(0, "units", side).permutation(len(draws)) + 0.5) / len(draws)
    return draws + sem(values[0]) * t.ppf(places, units - 1)


def _with_bounds(found: Estimate, draws: Float[np.ndarray, " draws"]) -> Estimate:
    """Return an estimate with the interval that holds 95 % of draws; without one if all draws are alike."""
    if np.ptp(draws) < 1e-12:
        return found
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return replace(found, low=float(low), high=float(high))


def _expansion(n: int) -> float:
    """Return how much wider than the quantiles of resamples an interval of n values must be.

    Source: Hesterberg 2015, *What Teachers Should Know About the Bootstrap*, section 5.2,
    https://doi.org/10.1080/00031305.2015.1089789.
    """
    from scipy.stats import norm, t

    tail = (1 - LEVEL) / 2
    return float((n / (n - 1)) ** 0.5 * t.ppf(tail, n - 1) / norm.ppf(tail)) if n > 1 else 1.0


def _of_trainings(metric: Metric, true: np.ndarray, predicted: np.ndarray) -> Float[np.ndarray, "resamples trainings"]:
    """Return the metric of each training, first on all test networks, then on each resample of them."""
    resampled = rng_for(0, "bootstrap").integers(len(true), size=(RESAMPLES, len(true)))
    chosen = [np.arange(len(true)), *resampled]
    return np.array([[metric(true[index], p[index]) for p in predicted] for index in chosen])


def _text(value: float) -> str:
    """Return a number with three decimals, or one if it is large."""
    return f"{value:.{3 if abs(value) < 10 else 1}f}".replace("-", "\N{MINUS SIGN}")


def describe(estimates: Sequence[Estimate]) -> str:
    """Return a line that says what varies within the intervals of estimates, such as those of a table.

    It is like `Brackets: 95 % intervals over 5 posteriors and test examples (nested).`, or empty if there are none.
    """
    kinds: dict[tuple[str, str], set[int]] = {}
    for each in estimates:
        if each.low is not None:
            kinds.setdefault((each.varies, each.method), set()).add(each.n)
    over = (f"{' to '.join(_ends(n))} {varies} ({method})" for (varies, method), n in kinds.items())
    return f"Brackets: {100 * LEVEL:.0f} % intervals over {'; '.join(over)}." if kinds else ""


def _ends(numbers: set[int]) -> list[str]:
    """Return the least and the greatest number, or the only one."""
    return [f"{number:,}" for number in sorted({min(numbers), max(numbers)})]
