import pytest
import torch
from torch.autograd.functional import hessian  # torch.func.hessian is wrong for the scale of a LayerNorm
from torch.func import functional_call
from torch.nn import functional

from benchmark.hessian import hessian_product, largest_eigenvalues
from tests.scenarios import Network, some_thetas, treat
from zoo.networks.stack import stack_gradient

TINY = {
    "mlp": Network("mlp", {"widths": [4, 4, 3]}, (4,)),
    "cnn": Network("cnn", {"channels": [1, 3, 4], "classes": 3, "activation": "tanh"}, (1, 8, 8)),
}
EVERY_TINY = pytest.mark.parametrize("network", TINY)
SETTING = pytest.mark.parametrize("setting", ["standard", {"kind": "w_asymmetric", "n_fix": 1}])


def some_problem(network, setting):
    """Tiny networks, labelled examples, and the exact Hessians over trainable entries, `(K, P, P)`."""
    treated = treat(setting, TINY[network], dtype=torch.float64)
    stack = treated.stack(treated.to_rows(some_thetas(treated, 3)))
    x = TINY[network].examples(20)
    y = torch.randint(3, (20,), generator=torch.Generator().manual_seed(0))

    def loss(row):
        return functional.cross_entropy(functional_call(stack.module, stack.layout.unflatten(row), (x,)), y)

    both = treated.mask[:, None] * treated.mask
    return treated, stack, x, y, torch.stack([hessian(loss, row) for row in stack.rows]) * both


@EVERY_TINY
@SETTING
def test_products_are_those_of_the_exact_hessian(network, setting, monkeypatch):
    treated, stack, x, y, exact = some_problem(network, setting)
    v = torch.randn(stack.rows.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    v = v * treated.mask
    expected = torch.einsum("kpq,kq->kp", exact, v)
    torch.testing.assert_close(hessian_product(stack, treated.mask, x, y, v), expected)
    monkeypatch.setattr("benchmark.hessian.AT_ONCE", 7)  # the last batch is smaller
    torch.testing.assert_close(hessian_product(stack, treated.mask, x, y, v), expected)
    assert (expected[:, ~treated.mask] == 0).all()


@EVERY_TINY
def test_products_are_differences_of_gradients(network):
    treated, stack, x, y, _ = some_problem(network, "standard")
    v = torch.randn(stack.rows.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def gradient(rows):
        images, labels = x.expand(len(rows), *x.shape), y.expand(len(rows), -1)
        return stack_gradient(stack.with_rows(rows), images, labels)[1]

    difference = (gradient(stack.rows + 1e-5 * v) - gradient(stack.rows - 1e-5 * v)) / 2e-5
    torch.testing.assert_close(hessian_product(stack, treated.mask, x, y, v), difference, rtol=1e-5, atol=1e-6)


@EVERY_TINY
@SETTING
def test_eigenvalues_are_those_of_the_exact_hessian(network, setting):
    treated, stack, x, y, exact = some_problem(network, setting)
    start = torch.randn(stack.rows.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = largest_eigenvalues(lambda v: hessian_product(stack, treated.mask, x, y, v), start * treated.mask, steps=60)
    torch.testing.assert_close(found[:, :3], torch.linalg.eigvalsh(exact).flip(1)[:, :3], rtol=1e-6, atol=1e-9)


def test_lanczos_with_as_many_steps_as_dimensions_finds_every_eigenvalue():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 12, 12, generator=generator, dtype=torch.float64)
    a = a + a.mT
    start = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    found = largest_eigenvalues(lambda v: torch.einsum("kpq,kq->kp", a, v), start, steps=12, largest=12)
    torch.testing.assert_close(found, torch.linalg.eigvalsh(a).flip(1))
