"""Means with 95 % intervals, and what varies within them.

| values | interval | coverage of normal values | of exponential values |
|---|---|---|---|
| 1 | none | | |
| 2 | none; both values are shown | | |
| 3 to 31, independent | Student's t | .95 | .88 (n = 3 to 5), .89 (8), .91 (16), .93 (31) |
| 32 or more, independent | BCa bootstrap | .95 | .93 (32), .94 (64) |
| one for every two of n networks | jackknife over networks, Student's t | see `over_couples` | |
| k of n | Clopper-Pearson | .95 or more | |
| of units, all on the same examples | bootstrap of examples, Student's t for units | .94 or more | .87 or more |
| metrics over test networks | the same, with trainings as units | see `metanets.intervals` | |

Values that are all alike have no interval, because they do not say how much they vary.

Sources: Efron 1987, *Better Bootstrap Confidence Intervals*, https://doi.org/10.1080/01621459.1987.10478410; Hesterberg
2014, *What Teachers Should Know about the Bootstrap*, https://arxiv.org/abs/1411.5279; Arvesen 1969, *Jackknifing
U-Statistics*, https://doi.org/10.1214/aoms/1177697287; Clopper, Pearson 1934, *The Use of Confidence or Fiducial Limits
Illustrated in the Case of the Binomial*, https://doi.org/10.1093/biomet/26.4.404; on units and examples that both vary
Owen 2007, *The pigeonhole bootstrap*, https://doi.org/10.1214/07-AOAS122.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from zoo.seeds import rng_for

LEVEL = 0.95
MANY = 32  # independent values for which the bootstrap is used
RESAMPLES = 1000  # of test examples or test networks, and of independent values

Values = Float[np.ndarray, " values"]
Method = Literal["t", "BCa", "jackknife", "Clopper-Pearson", "crossed"]


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
            pseudovalue of each network. Estimates over test networks have none.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    varies: str
    method: Method
    values: tuple[float, ...]

    def __str__(self) -> str:
        """Return text such as `0.512 [0.430, 0.601]`, with n if that is five or less, or `3 of 4 [0.194, 0.994]`."""
        if self.method == "Clopper-Pearson":
            return f"{sum(self.values):.0f} of {self.n}{self._brackets()}"
        if len(self.values) == 2:
            return " and ".join(map(_text, self.values))
        few = f", n = {self.n}" if self.low is not None and 0 < len(self.values) <= 5 else ""
        return f"{_text(self.mean)}{self._brackets()}{few}"

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

    values: tuple[float | None, ...]
    limit: int
    varies: str

    @property
    def known(self) -> list[float]:
        """Numbers of steps that are known."""
        return [value for value in self.values if value is not None]

    @property
    def mean(self) -> Estimate | None:
        """Mean number of steps; None unless all are known."""
        return mean_interval(np.array(self.known), self.varies) if len(self.known) == len(self.values) else None

    def __str__(self) -> str:
        """Return the mean if all numbers are known, else text such as `0 of 5 within 250 steps`."""
        return str(self.mean or f"{len(self.known)} of {len(self.values)} within {self.limit} steps")


def mean_interval(values: Values, varies: str = "networks") -> Estimate:
    """Return the mean of independent values from one distribution, and its interval.

    Student's t interval assumes normal values, and covers less if they are skewed, see the table above. From 32 values
    on the interval is the BCa bootstrap, which assumes no distribution but needs many values; its level is somewhat
    higher, because resamples vary less than samples do.

    Arguments:
        values: Independent values.
        varies: What they are values of.

    Raises:
        ValueError: If there are no values.
    """
    if len(values) < MANY:
        return _t_interval(values, varies, "t")
    if _alike(values):
        return _estimate(values, varies, "BCa")
    from scipy.stats import bootstrap, norm

    level = 1 - 2 * norm.cdf(_expansion(len(values)) * norm.ppf((1 - LEVEL) / 2))
    options = {"n_resamples": RESAMPLES, "confidence_level": level, "rng": rng_for(0, "bootstrap")}
    found = bootstrap((values,), np.mean, method="BCa", **options)
    return _estimate(values, varies, "BCa", found.confidence_interval)


def over_couples(values: Float[np.ndarray, " couples"], varies: str = "networks") -> Estimate:
    """Return the mean of a value over all choices of two networks, and its jackknife interval.

    Every network takes part in many choices, so the values are not independent. The jackknife leaves out one network at
    a time; its interval is Student's t with n - 2 degrees of freedom (2 if n = 3), one less than of independent values.
    The networks must be independent and from one distribution, and the value must depend on each network by itself: for
    products of centred numbers it covers too little from n = 64 on. The value of only two networks has no interval.

    Coverage for networks that are numbers a and b: of a + b .95 or more if they are normal, and .88 or more if they are
    exponential; of |a - b| .93 or more, and .84 or more (.92 at n = 64). Of distances in twenty dimensions .94 or more.

    Arguments:
        values: Value of each choice of two networks i < j, in the order of `numpy.triu_indices(n, 1)`.
        varies: What the networks are.

    Raises:
        ValueError: If there are no values.
    """
    if len(values) < 2:
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

    Raises:
        ValueError: If there are no trials.
    """
    from scipy.stats import binomtest

    found = _estimate(happened.astype(float), varies, "Clopper-Pearson")
    interval = binomtest(int(happened.sum()), len(happened)).proportion_ci(LEVEL, method="exact")
    return replace(found, low=interval.low, high=interval.high)


def paired(estimate: Estimate, other: Estimate) -> Estimate:
    """Return the mean difference of two estimates over the same pairs, lines, groups, ..., and its interval.

    Test examples do not vary in it.

    Raises:
        ValueError: If the two are over different numbers of values, or are counts or estimates over test networks.
    """
    methods, sizes = {estimate.method, other.method}, (len(estimate.values), len(other.values))
    if len(methods) > 1 or "Clopper-Pearson" in methods or min(sizes) == 0 or sizes[0] != sizes[1]:
        raise ValueError(f"estimates ({', '.join(methods)}) of {sizes[0]} and {sizes[1]} values cannot be paired")
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


def crossed(values: Float[np.ndarray, "resamples units"], examples: int, varies: str) -> Estimate:
    """Return the mean over units that are all measured on the same test examples, where both vary.

    Units and examples must be drawn independently. The interval is that of the sum of two parts: the mean over units in
    each resample of the examples, and Student's t for the mean over units. What depends on both is counted twice, which
    makes the interval slightly too wide.

    Arguments:
        values: Value of each unit for each row of `resample`.
        examples: Number of test examples.
        varies: What units and examples are, such as `posteriors and test examples`.

    Raises:
        ValueError: If there are no units.
    """
    found = _estimate(values[0], varies, "crossed")
    return with_bounds(found, draw_means(values.mean(1), values[0], examples)) if len(values[0]) > 2 else found


def draw_means(
    means: Float[np.ndarray, " resamples"], values: Values, examples: int, side: int = 0
) -> Float[np.ndarray, " draws"]:
    """Return draws of a mean over units: as examples vary and, with three units or more, as units vary.

    Arguments:
        means: Mean over units on all examples, then on each resample of them.
        values: Value of each unit on all examples.
        examples: Number of examples.
        side: Number of a set of units that others are compared with; draws of other sets are independent.
    """
    draws = means[0] + _expansion(examples) * (means[1:] - means[0])
    if len(values) < 3:
        return draws
    from scipy.stats import sem, t

    places = (rng_for(0, "units", side).permutation(len(draws)) + 0.5) / len(draws)
    return draws + sem(values) * t.ppf(places, len(values) - 1)


def with_bounds(found: Estimate, draws: Float[np.ndarray, " draws"]) -> Estimate:
    """Return an estimate with the interval that holds 95 % of draws; without one if all draws are alike."""
    if _alike(draws):
        return found
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return replace(found, low=float(low), high=float(high))


def describe(estimates: Sequence[Estimate]) -> str:
    """Return a line that says what varies within the intervals of estimates, such as those of a table.

    It is like `Brackets: 95 % intervals over 5 posteriors and test examples (crossed).`, or empty if there are none.
    """
    kinds: dict[tuple[str, str], set[int]] = {}
    for each in estimates:
        if each.low is not None:
            kinds.setdefault((each.varies, each.method), set()).add(each.n)
    over = (f"{' to '.join(_ends(n))} {varies} ({method})" for (varies, method), n in kinds.items())
    return f"Brackets: {100 * LEVEL:.0f} % intervals over {'; '.join(over)}." if kinds else ""


def _estimate(values: Values, varies: str, method: Method, interval: Any = None) -> Estimate:
    """Return the mean of values with an interval, or without."""
    if len(values) == 0:
        raise ValueError(f"there are no values of {varies}; give one or more")
    low, high = (None, None) if interval is None else map(float, interval)
    return Estimate(float(values.mean()), low, high, len(values), varies, method, tuple(values.tolist()))


def _alike(values: Values) -> bool:
    """Return whether values are equal up to rounding, or some of them are not finite."""
    return not np.ptp(values) > 1e-12 * max(1, np.abs(values).max())


def _t_interval(values: Values, varies: str, method: Literal["t", "jackknife"]) -> Estimate:
    """Return the mean with Student's t interval; without one if there are one or two values, or all are alike."""
    found = _estimate(values, varies, method)
    if len(values) < 3 or _alike(values):
        return found
    from scipy.stats import sem, t

    freedom = len(values) - 1 if method == "t" else max(2, len(values) - 2)
    half = float(sem(values) * t.ppf((1 + LEVEL) / 2, freedom))
    return replace(found, low=found.mean - half, high=found.mean + half)


def _expansion(n: int) -> float:
    """Return how much wider than the quantiles of resamples an interval of n values must be (Hesterberg 2014)."""
    from scipy.stats import norm, t

    tail = (1 - LEVEL) / 2
    return float((n / (n - 1)) ** 0.5 * t.ppf(tail, n - 1) / norm.ppf(tail)) if n > 1 else 1.0


def _text(value: float) -> str:
    """Return a number with three decimals, or one if it is large."""
    return f"{value:.{3 if abs(value) < 10 else 1}f}".replace("-", "\N{MINUS SIGN}")


def _ends(numbers: set[int]) -> list[str]:
    """Return the least and the greatest number, or the only one."""
    return [f"{number:,}" for number in sorted({min(numbers), max(numbers)})]
