from dataclasses import replace
from itertools import product

import numpy as np
import posteriors
import pytest
import torch
from scipy.stats import norm

from benchmark.inference.langevin import Langevin, Settings, fit, split_rhat
from tests.benchmark.inference.scenarios import (
    EVERY_SETTING,
    TINY,
    log_posterior,
    regression,
    some_labels,
    whole_row,
)
from tests.scenarios import some_data, some_thetas, treat
from zoo.errors import TaskError
from zoo.seeds import rng_for, seed_for

PAIRS = [4, 9, 2]
SETTINGS = Settings(precision=0.7, seed=3)


def run_regression(settings, setting="standard", chains=60):
    known = regression(setting)
    ones = torch.ones(chains, len(known.precision), dtype=torch.float64)
    start = known.treated.to_rows(known.treated.keep_trainable(ones))
    settings = replace(settings, precision=known.precision, loss=known.loss)
    return known, fit(known.treated, start, known.data, settings, pairs=range(chains))


@pytest.mark.parametrize("setting", EVERY_SETTING)
def test_chains_have_the_mean_and_covariance_of_a_gaussian_posterior_whatever_the_step(setting):
    fastest = float(torch.linalg.eigvalsh(regression(setting).covariance)[0] ** -0.5)
    settings = Settings(step_size=1.5 / fastest, friction=fastest / 4, burn_in=100, draws=300, every=2)
    known, found = run_regression(settings, setting)
    free = known.treated.mask
    if not free.all():
        assert (found.kept[..., ~free] == known.treated.constants[~free]).all()
    away = found.kept[..., free] - known.mean
    # Chains are independent, so their spread tells how far their mean may be off, which is not far.
    scale = known.covariance.diagonal().sqrt()
    squares = torch.einsum("ksp,ksq->kpq", away, away) / away.shape[1]
    for values, expected, unit in (
        (away.mean(1), 0 * scale, scale),
        (squares, known.covariance, scale[:, None] * scale),
    ):
        error = values.std(0) / len(values) ** 0.5
        assert ((values.mean(0) - expected) / error).abs().max() < 4
        assert (error / unit).max() < 0.05


@pytest.mark.parametrize(("network", "setting", "batch_size"), list(product(TINY, EVERY_SETTING, [None, 8])))
def test_steps_are_those_of_posteriors_given_the_same_noise(network, setting, batch_size, monkeypatch):
    treated, data = treat(setting, TINY[network], dtype=torch.float64), some_labels(network)
    rows, free = treated.to_rows(some_thetas(treated, 3)), treated.mask
    settings = replace(SETTINGS, step_size=0.02, friction=2.0, burn_in=3, draws=4, every=2, batch_size=batch_size)
    found = fit(treated, rows, data, settings, pairs=PAIRS)
    assert found.kept.shape == (3, 4, treated.layout.size)
    for k, pair in enumerate(PAIRS):
        generator = torch.Generator().manual_seed(seed_for(3, "langevin", pair))

        def noise(like=None, generator=generator):
            return torch.randn(treated.layout.size, generator=generator, dtype=torch.float64)[free]

        monkeypatch.setattr(torch, "randn_like", noise)
        orders = np.stack([rng_for(3, "order", pair, epoch).permutation(len(data.train_y)) for epoch in range(3)])
        batches = [slice(None)] * 11 if batch_size is None else orders.reshape(-1, batch_size)[:11]
        value = log_posterior(treated, data, SETTINGS.precision)
        transform = posteriors.sgmcmc.baoa.build(value, lr=0.02, alpha=2.0, momenta=noise())
        constants = 0 if treated.constants is None else treated.constants
        state, visited, heat = transform.init((rows[k] - constants)[free]), [], []
        for index in batches:
            state, _ = transform.update(state, (data.train_x[index], data.train_y[index]))
            visited.append(whole_row(treated, state.params))
            heat.append(state.momenta.square().mean())
        torch.testing.assert_close(
            found.kept[k], torch.stack(visited[4::2]), rtol=1e-6, atol=1e-6
        )  # whose friction is float32
        assert found.temperature[k].item() == pytest.approx(torch.stack(heat[3:]).mean().item(), rel=1e-5)


@pytest.mark.parametrize("batch_size", [None, 8])
def test_chains_together_are_those_one_at_a_time_bit_for_bit(batch_size):
    treated, data = treat("w_asymmetric"), some_data()
    rows = treated.to_rows(some_thetas(treated, 3, dtype=torch.float32))
    settings = replace(SETTINGS, burn_in=5, draws=3, every=4, batch_size=batch_size)
    together = fit(treated, rows, data, settings, pairs=PAIRS)
    for k, pair in enumerate(PAIRS):
        alone = fit(treated, rows[k : k + 1], data, settings, pairs=[pair])
        assert torch.equal(alone.kept[0], together.kept[k])
    fixed = ~treated.mask
    assert (together.kept[..., fixed] == treated.constants[fixed]).all()


def test_rows_are_drawn_from_those_kept_and_none_twice():
    kept = torch.arange(24.0).view(2, 4, 3)
    chains = Langevin(kept, torch.ones(2))
    draws = chains.draw(3, torch.Generator().manual_seed(0))
    for own, chain in zip(draws.tolist(), kept.tolist(), strict=True):
        assert len({tuple(row) for row in own} & {tuple(row) for row in chain}) == 3
    firsts = torch.cat([chains.draw(1, torch.Generator().manual_seed(seed)) for seed in range(400)], 1)
    fractions = (firsts[..., :1] == kept[:, None, :, 0]).double().mean(1)
    assert ((fractions - 1 / 4) / (3 / 16 / 400) ** 0.5).abs().max() < 4
    with pytest.raises(TaskError, match="have 4 draws, not 5"):
        chains.draw(5, torch.Generator())


def test_the_temperature_is_one_unless_minibatches_heat_the_chain():
    calm = Settings(step_size=0.02, friction=5.0, burn_in=300, draws=1, every=500)
    assert (run_regression(calm)[1].temperature.mean() - 1).abs() < 0.02
    assert run_regression(replace(calm, batch_size=2))[1].temperature.mean() > 1.1


def test_too_large_a_step_is_refused():
    with pytest.raises(TaskError, match=r"step_size of 10.0; take a smaller one"):
        run_regression(Settings(step_size=10.0, burn_in=400, draws=1, every=1), chains=2)


def plain_rhat(values):
    """Of chains that are halved already."""
    chains, draws = values.shape
    means = [chain.mean() for chain in values]
    between = draws * sum((mean - np.mean(means)) ** 2 for mean in means) / (chains - 1)
    within = np.mean([((chain - chain.mean()) ** 2).sum() / (draws - 1) for chain in values])
    return np.sqrt(((draws - 1) / draws * within + between / draws) / within)


def test_rhat_of_normal_scores_is_that_of_gelman_and_rubin():
    # Values that have the normal scores of their ranks already, so that ranking changes nothing.
    scores = norm.ppf((np.arange(1, 401) - 3 / 8) / (400 + 1 / 4))
    values = np.random.default_rng(0).permutation(scores).reshape(4, 100)
    values[0].sort()  # a chain that drifts
    found = split_rhat(values[..., None])
    expected = plain_rhat(values.reshape(8, 50))
    assert expected > 1.1
    np.testing.assert_allclose(found, [expected])


def test_rhat_is_large_for_chains_that_have_not_mixed():
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((4, 501, 20))
    assert split_rhat(mixed).shape == (20,)
    assert split_rhat(mixed).max() < 1.02
    apart, wider, drift = mixed.copy(), mixed.copy(), mixed.copy()
    apart[0] += 1
    wider[0] *= 3
    drift += np.linspace(0, 2, 501)[:, None]
    for values in (apart, wider, drift):
        assert split_rhat(values).min() > 1.05
    heavy = rng.standard_cauchy((4, 501, 20))  # without a mean or variance to compare
    assert split_rhat(heavy).max() < 1.02
    heavy[0] += 2
    assert split_rhat(heavy).min() > 1.05
    assert np.isnan(split_rhat(np.ones((4, 501, 1)))).all()
