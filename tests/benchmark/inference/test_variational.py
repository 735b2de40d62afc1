import math
from dataclasses import replace

import numpy as np
import posteriors
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from benchmark.inference.local import draw_noise, layers_of, output_shapes
from benchmark.inference.trainees import Trainees
from benchmark.inference.variational import Settings, fit
from tests.scenarios import NETWORKS, Network, some_data, some_thetas, treat
from zoo.data import Data

NOISE = 0.1  # variance of the labels
LINEAR = Network("mlp", {"widths": [4, 1]}, (4,))
BRIEF = Settings(rank=2, steps=3, batch_size=8, log_variance=-4.0)


def posterior_of(setting="standard", network="mlp", networks=3, rank=2, random=None):
    """Posteriors in general position."""
    treated = treat(setting, network, dtype=torch.float64)
    start = treated.to_rows(some_thetas(treated, networks))
    settings = replace(BRIEF, rank=rank, steps=2, learning_rate=0.05)
    data = some_data(NETWORKS[network].shape).to("cpu", torch.float64)
    return fit(treated, start, data, settings, pairs=range(networks), random=random)


def covariances(posterior, k):
    """The covariance of each layer's random columns, with the columns."""
    for places in layers_of(posterior.treated).values():
        columns = torch.cat([torch.arange(p.start, p.stop) for p in places.values()])
        columns = columns[posterior.random[columns]]
        v = posterior.factors[k][:, columns]
        yield columns, v.T @ v / max(1, len(v)) + torch.diag(posterior.variance[k, columns])


def divergence_of_normals(posterior, k):
    """The divergence of each layer's normal distribution from the prior, summed, by PyTorch."""
    total = torch.zeros((), dtype=torch.float64)
    for columns, covariance in covariances(posterior, k):
        prior = MultivariateNormal(torch.zeros(len(columns)).double(), torch.diag(1 / posterior.precision[columns]))
        total += kl_divergence(MultivariateNormal(posterior.theta[k, columns], covariance), prior)
    return total


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("setting", ["standard", "w_asymmetric"])
def test_divergence_is_that_of_the_normal_distributions_of_layers(setting, rank):
    posterior = posterior_of(setting, rank=rank)
    for k, found in enumerate(Trainees(posterior).divergence()):
        torch.testing.assert_close(found, divergence_of_normals(posterior, k), rtol=1e-9, atol=0)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("setting", ["standard", "w_asymmetric"])
def test_gradient_of_the_divergence_is_that_by_autograd(setting, rank):
    posterior = posterior_of(setting, rank=rank, networks=2)
    trainees = Trainees(posterior)
    for tensor in trainees.tensors:
        tensor.grad = torch.ones_like(tensor)
    trainees.divergence(0.5)
    trainees.keep_fixed()
    leaves = [posterior.theta, posterior.factors if rank else posterior.log_variance]
    for leaf in leaves:
        leaf.requires_grad_()
    total = divergence_of_normals(posterior, 0) + divergence_of_normals(posterior, 1)
    expected = [1 + 0.5 * gradient for gradient in torch.autograd.grad(total, leaves)]
    expected[1] = expected[1] * posterior.random
    flatten, weights = posterior.treated.layout.flatten, layers_of(posterior.treated)
    found = flatten({name: tensor.grad for name, tensor in trainees.theta.items()})
    torch.testing.assert_close(found, expected[0], rtol=1e-8, atol=1e-8)
    for layer, places in weights.items():
        for kind, place in places.items():
            own = trainees.spread[f"{layer}.{kind}"].grad.flatten(1 + bool(rank))
            torch.testing.assert_close(own, expected[1][..., place], rtol=1e-8, atol=1e-8)


def test_draws_have_the_mean_and_the_covariance_of_the_posterior():
    posterior = posterior_of("w_asymmetric", networks=2)
    draws = posterior.draw(20_000, torch.Generator().manual_seed(0))
    fixed = ~posterior.treated.mask
    assert torch.equal(draws[..., fixed], posterior.treated.constants[fixed].expand(2, 20_000, -1))
    for k in range(2):
        spread = draws[k] - posterior.rows[k]
        for columns, covariance in covariances(posterior, k):
            found, scale = spread[:, columns].T.cov(), covariance.diag().sqrt()
            assert ((found - covariance).abs() / torch.outer(scale, scale)).max() < 0.05
            assert (spread[:, columns].mean(0) / scale).abs().max() < 0.05


@pytest.mark.parametrize("setting", ["standard", "w_asymmetric", "syre"])
def test_posteriors_begin_around_the_networks_given_and_the_prior_is_stronger_in_wide_layers(setting):
    treated = treat(setting, dtype=torch.float64)
    start = treated.to_rows(some_thetas(treated, 2))
    posterior = fit(treated, start, some_data().to("cpu", torch.float64), replace(BRIEF, steps=0), pairs=[0, 1])
    torch.testing.assert_close(posterior.rows, start)
    for weight in treated.layout.weights:
        where = treated.layout.slices[weight.name]
        expected = torch.where(treated.mask[where], BRIEF.precision * weight.shape[0], 0).double()
        torch.testing.assert_close(posterior.precision[where], expected)


def test_noise_of_each_example_is_that_of_weights_drawn_for_it():
    treated = treat("standard", Network("mlp", {"widths": [4, 3]}, (4,)), dtype=torch.float64)
    settings = replace(BRIEF, rank=2, steps=1)
    data = Data("noise", *[torch.randn(8, 4).double(), torch.arange(8) % 3] * 2, 3)
    posterior = fit(treated, some_thetas(treated, 1), data, settings, pairs=[0])
    posterior.factors.mul_(4)
    x = torch.tensor([[1.0, -2.0, 0.5, 3.0]]).double().expand(40_000, -1)
    noise = draw_noise(output_shapes(treated, x[:1]), 2, x[None], [torch.Generator().manual_seed(0)])
    with torch.no_grad():
        found = Trainees(posterior)(x[None], noise)[0]
        tensors = treated.layout.unflatten(posterior.draw(40_000, torch.Generator().manual_seed(1))[0])
        expected = tensors["output.weight"] @ x[0] + tensors["output.bias"]
    scale = expected.std(0)
    assert ((found.mean(0) - expected.mean(0)) / scale).abs().max() < 0.05
    assert ((found.T.cov() - expected.T.cov()) / torch.outer(scale, scale)).abs().max() < 0.05
    assert (expected.T.corrcoef() - torch.eye(3)).abs().max() > 0.1  # the outputs of an example are no strangers


def regression(rng, examples=64, correlated=False):
    """Data, its loss, the exact posterior of the weights and the bias, and the logarithm of the evidence."""
    x = rng.standard_normal((examples, 4))
    x = x @ rng.standard_normal((4, 4)) if correlated else np.linalg.qr(x - x.mean(0))[0] * examples**0.5
    y = x @ rng.standard_normal(4) + 0.3 + NOISE**0.5 * rng.standard_normal(examples)
    design = np.concatenate([x, np.ones((examples, 1))], 1)
    precision = design.T @ design / NOISE + BRIEF.precision * np.eye(5)
    data = Data("line", *[torch.from_numpy(x), torch.arange(examples)] * 2, 1)  # labels are numbers of examples
    covariance = np.linalg.inv(precision)
    evidence = design @ design.T / BRIEF.precision + NOISE * np.eye(examples)
    log_evidence = -0.5 * (y @ np.linalg.solve(evidence, y) + np.linalg.slogdet(2 * np.pi * evidence)[1])

    def loss(outputs, number):
        missed = outputs[..., 0] - torch.from_numpy(y)[number]
        return (missed.square() / NOISE + math.log(2 * math.pi * NOISE)).mean(-1) / 2

    return data, loss, covariance @ design.T @ y / NOISE, covariance, log_evidence


@pytest.mark.parametrize(("rank", "correlated"), [(0, False), (5, True)], ids=["mean field", "full rank"])
def test_a_linear_regression_has_its_exact_posterior_and_the_bound_is_its_evidence(rank, correlated):
    data, loss, mean, covariance, log_evidence = regression(np.random.default_rng(0), correlated=correlated)
    treated = treat("standard", LINEAR, dtype=torch.float64)
    seen = []

    def on_step(step, posteriors, expected, divergence):
        if step > 1500:  # the means then move around the optimum
            seen.append((-64 * expected[0] - divergence[0], posteriors().theta[0]))

    start, log_variance = torch.from_numpy(mean)[None] + 0.2, -14.0 if rank else -6.0
    settings = Settings(rank, steps=2000, batch_size=64, learning_rate=3e-3, log_variance=log_variance, loss=loss)
    fit(treated, start, data, settings, pairs=[0], on_step=on_step)
    bound, found = (torch.stack(values).mean(0).detach().numpy() for values in zip(*seen, strict=True))
    assert np.abs((found - mean) / np.sqrt(np.diag(covariance))).max() < 0.2
    assert float(bound) == pytest.approx(log_evidence, abs=0.3)  # what it lacks is the divergence from the posterior


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_posteriors_together_are_those_of_each_alone(network):
    treated = treat("w_asymmetric", network, dtype=torch.float64)
    start, data = treated.to_rows(some_thetas(treated, 3)), some_data(NETWORKS[network].shape).to("cpu", torch.float64)
    together = fit(treated, start, data, BRIEF, pairs=[4, 7, 9])
    alone = fit(treated, start[1:2], data, BRIEF, pairs=[7])
    for name in ("theta", "factors", "log_variance"):
        torch.testing.assert_close(getattr(together, name)[1:2], getattr(alone, name), rtol=1e-9, atol=1e-12)
    assert (together.theta[0] - together.theta[2]).abs().max() > 1e-3


@pytest.mark.parametrize("rank", [0, 2])
def test_what_is_not_random_is_trained_as_a_number_and_what_is_fixed_stays(rank):
    mask = treat("w_asymmetric", dtype=torch.float64).mask
    quiet, masked = posterior_of("w_initialised", rank=rank, random=mask), posterior_of("w_asymmetric", rank=rank)
    assert torch.equal(quiet.random, masked.random)
    assert not quiet.random.all()
    for posterior in (quiet, masked):
        draws = posterior.draw(2, torch.Generator().manual_seed(0))
        assert torch.equal(draws[:, 0, ~posterior.random], draws[:, 1, ~posterior.random])
        assert (draws[:, 0, posterior.random] != draws[:, 1, posterior.random]).all()
    start = quiet.treated.to_rows(some_thetas(quiet.treated, 3))
    weights = torch.cat([torch.arange(p.start, p.stop) for w in layers_of(quiet.treated).values() for p in w.values()])
    assert (quiet.rows != start)[:, weights].all()
    assert torch.equal(masked.rows[:, ~mask], masked.treated.constants[~mask].expand(3, -1))


def test_the_bound_is_that_of_the_package_posteriors():
    data, loss, mean, _, _ = regression(np.random.default_rng(0))
    treated, start, seen = treat("standard", LINEAR, dtype=torch.float64), torch.from_numpy(mean)[None] + 0.05, []

    def on_step(step, posteriors, expected, divergence):
        seen.append(64 * expected[0] + divergence[0])

    still = Settings(rank=0, steps=400, batch_size=64, learning_rate=0.0, log_variance=-4.0, loss=loss)
    posterior = fit(treated, start, data, still, pairs=[0], on_step=on_step)
    prior = Normal(torch.zeros(5).double(), posterior.precision.rsqrt())

    def log_posterior(row, batch):
        outputs = batch @ row[:4, None] + row[4]
        return prior.log_prob(row).sum() - 64 * loss(outputs[None], data.train_y[None])[0], torch.zeros(())

    torch.manual_seed(0)
    deviation = posterior.variance[0].sqrt()
    expected, _ = posteriors.vi.diag.nelbo(start[0], deviation, data.train_x, log_posterior, n_samples=20_000)
    found = torch.stack(seen)
    assert float(found.mean()) == pytest.approx(float(expected), abs=5 * float(found.std()) / len(seen) ** 0.5)
    assert abs(float(expected) - float(Trainees(posterior).divergence())) > 20
