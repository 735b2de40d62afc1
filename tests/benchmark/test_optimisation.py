import shutil

import numpy as np
import pytest

from benchmark.phenomena.optimisation import GOALS, measure, reached
from zoo.errors import TaskError

NAN = np.nan


def test_without_networks_that_end_early_the_fraction_left_is_a_plain_count():
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


def test_epochs_that_were_not_measured_do_not_shorten_a_training():
    full = np.array([[0.1, 0.9, 0.9, 0.9], [0.1, 0.1, 0.1, NAN], [0.1, 0.1, 0.1, 0.9]])
    some = np.where([False, True, False, True], full, NAN)
    some[1, 2] = full[1, 2]  # the last epoch is always measured
    for name in ("epochs", "left"):
        assert np.array_equal(getattr(reached(some, 0.8), name), getattr(reached(full, 0.8), name))


def test_what_is_never_reached_has_no_median():
    found = reached(np.full((3, 4), 0.2), 0.5)
    assert (found.networks, found.median) == (0, None)


def test_an_accuracy_that_is_lost_again_was_reached():
    assert reached(np.array([[0.1, 0.9, 0.1], [0.1, 0.9, 0.1]]), 0.8).median == 2


@pytest.mark.parametrize("treatment", ["standard", "w_asymmetric"])
def test_findings_are_those_of_the_zoo(varied, treatment):
    networks = varied[treatment]
    (found,) = measure(networks)
    assert (found.networks, found.diverged) == (12, 0)
    assert [each.goal for each in found.reached] == list(GOALS)
    counts = [each.networks for each in found.reached]
    assert counts == sorted(counts, reverse=True)
    train, test = (networks[f"{split}_accuracy"] for split in ("train", "test"))
    assert found.final["accuracy_gap"].mean == pytest.approx((train - test).mean(), abs=1e-6)
    assert found.final["train_accuracy"].mean == pytest.approx(train.mean(), abs=1e-6)


def test_networks_that_diverged_count_as_not_having_reached_a_goal_and_not_in_the_means(varied, diverge, tmp_path):
    zoo = diverge(shutil.copytree(varied.folder, tmp_path / "zoo"), "standard", 4)
    (before,), (found,) = (measure(each["standard"]) for each in (varied, zoo))
    assert (found.networks, found.diverged) == (12, 1)
    assert found.reached[0].networks == before.reached[0].networks - 1
    others = np.delete(varied["standard"]["train_accuracy"], 4)
    assert found.final["train_accuracy"].mean == pytest.approx(others.mean(), abs=1e-6)


def test_two_networks_are_the_least(varied):
    with pytest.raises(TaskError, match="standard has 1 trained networks; 2 or more are needed"):
        measure(varied["standard"][:1])
