import numpy as np
import pytest

from benchmark.phenomena.optimisation import GOALS, optimisation, reached
from tests.scenarios import small_recipe
from zoo import generate
from zoo.errors import TaskError

NAN = np.nan
TREATMENTS = ("standard", "w_asymmetric")


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    training = {"batch_size": 32, "learning_rate": {"log_uniform": [1e-3, 1e-1]}, "epochs": {"integers": [1, 6]}}
    return generate(small_recipe(12, training=training).only(TREATMENTS), tmp_path_factory.mktemp("zoos") / "varied")


def test_without_networks_that_end_early_what_is_left_is_a_plain_share():
    curves = np.array([[0.1, 0.6, 0.9], [0.6, 0.7, 0.7], [0.1, 0.2, 0.6], [0.5, 0.5, 0.5]])
    found = reached(curves, 0.5)
    assert found.networks == 4
    assert found.epochs.tolist() == [1, 2, 3]
    assert np.allclose(found.left, [0.5, 0.25, 0])
    assert found.median == 1


def test_networks_that_end_early_count_until_their_end():
    # Arrive after 1 and 3 epochs; end after 2 and 4. Kaplan and Meier: 3/4, then 3/4 * 1/2.
    curves = np.array([[0.9, 0.9, 0.9, 0.9], [0.1, 0.1, NAN, NAN], [0.1, 0.1, 0.9, 0.9], [0.1, 0.1, 0.1, 0.1]])
    found = reached(curves, 0.8)
    left = dict(zip(found.epochs.tolist(), found.left.tolist(), strict=True))
    assert left[1] == pytest.approx(3 / 4)
    assert left[3] == pytest.approx(3 / 8)
    assert found.median == 3
    assert found.networks == 2


def test_what_is_never_reached_has_no_median():
    found = reached(np.full((3, 4), 0.2), 0.5)
    assert (found.networks, found.median) == (0, None)


def test_an_accuracy_that_is_lost_again_was_reached():
    assert reached(np.array([[0.1, 0.9, 0.1], [0.1, 0.9, 0.1]]), 0.8).median == 2


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_findings_are_those_of_the_zoo(varied, treatment):
    (found,) = optimisation(varied, treatment)
    assert found.networks == 12
    assert found.diverged == 12 - len(varied.index(treatment))
    assert [each.goal for each in found.reached] == list(GOALS)
    counts = [each.networks for each in found.reached]
    assert counts == sorted(counts, reverse=True)
    train, test = (varied.field(treatment, f"{split}_accuracy") for split in ("train", "test"))
    assert found.final["accuracy_gap"].mean == pytest.approx((train - test).mean(), abs=1e-6)
    assert found.final["train_accuracy"].mean == pytest.approx(train.mean(), abs=1e-6)


def test_two_networks_are_the_least(varied, monkeypatch):
    monkeypatch.setattr(varied, "index", lambda treatment: np.arange(1))
    with pytest.raises(TaskError, match="standard has 1 trained networks; 2 or more are needed"):
        optimisation(varied, "standard")
