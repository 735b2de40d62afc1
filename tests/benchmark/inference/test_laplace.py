import numpy as np
import posteriors
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.func import functional_call
from torch.nn import functional

from benchmark.inference import laplace as module
from benchmark.inference.laplace import Laplace, Settings, best_precision, fisher_diagonal, fit
from tests.benchmark.inference.scenarios import EVERY_SETTING, gaussian_root, regression
from tests.scenarios import CLASSES, NETWORKS, some_data, some_thetas, treat

WITHOUT_BATCH_NORM = [name for name in NETWORKS if not treat("standard", name).layout.statistics]
EVERY_NETWORK = pytest.mark.parametrize("network", WITHOUT_BATCH_NORM)


def some_networks(network, networks=2):
    treated = treat("standard", network, dtype=torch.float64)
    return treated, some_thetas(treated, networks), NETWORKS[network].examples(5)


@pytest.mark.parametrize("setting", EVERY_SETTING)
def test_the_posterior_is_exact_for_regression_on_orthogonal_inputs(setting):
    known = regression(setting, orthogonal=True)
    free = known.treated.mask
    mode = known.treated.to_rows(torch.zeros(2, len(free), dtype=torch.float64))
    mode[:, free] = known.mean
    settings = Settings(precision=known.precision, root=gaussian_root)
    found = fit(known.treated, mode, known.data, settings, pairs=[0, 1])
    torch.testing.assert_close(known.covariance, known.covariance.diagonal().diag())  # as the design is
    torch.testing.assert_close(found.variance[:, free], known.covariance.diagonal().expand(2, -1))
    draws = found.draw(20_000, torch.Generator().manual_seed(0))
    assert (draws[..., ~free] == mode[:, None, ~free]).all()
    torch.testing.assert_close(draws[..., free].var(1), found.variance[:, free], rtol=0.05, atol=0)
    assert ((draws[..., free].mean(1) - known.mean) / (found.variance[:, free] / 20_000).sqrt()).abs().max() < 4


@EVERY_NETWORK
def test_the_fisher_sums_over_classes_the_squared_gradients_of_each_example(network):
    treated, rows, x = some_networks(network)
    expected = torch.zeros_like(rows)
    for k, row in enumerate(rows):
        for example in x.split(1):
            for c in range(CLASSES):
                own = row.clone().requires_grad_()
                logits = functional_call(treated.module, treated.layout.unflatten(own), (example,))
                log_p = functional.log_softmax(logits, -1)[0, c]
                (gradient,) = torch.autograd.grad(log_p, own)
                expected[k] += log_p.exp().detach() * gradient.square()
    torch.testing.assert_close(fisher_diagonal(treated, rows, x), expected)


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_the_precision_is_that_of_the_package_posteriors(network):
    treated, rows, x = some_networks(network)
    y = torch.arange(len(x)) % CLASSES

    def forward(row, batch):
        return functional_call(treated.module, treated.layout.unflatten(row), (x,)), torch.empty(0)

    def log_likelihood(logits, batch):
        return -functional.cross_entropy(logits, y, reduction="sum")

    transform = posteriors.laplace.diag_ggn.build(forward, log_likelihood, init_prec_diag=2.0)
    for row, own in zip(rows, fisher_diagonal(treated, rows, x) + 2, strict=True):
        state, _ = transform.update(transform.init(row), None)
        torch.testing.assert_close(state.prec_diag, own)


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_portions_change_nothing(network, monkeypatch):
    treated, rows, x = some_networks(network)
    whole = Laplace(treated, rows, torch.rand_like(rows))
    fisher, (mean, covariance) = fisher_diagonal(treated, rows, x), whole.linearised_logits(x)
    logits = whole.draw_logits(x, 3, torch.Generator().manual_seed(0))
    monkeypatch.setattr(module, "PORTION_BYTES", 8 * rows.numel() * CLASSES * 2)  # of two examples
    torch.testing.assert_close(fisher_diagonal(treated, rows, x), fisher)
    torch.testing.assert_close(whole.linearised_logits(x), (mean, covariance))
    torch.testing.assert_close(whole.draw_logits(x, 3, torch.Generator().manual_seed(0)), logits)


@EVERY_NETWORK
def test_linearised_networks_are_the_networks_nearby(network):
    treated, rows, x = some_networks(network)
    found = Laplace(treated, rows, torch.full_like(rows, 1e-12))
    logits = treated.stack(rows).logits(x)
    draws = found.draw(3, torch.Generator().manual_seed(0))
    nearby = treated.stack(draws.flatten(0, 1)).logits(x).unflatten(0, (2, 3))
    linear = found.draw_logits(x, 3, torch.Generator().manual_seed(0))
    change = linear - logits[:, None]
    assert (linear - nearby).abs().max() < 1e-4 * change.abs().max()
    torch.testing.assert_close(found.linearised_logits(x)[0], logits)


@EVERY_NETWORK
def test_the_covariance_of_linearised_logits_is_by_the_jacobian(network):
    treated, rows, x = some_networks(network)
    variance = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0), dtype=rows.dtype)
    _, covariance = Laplace(treated, rows, variance).linearised_logits(x)
    for k, row in enumerate(rows):
        for n, example in enumerate(x.split(1)):

            def logits(own, example=example):
                return functional_call(treated.module, treated.layout.unflatten(own), (example,))[0]

            jacobian = torch.autograd.functional.jacobian(logits, row)
            torch.testing.assert_close(covariance[k, n], jacobian * variance[k] @ jacobian.T)


def test_linearised_draws_are_as_wide_as_their_covariance():
    known = regression()
    rows = torch.randn(2, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = fit(known.treated, rows, known.data, Settings(precision=known.precision, root=gaussian_root))
    x = known.data.train_x[:4]
    draws = found.draw_logits(x, 50_000, torch.Generator().manual_seed(0))
    mean, covariance = found.linearised_logits(x)
    away = draws - mean[:, None]
    torch.testing.assert_close(torch.einsum("ksnc,ksnd->kncd", away, away) / 50_000, covariance, rtol=0.05, atol=3e-3)
    # A linear network is its own linearisation.
    whole = found.draw(50_000, torch.Generator().manual_seed(0))[0, :10]
    torch.testing.assert_close(draws[0, :10], known.treated.stack(whole).logits(x))


def test_the_posterior_is_the_prior_where_that_is_much_stronger_than_the_data():
    treated = treat("standard", dtype=torch.float64)
    rows, data = some_thetas(treated, 2), some_data().to("cpu", torch.float64)
    found = fit(treated, rows, data, Settings(precision=1e12))
    torch.testing.assert_close(found.variance, torch.full_like(rows, 1e-12))


def test_the_best_precision_makes_the_train_split_most_probable():
    known = regression("standard", orthogonal=True)
    rows = known.mean[None]
    fisher = fisher_diagonal(known.treated, rows, known.data.train_x, gaussian_root)
    theta = known.treated.from_rows(rows)

    def evidence(log_precision):
        precision = np.exp(log_precision)
        prior = (theta.shape[1] * log_precision - precision * float(theta.square().sum())) / 2
        return prior - float((fisher + precision).log().sum()) / 2

    best = minimize_scalar(lambda log_precision: -evidence(log_precision), bounds=(-8, 8), method="bounded")
    assert float(best_precision(known.treated, rows, fisher)) == pytest.approx(np.exp(best.x), rel=1e-3)
