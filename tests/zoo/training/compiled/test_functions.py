import numpy as np
import pytest
import scipy.special
from numba import njit

from zoo.training.compiled import functions
from zoo.training.compiled.functions import exp, log, sigmoid, tanh
from zoo.training.compiled.lanes import LANES, load, store, total

gelu = njit(lambda x: functions.gelu(x)[0])
gelu_slope = njit(lambda x: functions.gelu(x)[1])
EVERYWHERE = np.linspace(-20, 20, 1 << 16).astype(np.float32)


def gelu_exactly(x):
    return x * scipy.special.ndtr(x)


def gelu_slope_exactly(x):
    return scipy.special.ndtr(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def apply(function, x):
    """Apply a function of sixteen numbers to an array."""

    @njit
    def run(x, y):
        for i in range(0, len(x), LANES):
            store(y, i, function(load(x, i)))

    y = np.empty_like(x)
    run(x, y)
    return y


@pytest.mark.parametrize(
    ("function", "reference", "absolute", "relative"),
    [
        (exp, np.exp, 0, 1.2e-7),
        (log, np.log, 2e-7, 1.2e-7),
        (sigmoid, scipy.special.expit, 0, 2e-7),
        (tanh, np.tanh, 0, 3e-7),
        (gelu, gelu_exactly, 1.2e-6, 2e-7),
        (gelu_slope, gelu_slope_exactly, 7e-7, 0),
    ],
    ids=["exp", "log", "sigmoid", "tanh", "gelu", "the derivative of gelu"],
)
def test_functions_are_those_of_numpy_and_scipy(function, reference, absolute, relative):
    x = np.exp(EVERYWHERE) if function is log else EVERYWHERE
    np.testing.assert_allclose(apply(function, x), reference(x.astype(np.float64)), rtol=relative, atol=absolute)


@pytest.mark.parametrize("function", [exp, log, sigmoid, tanh, gelu, gelu_slope])
def test_nan_stays_nan(function):
    assert np.isnan(apply(function, np.full(LANES, np.nan, np.float32))).all()


@pytest.mark.parametrize(
    ("function", "below", "above"), [(exp, np.exp(-64), np.exp(64)), (sigmoid, np.exp(-64), 1), (tanh, -1, 1)]
)
def test_functions_are_constant_far_from_zero(function, below, above):
    for far in (70, 1e30, np.inf):
        found = apply(function, np.repeat([-far, far], LANES).astype(np.float32))
        np.testing.assert_allclose(found, np.repeat([below, above], LANES), rtol=1e-6)


def test_a_total_adds_halves():
    x = np.random.default_rng(0).standard_normal(LANES).astype(np.float32)
    expected = x
    while len(expected) > 1:
        half = len(expected) // 2
        expected = expected[:half] + expected[half:]
    assert njit(lambda x: total(load(x, 0)))(x) == expected[0]
