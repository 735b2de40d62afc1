import numpy as np
import pytest
import torch

from tests.scenarios import SETTINGS, some_data, some_thetas, treat
from tests.zoo.training.test_training import SEED, train_alone
from zoo.recipes.optimizer import Optimizer
from zoo.training.compiled.training import train_compiled
from zoo.training.results import MEASURED, Draws
from zoo.training.stacked import train_stacked

OPTIMIZER = pytest.mark.parametrize("optimizer", ["adamw", "sgd"])


def draws(rates, epochs, decay=0.1, smoothing=0.1):
    floats = (torch.tensor(values, dtype=torch.float64) for values in (rates, [decay] * len(rates)))
    smoothings = torch.full((len(rates),), smoothing, dtype=torch.float64)
    return Draws(torch.arange(len(rates)), *floats, smoothings, torch.tensor(epochs))


def relative_error(rows, expected):
    return float((rows.double() - expected).norm() / expected.norm())


@OPTIMIZER
@pytest.mark.parametrize("network", ["mlp", "mlp_plain"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_errors_after_20_steps_are_those_of_float32(setting, network, optimizer):
    subject, exact = treat(setting, network), treat(setting, network, dtype=torch.float64)
    settings = Optimizer(optimizer=optimizer, batch_size=16)
    data = some_data((8,), train=320)
    start, draw = some_thetas(subject, 1, dtype=torch.float32), draws([0.01], [1])
    arguments = (0.01, 0.1, 0.1, 1, 0)  # rate, decay, smoothing, epochs, pair
    expected = train_alone(exact, start[0].double(), settings, data.to("cpu", torch.float64), *arguments)[-1]
    by_torch = train_alone(subject, start[0].clone(), settings, data, *arguments)[-1]
    by_engine = train_compiled(subject, start, draw, data, settings, seed=SEED).rows[0]
    assert relative_error(by_engine, expected) <= 3 * relative_error(by_torch, expected) + 1e-6


# Between these rates, the backward pass of LayerNorm in PyTorch overflows a few steps before exact gradients do.
RATES = {"mlp": (0.01, 10.0, 1e30, 1e34, 1e38), "mlp_plain": (0.01, 10.0, 1e8, 1e16, 1e30, 1e38)}


@OPTIMIZER
@pytest.mark.parametrize("network", RATES)
def test_the_same_networks_diverge_as_in_stacks_and_keep_the_same_weights(network, optimizer):
    subject, data, rates = treat("standard", network), some_data((8,)), RATES[network]
    start, draw = some_thetas(subject, len(rates), dtype=torch.float32), draws(rates, [1, 2, 1, 2, 1, 2][: len(rates)])
    settings = Optimizer(optimizer=optimizer, batch_size=8)
    found, expected = (
        train(subject, start, draw, data, settings, seed=SEED) for train in (train_compiled, train_stacked)
    )
    assert found.diverged.tolist() == expected.diverged.tolist()
    diverged = found.diverged
    assert 3 <= diverged.sum() < len(rates)
    torch.testing.assert_close(found.rows[diverged], expected.rows[diverged], rtol=2e-3, atol=1e-4)
    for name, values in found.metrics.items():
        torch.testing.assert_close(values[diverged], expected.metrics[name][diverged], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("train", [train_compiled, train_stacked])
def test_curves_are_measured_every_n_epochs_and_after_the_last(train):
    subject, data = treat("w_asymmetric"), some_data()
    start, draw = some_thetas(subject, 4, dtype=torch.float32), draws([0.01] * 4, [7, 6, 2, 1])
    full, some = (
        train(subject, start, draw, data, Optimizer(batch_size=8, curves=every), seed=SEED) for every in (1, 3)
    )
    measured = [[2, 5, 6], [2, 5], [1], [0]]
    assert torch.equal(full.rows, some.rows)
    for name in MEASURED:
        assert torch.equal(full.metrics[name], some.metrics[name])
        for k, epochs in enumerate(measured):
            assert torch.equal(some.curves[name][k].isfinite().nonzero().flatten(), torch.tensor(epochs))
            assert torch.equal(some.curves[name][k, epochs], full.curves[name][k, epochs])


def test_a_network_that_diverges_between_measurements_keeps_its_last_finite_weights():
    subject, data = treat("standard", "mlp_plain"), some_data((8,))
    start, draw = some_thetas(subject, 1, dtype=torch.float32), draws([1e30], [5])
    for train in (train_compiled, train_stacked):
        found = train(subject, start, draw, data, Optimizer(batch_size=8, curves=5), seed=SEED)
        assert found.diverged.all()
        assert found.metrics["train_loss"].isfinite().all()
        assert found.curves["train_loss"].isnan().all()


def test_networks_do_not_depend_on_their_order():
    subject, data = treat("sigma_asymmetric"), some_data()
    start, draw = some_thetas(subject, 3, dtype=torch.float32), draws([0.01, 1e38, 0.02], [2, 3, 1])
    order = torch.tensor([2, 0, 1])
    found = train_compiled(subject, start, draw, data, Optimizer(batch_size=8), seed=SEED)
    draw = Draws(*(getattr(draw, name)[order] for name in vars(draw)))
    again = train_compiled(subject, start[order], draw, data, Optimizer(batch_size=8), seed=SEED)
    assert torch.equal(found.rows[order], again.rows)
    for name in MEASURED:
        assert torch.equal(found.metrics[name][order], again.metrics[name])


@pytest.mark.parametrize(("train", "test"), [(16, 16), (17, 1), (40, 33)])
def test_metrics_are_those_of_the_network_whatever_the_number_of_examples(train, test):
    subject, data = treat("standard"), some_data(train=train, test=test)
    start, draw = some_thetas(subject, 2, dtype=torch.float32), draws([0.01] * 2, [1, 2])
    found = train_compiled(subject, start, draw, data, Optimizer(batch_size=64), seed=SEED)
    stack = subject.stack(found.rows)
    measured = (*stack.evaluate(data.train_x, data.train_y), *stack.evaluate(data.test_x, data.test_y))
    for name, expected in zip(MEASURED, measured, strict=True):
        torch.testing.assert_close(found.metrics[name], expected, rtol=1e-5, atol=1e-6)


def test_a_tie_is_predicted_as_the_first_class():
    subject, data = treat("standard"), some_data()
    start = torch.zeros_like(some_thetas(subject, 1, dtype=torch.float32))
    found = train_compiled(subject, start, draws([0.0], [1]), data, Optimizer(batch_size=8), seed=SEED)
    expected = float(np.mean(data.test_y.numpy() == 0))
    assert float(found.metrics["test_accuracy"][0]) == pytest.approx(expected)
    assert float(found.metrics["test_loss"][0]) == pytest.approx(np.log(data.classes), rel=1e-6)
