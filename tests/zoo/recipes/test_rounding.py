from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from zoo.recipes.rounding import correct_exp, correct_log, correct_power


@pytest.mark.parametrize("x", np.random.default_rng(0).uniform(-9, 9, 40).tolist())
def test_results_are_the_numbers_next_to_60_digits(x):
    with localcontext() as context:
        context.prec = 60
        exactly = {
            correct_exp(x): Decimal(x).exp(),
            correct_log(abs(x)): Decimal(abs(x)).ln(),
            correct_power(abs(x), x): Decimal(abs(x)) ** Decimal(x),
        }
    for found, exact in exactly.items():
        distances = [
            abs(Fraction(candidate) - Fraction(exact)) for candidate in np.nextafter(found, [-np.inf, found, np.inf])
        ]
        assert min(distances) == distances[1]


def test_known_results():
    assert correct_exp(0.0) == correct_power(7.0, 0.0) == 1
    assert correct_exp(1.0) == 2.718281828459045
    assert correct_log(1.0) == 0
    assert correct_power(100.0, -0.5) == 0.1
