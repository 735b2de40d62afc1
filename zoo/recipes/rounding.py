"""Elementary functions that are the same, bit for bit, on every machine.

The last bit of `numpy.exp`, `math.exp` and powers depends on the processor and on the system's library. The functions
here compute 30 decimal digits and round once.
"""

from decimal import Context, Decimal
from functools import lru_cache

DIGITS = Context(prec=30)


@lru_cache
def correct_log(x: float) -> float:
    """Return the natural logarithm of a positive number, correctly rounded."""
    return float(DIGITS.ln(Decimal(x)))


def correct_exp(x: float) -> float:
    """Return e to the power of a number, correctly rounded."""
    return float(DIGITS.exp(Decimal(x)))


def correct_power(base: float, exponent: float) -> float:
    """Return a power of a positive number, correctly rounded."""
    return float(DIGITS.power(Decimal(base), Decimal(exponent)))
