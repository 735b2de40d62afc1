import copy

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian  # torch.func.hessian is wrong for the scale of a LayerNorm
from torch.func import functional_call
from torch.nn import functional

from benchmark.phenomena import curvature as module
from benchmark.phenomena.curvature import curvature, hessian_product, largest_eigenvalues
from tests.scenarios import Network, small_recipe, some_thetas, treat
from zoo import generate
from zoo.data import load_data
from zoo.errors import TaskError
from zoo.networks.stack import Stack, stack_gradient

TINY = {
    "mlp": Network("mlp", {"widths": [4, 4, 3]}, (4,)),
    "cnn": Network("cnn", {"channels": [1, 3, 4], "classes": 3, "activation": "tanh"}, (1, 8, 8)),
}
EVERY_TINY = pytest.mark.parametrize("network", TINY)
SETTING = pytest.mark.parametrize("setting", ["standard", {"kind": "w_asymmetric", "n_fix": 1}])


def some_problem(network, setting):
    """Tiny networks, labelled examples, and the exact Hessians over trainable entries, `(K, P, P)`."""
    treated = treat(setting, TINY[network], dtype=torch.float64)
    stack = Stack(treated.rows(some_thetas(treated, 3)), treated.module, treated.layout)
    x = TINY[network].examples(20)
    y = torch.randint(3, (20,), generator=torch.Generator().manual_seed(0))

    def loss(row):
        return functional.cross_entropy(functional_call(stack.module, stack.layout.unflatten(row), (x,)), y)

    both = treated.trainable[:, None] * treated.trainable
    return treated, stack, x, y, torch.stack([hessian(loss, row) for row in stack.rows]) * both


@EVERY_TINY
@SETTING
def test_products_are_those_of_the_exact_hessian(network, setting, monkeypatch):
    treated, stack, x, y, exact = some_problem(network, setting)
    v = torch.randn(stack.rows.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    v = v * treated.trainable
    expected = torch.einsum("kpq,kq->kp", exact, v)
    torch.testing.assert_close(hessian_product(stack, treated.trainable, x, y, v), expected)
    monkeypatch.setattr(module, "AT_ONCE", 7)  # the last batch is smaller
    torch.testing.assert_close(hessian_product(stack, treated.trainable, x, y, v), expected)
    assert (expected[:, ~treated.trainable] == 0).all()


@EVERY_TINY
def test_products_are_differences_of_gradients(network):
    treated, stack, x, y, _ = some_problem(network, "standard")
    v = torch.randn(stack.rows.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def gradient(rows):
        images, labels = x.expand(len(rows), *x.shape), y.expand(len(rows), -1)
        return stack_gradient(stack.with_rows(rows), images, labels)[1]

    difference = (gradient(stack.rows + 1e-5 * v) - gradient(stack.rows - 1e-5 * v)) / 2e-5
    torch.testing.assert_close(hessian_product(stack, treated.trainable, x, y, v), difference, rtol=1e-5, atol=1e-6)


@EVERY_TINY
@SETTING
def test_eigenvalues_are_those_of_the_exact_hessian(network, setting):
    treated, stack, x, y, exact = some_problem(network, setting)
    start = torch.randn(stack.rows.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = largest_eigenvalues(
        lambda v: hessian_product(stack, treated.trainable, x, y, v), start * treated.trainable, steps=60
    )
    torch.testing.assert_close(found[:, :3], torch.linalg.eigvalsh(exact).flip(1)[:, :3], rtol=1e-6, atol=1e-9)


def test_lanczos_with_as_many_steps_as_dimensions_finds_every_eigenvalue():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 12, 12, generator=generator, dtype=torch.float64)
    a = a + a.mT
    start = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    found = largest_eigenvalues(lambda v: torch.einsum("kpq,kq->kp", a, v), start, steps=12, largest=12)
    torch.testing.assert_close(found, torch.linalg.eigvalsh(a).flip(1))


@pytest.fixture(scope="module")
def data():
    return load_data("digits", train_limit=100)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    recipe = small_recipe(3, training={"batch_size": 32, "learning_rate": 1e-2, "epochs": 2})
    return generate(recipe.only(["standard", "w_asymmetric"]), tmp_path_factory.mktemp("zoos") / "replicas")


@pytest.mark.parametrize("treatment", ["standard", "w_asymmetric"])
def test_traces_are_those_of_exact_hessians_within_their_errors(replicas, data, treatment, monkeypatch):
    monkeypatch.setattr(module, "PROBES", 64)
    (found,) = curvature(replicas, treatment, data)
    treated = replicas.treated(treatment)
    trainable = treated.trainable.nonzero().flatten()
    for k, row in enumerate(replicas.rows(treatment)):
        row = row.double()
        network = copy.deepcopy(treated.module).double()

        def loss(some, row=row, network=network):
            whole = row.index_copy(0, trainable, some)
            logits = functional_call(network, treated.layout.unflatten(whole), (data.train_x.double(),))
            return functional.cross_entropy(logits, data.train_y)

        exact = hessian(loss, row[trainable])
        assert abs(found.trace[k] - exact.trace()) < 4 * found.trace_error[k]
        assert found.trace_error[k] < 0.2 * exact.trace()
        largest = torch.linalg.eigvalsh(exact).flip(0)
        assert found.eigenvalues[k, 0] == pytest.approx(float(largest[0]), rel=1e-3)
    assert found.means["trace"].mean == pytest.approx(found.trace.mean())


def test_two_networks_are_the_least(replicas, data, monkeypatch):
    monkeypatch.setattr(replicas, "index", lambda treatment: np.arange(1))
    with pytest.raises(TaskError, match="standard has 1 trained networks; 2 or more are needed"):
        curvature(replicas, "standard", data)


def test_networks_do_not_depend_on_portions(replicas, data, monkeypatch):
    portions = []
    monkeypatch.setattr(module, "stack_size", lambda *network: 4)
    (found,) = curvature(replicas, "standard", data, progress=portions.append)
    assert portions == [1, 1, 1]
    monkeypatch.undo()
    (whole,) = curvature(replicas, "standard", data)
    assert np.allclose(found.eigenvalues[:, 0], whole.eigenvalues[:, 0], rtol=1e-3)
