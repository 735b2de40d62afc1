import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from zoo.training.compiled.lanes import LANES
from zoo.training.compiled.products import INNER, Left, Product, Right, multiply, transpose


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def product(a, b, added=True):
    """The product of `a (rows, inner)` and panels `b (panels, inner, 16)`, added to ones or in their place."""
    (rows, inner), panels = a.shape, len(b)
    c = np.ones((panels, rows, LANES), np.float32)
    left, right = Left(a.ravel(), rows, 0, inner, 0, 1, 1, inner), Right(b.ravel(), panels, 0, inner * LANES)
    multiply(left, right, Product(c.ravel(), 0, LANES, rows * LANES, added))
    return c


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 40), inner=st.integers(1, 40), panels=st.integers(1, 3), seed=st.integers(0, 99))
def test_products_are_those_of_numpy(rows, inner, panels, seed):
    a, b = numbers(rows, inner, seed=seed), numbers(panels, inner, LANES, seed=seed + 1)
    expected = a.astype(float) @ b.astype(float)
    np.testing.assert_allclose(product(a, b), 1 + expected, atol=1e-5)
    np.testing.assert_allclose(product(a, b, added=False), expected, atol=1e-5)


def test_a_long_inner_dimension_is_added_in_portions():
    a, b = numbers(7, 2 * INNER + 5), numbers(2, 2 * INNER + 5, LANES, seed=1)
    np.testing.assert_allclose(product(a, b), 1 + a.astype(float) @ b.astype(float), atol=1e-3)


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 30), others=st.integers(1, 30), inner=st.integers(1, 40))
def test_a_row_of_a_product_is_the_same_whatever_is_computed_beside_it(rows, others, inner):
    a, b = numbers(rows + others, inner), numbers(1, inner, LANES, seed=1)
    np.testing.assert_array_equal(product(a, b)[:, :rows], product(a[:rows], b))


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_inner_dimension_may_lie_in_blocks(blocks):
    slopes, inputs = numbers(blocks, 5, LANES), numbers(2, blocks * LANES, LANES, seed=1)
    c = np.zeros((5, 2 * LANES), np.float32)
    left = Left(slopes.ravel(), 5, 0, LANES, 5 * LANES, 1, blocks, LANES)
    multiply(left, Right(inputs.ravel(), 2, 0, blocks * LANES * LANES), Product(c.ravel(), 0, 2 * LANES, LANES, False))
    expected = np.einsum("bul,pblc->upc", slopes, inputs.reshape(2, blocks, LANES, LANES))
    np.testing.assert_allclose(c, expected.reshape(5, -1), atol=1e-5)


def test_a_transpose_is_that_of_numpy():
    x, y = numbers(LANES, 20), np.zeros((LANES, LANES), np.float32)
    njit(lambda x, y: transpose(x, 3, 20, y, 0))(x.ravel(), y.ravel())
    np.testing.assert_array_equal(y, x[:, 3 : 3 + LANES].T)
