import itertools

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional

from benchmark.predictive import (
    detection,
    disagreement,
    predict,
    predictive_divergence,
    probabilities,
    quality,
    resampled_quality,
)
from tests.scenarios import NETWORKS, some_thetas, treat


def some_probabilities(networks=3, examples=400, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(networks, examples, classes, generator=generator, dtype=torch.float64).mul(2).softmax(-1)


def plainly(p, y):
    """The measures of one network, bin by bin."""
    confidence, predicted = p.max(1).values.numpy(), p.argmax(1)
    correct, error = (predicted == y).double().numpy(), 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    brier = (p - functional.one_hot(y, p.shape[1])).square().sum(1).mean().item()
    return {
        "accuracy": correct.mean(),
        "loss": functional.nll_loss(p.log(), y).item(),
        "calibration_error": error,
        "brier": brier,
    }


def test_measures_are_those_of_pytorch_and_of_bins_one_by_one():
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(3, 400, 5, generator=generator, dtype=torch.float64).mul(2).softmax(-1)
    y = torch.randint(5, (400,), generator=generator)
    found = quality(p, y)
    for k in range(3):
        for name, value in plainly(p[k], y).items():
            assert found[name][k] == pytest.approx(value)


def test_measures_of_a_resample_are_those_of_the_examples_that_are_drawn():
    p, y = some_probabilities(), torch.randint(5, (400,), generator=torch.Generator().manual_seed(0))
    counts = np.random.default_rng(0).multinomial(400, np.full(400, 1 / 400), 50)
    found = resampled_quality(p, y, counts / 400)
    drawn = torch.from_numpy(np.arange(400).repeat(counts[7]))
    for name, values in quality(p[:, drawn], y[drawn]).items():
        assert found[name].shape == (50, 3)
        assert found[name][7] == pytest.approx(values, rel=0.15 if name == "calibration_error" else 1e-9)
    error = quality(p, y)["calibration_error"]
    assert found["calibration_error"].mean(0) == pytest.approx(error, rel=0.05)  # noise does not make it larger


def test_calibrated_predictions_on_few_examples_have_an_error_too():
    rng, errors = np.random.default_rng(0), []
    for _ in range(100):  # of the size and confidence of networks on 359 digits
        confidence = torch.from_numpy(rng.beta(20, 0.4, 359))
        right = torch.from_numpy(rng.random(359)) < confidence
        p = torch.stack([confidence, 1 - confidence], 1)[None]
        errors.append(quality(p, 1 - right.long())["calibration_error"][0])
    assert 0.008 < np.mean(errors) < 0.013


def test_sure_and_wrong_is_an_error_of_one_and_sure_and_right_of_none():
    p = torch.eye(3).expand(2, 3, 3)
    assert quality(p, torch.arange(3))["calibration_error"].tolist() == [0, 0]
    wrong = quality(p, torch.tensor([1, 2, 0]))
    assert wrong["calibration_error"].tolist() == [1, 1]
    assert wrong["brier"].tolist() == [2, 2]
    assert np.isfinite(wrong["loss"]).all()


def test_detection_is_the_probability_of_more_confidence_on_the_data_than_elsewhere():
    inside, outside = some_probabilities(), some_probabilities(examples=100, seed=1) ** 0.5
    outside = outside / outside.sum(-1, keepdim=True)
    outside[:, :5] = inside[:, :5]  # of equal confidence
    weights, others = (np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), 2) for n in (400, 100))
    found = detection(inside, outside, weights / 400, others / 100)
    assert found.shape == (2, 3)
    for r, k in itertools.product(range(2), range(3)):
        a, b = (p[k].max(-1).values.numpy() for p in (inside, outside))
        expected = mannwhitneyu(a.repeat(weights[r]), b.repeat(others[r])).statistic / (400 * 100)
        assert found[r, k] == pytest.approx(expected)
    assert (found > 0.6).all()


def test_predictive_divergence_is_the_symmetrised_one_of_categorical_distributions():
    p, q = some_probabilities(), some_probabilities(seed=1)
    there, back = kl_divergence(Categorical(p), Categorical(q)), kl_divergence(Categorical(q), Categorical(p))
    np.testing.assert_allclose(predictive_divergence(p, q), (there + back).mean(1) / 2)
    sure = torch.eye(5).expand(2, 5, 5)
    assert np.isfinite(predictive_divergence(sure, sure.flip(1))).all()
    assert predictive_divergence(p, p).tolist() == [0, 0, 0]


def test_disagreement_is_that_of_any_two_networks():
    p = some_probabilities(networks=4)
    each = [(a.argmax(-1) != b.argmax(-1)).double().mean() for a, b in itertools.combinations(p, 2)]
    assert disagreement(p) == pytest.approx([float(value) for value in each])


def test_predictions_are_means_over_the_networks_drawn():
    treated = treat("w_asymmetric", dtype=torch.float64)
    rows, x = treated.to_rows(some_thetas(treated, 6)).view(2, 3, -1), NETWORKS["mlp"].examples(7)

    class Three:
        """Draws three networks of each posterior in turn."""

        turn = 0

        def draw(self, samples, generator):
            self.turn += samples
            return rows[:, self.turn - samples : self.turn]

    found = predict(Three(), treated, x, 3, torch.Generator())
    for k in range(2):
        each = [treated.stack(rows[k]).network(s)(x).softmax(-1) for s in range(3)]
        torch.testing.assert_close(found[k], sum(each).detach() / 3)


def test_probabilities_are_of_all_examples_and_add_up_to_one():
    treated = treat("standard", dtype=torch.float64)
    p = probabilities(treated.stack(some_thetas(treated, 3)), NETWORKS["mlp"].examples(9))
    assert p.shape == (3, 9, 4)
    torch.testing.assert_close(p.sum(-1), torch.ones(3, 9).double())
