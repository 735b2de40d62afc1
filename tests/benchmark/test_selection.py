import shutil

import numpy as np
import pytest
import torch

from benchmark.selection import check_shared, good, portions, trained
from tests.scenarios import SETTINGS, small_recipe
from zoo import generate
from zoo.errors import TaskError
from zoo.store.networks import Networks

CPU = torch.device("cpu")
OWN = {
    "sigma_own": SETTINGS["sigma_asymmetric"] | {"shared": False},
    "w_own": SETTINGS["w_asymmetric"] | {"shared": False},
}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Two networks a treatment with activations or masks of their own."""
    recipe = small_recipe(2, treatments=OWN, training={"batch_size": 32, "learning_rate": 1e-2, "epochs": 1})
    return generate(recipe, tmp_path_factory.mktemp("zoos") / "own")


def test_networks_that_diverged_are_left_out(replicas, diverge, tmp_path):
    zoo = diverge(shutil.copytree(replicas.folder, tmp_path / "zoo"), "standard", 3)
    networks = zoo.networks("standard", diverged=True)
    assert len(networks) == 9
    for select in (trained, good):
        assert select(networks, 8).pairs.tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
        with pytest.raises(
            TaskError, match=f"standard has 8 {select.__name__} networks; 9 or more are needed: asymzoo"
        ):
            select(networks, 9)


def test_all_replicas_are_good(replicas):
    assert good(replicas["standard"], 2).pairs.tolist() == list(range(9))


def test_of_varied_networks_the_half_of_higher_train_accuracy_is_good(varied):
    accuracy = np.mean([varied[treatment]["train_accuracy"] for treatment in varied.treatments], 0)
    chosen = good(varied["standard"], 2).pairs
    assert 6 <= len(chosen) < 12
    assert accuracy[chosen].min() > np.delete(accuracy, chosen).max()
    for treatment in varied.treatments:
        assert good(varied[treatment], 2).pairs.tolist() == chosen.tolist()


def test_networks_that_diverged_under_another_treatment_do_not_count(varied, diverge, tmp_path):
    accuracies = [varied[treatment]["train_accuracy"].astype(float) for treatment in ("standard", "w_asymmetric")]
    pair = int(np.argmin(accuracies[1] - accuracies[0]))
    accuracies[1][pair] = accuracies[0][pair]
    mean = np.mean(accuracies, 0)
    zoo = diverge(shutil.copytree(varied.folder, tmp_path / "zoo"), "w_asymmetric", pair)
    assert good(zoo["standard"], 2).pairs.tolist() == np.flatnonzero(mean >= np.median(mean)).tolist()


def test_no_networks_at_all_are_one_clear_error(varied):
    for select in (trained, good):
        with pytest.raises(TaskError, match=r"standard has 0 \w+ networks; 2 or more are needed"):
            select(varied["standard"][[]], 2)


def test_networks_with_activations_or_constants_of_their_own_are_refused(own, replicas):
    for what in ("activations", "constants"):
        with pytest.raises(TaskError, match=f"sigma_own networks have their own {what}; take a treatment that shares"):
            check_shared(own["sigma_own"], what)
        check_shared(replicas["sigma_asymmetric"], what)
    check_shared(own["w_own"], "activations")
    with pytest.raises(TaskError, match="w_own networks have their own constants"):
        check_shared(own["w_own"], "constants")
    with pytest.raises(TaskError, match="sigma_own networks have their own activations"):
        good(own["sigma_own"], 2)


@pytest.mark.parametrize(
    ("group", "load", "sizes"),
    [(1, 1, [5, 4]), (1, 2, [2, 2, 2, 2, 1]), (1, 7, [1] * 9), (2, 2, [4, 4, 1]), (3, 3, [3, 3, 3])],
)
def test_portions_hold_whole_groups_of_what_fits_together(replicas, monkeypatch, group, load, sizes):
    monkeypatch.setattr("benchmark.selection.stack_size", lambda *network: 5)
    found = list(portions(replicas["standard"], CPU, group=group, load=load))
    assert [len(part) for part in found] == sizes
    assert np.concatenate([part.pairs for part in found]).tolist() == list(range(9))
    assert all(isinstance(part, Networks) for part in found)
