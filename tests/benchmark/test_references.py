"""Curvature, Laplace posteriors and predictions of one stored network against figures of other packages.

`references/make.py` computed the figures, and says with which versions.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.hessian import hessian_product, largest_eigenvalues
from benchmark.inference.langevin import split_rhat
from benchmark.inference.laplace import Settings, best_precision, fisher_diagonal, fit
from benchmark.predictive import detection, probabilities, quality
from tests.scenarios import Network, treat
from zoo.data import Data
from zoo.statistics import resample

FOLDER = Path(__file__).parent / "references"
FIGURES = json.loads((FOLDER / "figures.json").read_text())
NETWORK = Network("mlp", {"widths": [64, 6, 10], "norm": "none", "activation": "tanh"}, (64,))


@pytest.fixture(scope="module")
def treated():
    return treat("standard", NETWORK, dtype=torch.float64)


@pytest.fixture(scope="module")
def stored():
    """Its row, and data of which the first hundred examples trained it."""
    values = json.loads((FOLDER / "network.json").read_text())
    row, x = (torch.tensor(values[name], dtype=torch.float64) for name in ("weights", "pixels"))
    y = torch.tensor(values["y"])
    return row[None], Data("digits", x[:100] / 16, y[:100], x[100:] / 16, y[100:], 10)


def test_the_diagonal_posterior_and_its_linearised_predictions_are_those_of_laplace_torch(treated, stored):
    (rows, data), figures = stored, FIGURES["laplace-torch"]
    posterior = fit(treated, rows, data, Settings(precision=figures["prior_precision"]))
    np.testing.assert_allclose(1 / posterior.variance[0], figures["posterior_precision"], rtol=1e-6)
    mean, covariance = posterior.linearised_logits(data.train_x[:3])
    np.testing.assert_allclose(mean[0], figures["mean"], rtol=1e-6)
    np.testing.assert_allclose(covariance[0], figures["covariance"], rtol=1e-5, atol=1e-8)


def test_the_precision_of_greatest_evidence_is_that_of_laplace_torch(treated, stored):
    rows, data = stored
    found = best_precision(treated, rows, fisher_diagonal(treated, rows, data.train_x))
    assert float(found) == pytest.approx(FIGURES["laplace-torch"]["best_precision"], rel=1e-5)


def test_hessian_and_gauss_newton_are_those_of_curvlinops(treated, stored):
    (rows, data), figures = stored, FIGURES["curvlinops"]
    stack, size = treated.stack(rows), rows.shape[1]

    def product(v):
        return hessian_product(stack, treated.mask, data.train_x, data.train_y, v)

    vector = torch.linspace(-1, 1, size, dtype=torch.float64)[None]
    np.testing.assert_allclose(product(vector)[0], figures["product_with_linspace"], rtol=1e-6, atol=1e-10)
    start = torch.randn(1, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.testing.assert_allclose(
        largest_eigenvalues(product, start)[0, :3], figures["largest_eigenvalues"][:3], rtol=1e-5
    )
    fisher = fisher_diagonal(treated, rows, data.train_x)[0] / len(data.train_y)
    np.testing.assert_allclose(fisher, figures["diagonal_of_gauss_newton"], rtol=1e-6, atol=1e-12)


def test_predictions_are_measured_as_by_torchmetrics(treated, stored):
    (rows, data), figures = stored, FIGURES["torchmetrics"]
    p, outside = (probabilities(treated.stack(rows), x) for x in (data.test_x, data.test_x.flip(1)))
    found = quality(p, data.test_y)
    for name in ("accuracy", "calibration_error"):
        assert float(found[name][0]) == pytest.approx(figures[name], rel=1e-6)
    weights = resample(len(data.test_y))
    assert detection(p, outside, weights, weights)[0, 0] == pytest.approx(figures["detection"], rel=1e-6)


def test_rhat_is_that_of_arviz():
    mixed = np.random.default_rng(0).standard_normal((4, 200))
    drift, apart = mixed + np.linspace(0, 1, 200), mixed + np.array([[1.0], [0.0], [0.0], [0.0]])
    found = [float(split_rhat(values[..., None])[0]) for values in (mixed, apart, drift)]
    assert found == pytest.approx(FIGURES["arviz"]["rhat"], rel=1e-9)
