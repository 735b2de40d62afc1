import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from scipy.special import softmax as scipy_softmax
from sklearn.metrics import log_loss as sklearn_log_loss
from torch.nn import HuberLoss

from metanets.links import Link
from metanets.targets import DERIVED
from zoo.store.columns import KNOWN, Column

Y = torch.tensor([0.1, 0.2, 0.4, 0.5])
RATE = KNOWN["learning_rate"].model_copy(update={"scale": "logarithmic", "bounds": (1e-3, 1e-1)})
EPOCHS = KNOWN["epochs"].model_copy(update={"bounds": (1.0, 8.0)})
GAP = DERIVED["generalisation_gap"][0]


def column(**fields):
    return Column(name="beauty", kind="metric", dtype="float32", **fields)


@pytest.mark.parametrize(
    ("y", "described", "kind", "outputs"),
    [
        (Y, KNOWN["test_accuracy"], "sigmoid", 1),
        (-Y, GAP, "sigmoid", 1),
        (10 * Y, EPOCHS, "sigmoid", 1),
        (Y, KNOWN["test_loss"], "identity", 1),
        (Y, column(bounds=(None, 1.0)), "identity", 1),
        (Y, column(), "identity", 1),
        (Y, None, "identity", 1),
        (10 * Y, KNOWN["test_accuracy"], "identity", 1),  # not within 0 and 1, whatever its column says
        (Y.log(), RATE, "logarithm", 1),
        (torch.tensor([0, 2, 1, 0]), None, "softmax", 3),
    ],
)
def test_the_link_follows_from_the_description_of_the_target(y, described, kind, outputs):
    link = Link.of(y, described)
    assert (link.kind, link.outputs) == (kind, outputs)
    assert link.unbounded().kind == ("identity" if kind == "sigmoid" else kind)
    assert (link.unbounded().mean, link.unbounded().std) == (link.mean, link.std)


@pytest.mark.parametrize(
    ("mean", "described", "low", "high"),
    [
        (0.03, KNOWN["test_accuracy"], 0, 1),
        (0.5, KNOWN["test_accuracy"], 0, 1),
        (0.9, KNOWN["test_accuracy"], 0, 1),
        (-0.2, GAP, -1, 1),
        (3.0, EPOCHS, 1, 8),
    ],
)
def test_a_bounded_target_stays_between_its_bounds_and_rises_as_the_identity_at_the_mean(mean, described, low, high):
    y = mean + torch.tensor([-0.02, -0.01, 0.01, 0.02])
    link = Link.of(y, described)
    z = torch.linspace(-200, 200, 401, dtype=torch.float64)[:, None]
    predicted = link(z)
    assert predicted.shape == (401,)
    assert ((predicted >= low) & (predicted <= high)).all()
    moderate = predicted[z[:, 0].abs() < 5]
    assert ((moderate > low) & (moderate < high)).all()
    assert (predicted.diff() >= 0).all()
    fraction, width = (link.mean - low) / (high - low), high - low
    slope = link.std / width / (fraction * (1 - fraction))
    assert np.allclose(predicted, low + width * expit(logit(fraction) + slope * z[:, 0].numpy()))


@pytest.mark.parametrize(("y", "described"), [(Y, KNOWN["test_accuracy"]), (-Y, GAP), (Y, None), (Y.log(), RATE)])
def test_every_link_of_numbers_gives_the_mean_at_0_and_rises_by_the_spread(y, described):
    link = Link.of(y, described)
    assert float(link(torch.zeros(1, 1, dtype=torch.float64))) == pytest.approx(float(y.mean()), rel=1e-5)
    small = torch.tensor([[-1e-3], [1e-3]], dtype=torch.float64)
    assert float(link(small).diff()) == pytest.approx(2e-3 * float(y.std()), rel=1e-4)
    assert np.allclose(link.standardise(y), (y - y.mean()) / y.std(), atol=1e-6)


def test_a_target_without_bounds_is_predicted_without_bounds():
    assert float(Link.of(Y)(torch.tensor([[-100.0]]))) < 0


def test_predictions_of_logarithms_are_given_in_the_units_of_the_target():
    link, predicted = Link.of(Y.log(), RATE), torch.tensor([-7.0, 0.0, 2.0], dtype=torch.float64)
    assert np.allclose(link.in_units(predicted), np.exp(predicted.numpy()))
    assert np.allclose(link.on_scale(link.in_units(predicted).numpy()), predicted)
    for other in (Link.of(Y), Link.of(Y, KNOWN["test_accuracy"]), Link.of(torch.tensor([0, 1]))):
        assert torch.equal(other.in_units(predicted), predicted)
        assert np.array_equal(other.on_scale(predicted.numpy()), predicted)


def test_classes_get_the_probabilities_of_the_softmax():
    z = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert np.allclose(Link.of(torch.tensor([0, 1, 2]))(z), scipy_softmax(z.numpy(), axis=-1))


def test_the_loss_of_classes_is_the_summed_log_loss():
    generator = torch.Generator().manual_seed(0)
    link, y = Link.of(torch.tensor([0, 1, 2])), torch.randint(3, (7,), generator=generator)
    z = torch.randn(7, 3, dtype=torch.float64, generator=generator)
    expected = 7 * sklearn_log_loss(y.numpy(), link(z).numpy(), labels=[0, 1, 2])
    assert float(link.loss(z, y, 0.1)) == pytest.approx(expected)
    seeds = z.expand(2, -1, -1), y.expand(2, -1)
    assert float(link.loss(*seeds, 0.1)) == pytest.approx(2 * expected)


@pytest.mark.parametrize("described", [None, KNOWN["test_accuracy"]])
def test_the_loss_of_numbers_is_huber_s_of_the_error_over_the_spread(described):
    link, huber = Link.of(Y, described), 0.3
    z = torch.tensor([[-2.0], [0.1], [0.7], [3.0]])
    errors = (link(z) - Y) / link.std
    assert errors.abs().min() < huber < errors.abs().max()
    expected = HuberLoss(reduction="sum", delta=huber)(errors, torch.zeros(4)) / huber
    assert float(link.loss(z, Y, huber)) == pytest.approx(float(expected), rel=1e-5)
