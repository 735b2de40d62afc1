"""Elementary functions of `lanes`, from operations that every processor rounds alike.

The mathematical libraries of processors and systems round exp, log and tanh differently in the last bit.
"""

from zoo.training.compiled.jit import Lanes, inlined
from zoo.training.compiled.lanes import (
    absolute,
    exponent_of,
    fma,
    mantissa_of,
    negative,
    polynomial,
    power_of_two,
    where_greater,
)

ROUND = 1.5 * 2**23  # added to a number below 2^22, it rounds that number to a whole one
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4  # their sum is log(2); products with whole numbers below 2^8 are exact
SQRT2 = 1.4142135623730951

# Polynomials of exp, log and tanh: Moshier, Cephes (expf, logf, tanhf), https://www.netlib.org/cephes.
_exp = polynomial(
    0.50000001201, 0.16666665459, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4
)  # fmt: skip
_log = polynomial(
    0.33333331174, -0.24999993993, 0.20000714765, -0.16668057665, 0.14249322787, -0.12420140846, 0.1167699874,
    -0.1151461031, 7.0376836292e-2,
)  # fmt: skip
_tanh = polynomial(-0.333332819422, 0.133314422036, -5.37397155531e-2, 2.06390887954e-2, -5.70498872745e-3)
# Rational functions of GELU: fitted by weighted least squares to an error of 3e-8 from -5.5 to 5.5.
_value = polynomial(
    0.398942128, 0.0415589175, 0.00548603613, 2.71794261e-4, 1.15388583e-5, 1.83720602e-7, 4.8019094e-10
)  # fmt: skip
_slope = polynomial(
    0.797884391, -0.049863403, 0.0148503227, -2.82354625e-4, 3.19248662e-5, -2.8050105e-7, 6.51076145e-9,
    -3.4313672e-11,
)  # fmt: skip
_denominator = polynomial(
    1.0, 0.270837449, 0.0338938943, 0.00253365815, 1.21233501e-4, 3.35874839e-6, 2.71242991e-8
)  # fmt: skip


@inlined
def exp(x: Lanes) -> Lanes:
    """Return e to the power of `x`, which is clipped to the range from -64 to 64; NaN remains.

    The relative error is below 1.2e-7. Products of results rarely become subnormal numbers, with which processors are
    slow.
    """
    x = where_greater(x, 64.0, 64.0, x)
    x = where_greater(-64.0, x, -64.0, x)
    shifted = fma(x, 1.4426950408889634, ROUND)
    n = shifted - ROUND
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x))
    return (fma(_exp(r), r * r, r) + 1.0) * power_of_two(shifted)


@inlined
def log(x: Lanes) -> Lanes:
    """Return the natural logarithm of a normal positive `x`; NaN and infinity give NaN.

    The error is below 2e-7, and below 1.2e-7 of the result.
    """
    n, m = exponent_of(x), mantissa_of(x)
    n = where_greater(m, SQRT2, n + 1.0, n)
    m = where_greater(m, SQRT2, 0.5 * m, m) - 1.0
    z = m * m
    small = fma(n, LN2_LOW, fma(-0.5, z, _log(m) * m * z))
    return fma(n, LN2_HIGH, m + small) + (x - x)


@inlined
def sigmoid(x: Lanes) -> Lanes:
    """Return `1 / (1 + exp(-x))`."""
    return 1.0 / (1.0 + exp(negative(x)))


@inlined
def tanh(x: Lanes) -> Lanes:
    """Return the hyperbolic tangent, with a relative error below 3e-7."""
    z = x * x
    far = 1.0 - 2.0 / (1.0 + exp(2.0 * x))
    return where_greater(0.625, absolute(x), fma(_tanh(z) * z, x, x), far)


@inlined
def gelu(x: Lanes) -> tuple[Lanes, Lanes]:
    """Return `x * P(x)` and its derivative, where `P` is the normal distribution function.

    The error of `P` is below 2e-7, that of the derivative below 7e-7.
    """
    clipped = where_greater(-5.5, x, -5.5, x)
    clipped = where_greater(clipped, 5.5, 5.5, clipped)
    z = clipped * clipped
    odd = clipped / _denominator(z)
    probability, slope = fma(_value(z), odd, 0.5), fma(_slope(z), odd, 0.5)
    return x * where_greater(-5.5, x, 0.0, probability), where_greater(-5.5, x, 0.0, slope)
