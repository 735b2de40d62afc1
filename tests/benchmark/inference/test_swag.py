from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmark.inference.swag import Settings, Swag, fit
from tests.benchmark.inference.scenarios import EVERY_SETTING, TINY, log_posterior, some_labels, whole_row
from tests.scenarios import NETWORKS, some_data, some_thetas, treat
from zoo.errors import TaskError
from zoo.seeds import rng_for

PAIRS = [4, 9, 2]
SHORT = Settings(epochs=3, learning_rate=0.02, batch_size=8, every=2, rank=4, precision=0.7, seed=3)


def iterates(treated, row, data, pair, settings):
    """Where `torch.optim.SGD` takes one network."""
    constants = 0 if treated.constants is None else treated.constants
    theta = (row - constants)[treated.mask].clone().requires_grad_()
    optimizer = torch.optim.SGD([theta], settings.learning_rate, settings.momentum)
    value, examples = log_posterior(treated, data, settings.precision), len(data.train_y)
    visited = []
    for epoch in range(settings.epochs):
        order = rng_for(settings.seed, "order", pair, epoch).permutation(examples)
        for index in order[: examples // settings.batch_size * settings.batch_size].reshape(-1, settings.batch_size):
            optimizer.zero_grad()
            (-value(theta, (data.train_x[index], data.train_y[index]))[0] / examples).backward()
            optimizer.step()
            visited.append(whole_row(treated, theta.detach()).numpy().copy())
    return np.stack(visited)


@pytest.mark.parametrize("network", TINY)
@pytest.mark.parametrize("setting", EVERY_SETTING)
def test_moments_are_those_of_the_iterates_of_sgd(network, setting):
    treated, data = treat(setting, TINY[network], dtype=torch.float64), some_labels(network)
    rows = treated.to_rows(some_thetas(treated, 3))
    found = fit(treated, rows, data, SHORT, pairs=PAIRS)
    for k, pair in enumerate(PAIRS):
        kept = iterates(treated, rows[k], data, pair, SHORT)[1::2]  # every second
        running = np.cumsum(kept, 0) / np.arange(1, len(kept) + 1)[:, None]
        np.testing.assert_allclose(found.mean[k], kept.mean(0), atol=1e-12)
        np.testing.assert_allclose(found.variance[k], kept.var(0), atol=1e-12)
        np.testing.assert_allclose(found.deviations[k], (kept - running)[-4:], atol=1e-12)
        assert found.variance[k][treated.mask].min() > 0


def test_an_iterate_an_epoch_is_kept_by_default():
    treated, data = treat("standard", TINY["mlp"], dtype=torch.float64), some_labels("mlp")
    rows = some_thetas(treated, 1)
    settings = replace(SHORT, epochs=5, every=None, rank=3)
    found = fit(treated, rows, data, settings, pairs=[4])
    kept = iterates(treated, rows[0], data, 4, settings)[4::5]
    np.testing.assert_allclose(found.mean[0], kept.mean(0), atol=1e-12)


def test_draws_have_the_covariance_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    mean, variance = torch.randn(2, 5, generator=generator), torch.rand(2, 5, generator=generator)
    deviations = torch.randn(2, 3, 5, generator=generator)
    draws = Swag(mean, variance, deviations).draw(400_000, generator)
    for k in range(2):
        expected = variance[k].diag() / 2 + deviations[k].T @ deviations[k] / (2 * (3 - 1))
        torch.testing.assert_close(draws[k].T.cov(), expected, atol=0.02, rtol=0)
        torch.testing.assert_close(draws[k].mean(0), mean[k], atol=0.01, rtol=0)


@pytest.mark.parametrize("setting", ["standard", "w_asymmetric", "syre"])
def test_without_steps_it_is_a_point(setting):
    treated = treat(setting)
    rows = treated.to_rows(some_thetas(treated, 2, dtype=torch.float32))
    still = Settings(epochs=3, learning_rate=0.0, batch_size=8, rank=3)
    found = fit(treated, rows, some_data(), still, pairs=[0, 1])
    assert (found.draw(4, torch.Generator().manual_seed(0)) == rows[:, None]).all()


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_networks_together_are_those_one_at_a_time_bit_for_bit(network):
    treated = treat("w_asymmetric", network)
    rows, data = treated.to_rows(some_thetas(treated, 3, dtype=torch.float32)), some_data(NETWORKS[network].shape)
    together = fit(treated, rows, data, SHORT, pairs=PAIRS)
    for k, pair in enumerate(PAIRS):
        alone = fit(treated, rows[k : k + 1], data, SHORT, pairs=[pair])
        for name in ("mean", "variance", "deviations"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[k])
    draws = together.draw(5, torch.Generator().manual_seed(0))
    fixed = ~treated.mask
    assert (draws[..., fixed] == treated.constants[fixed]).all()
    assert (draws.std(1)[:, treated.mask] > 0).all()


def test_too_few_iterates_and_too_large_a_rate_are_refused():
    treated, data = treat("standard"), some_data()
    rows = some_thetas(treated, 2, dtype=torch.float32)
    with pytest.raises(TaskError, match="rank 3 of 2 iterates"):
        fit(treated, rows, data, Settings(epochs=2, rank=3), pairs=[0, 1])
    with pytest.raises(TaskError, match="rank 1 of 2 iterates; it must be 2 or more"):
        fit(treated, rows, data, Settings(epochs=2, rank=1), pairs=[0, 1])
    wild = Settings(epochs=60, learning_rate=1e3, rank=2, precision=1.0)
    with pytest.raises(TaskError, match=r"learning rate of 1000.0; take a smaller one"):
        fit(treated, rows, data, wild, pairs=[0, 1])
