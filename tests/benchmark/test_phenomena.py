import shutil
from dataclasses import dataclass

import numpy as np
import pytest

from benchmark.findings import to_json
from benchmark.phenomena import PHENOMENA, run
from tests.scenarios import SETTINGS, small_recipe
from zoo import generate
from zoo.errors import TaskError
from zoo.statistics import Estimate


@dataclass(frozen=True)
class Count:
    """The simplest finding of a user's own."""

    treatment: str
    networks: list[int]

    def headline(self):
        return f"{len(self.networks)} networks"


def count(networks, data):
    """A user's own phenomenon, which takes nothing else."""
    return [Count(networks.treatment, networks.pairs.tolist())]


def count_and_log(networks, data, *, log):
    for _ in range(
        300 if networks.treatment == "standard" else 0
    ):  # so that the first treatment is not the first to end
        np.linalg.svd(np.ones((100, 100)))
    log(f"{len(networks)} networks")
    return count(networks, data)


def refuse(networks, data):
    raise TaskError(f"{networks.treatment} is not liked")


def test_json_has_the_numbers_of_arrays_to_four_digits_and_estimates_by_name():
    values = {
        "a": np.array([[1 / 3, 2000.4]], np.float32),
        "b": [Estimate(1.0, 0.5, None, 2, "lines", "t", (1 / 3,))],
        "c": ("x", 3, None),
    }
    assert to_json(values) == {
        "a": [[0.3333, 2000.0]],
        "b": [{"mean": 1.0, "low": 0.5, "high": None, "n": 2, "varies": "lines", "method": "t", "values": [0.3333333]}],
        "c": ["x", 3, None],
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_a_users_own_phenomenon_is_measured_in_workers_too_and_treatments_keep_their_order(replicas, data, workers):
    numbers, lines = [], []
    findings = run(count_and_log, replicas, data, workers=workers, progress=numbers.append, log=lines.append)
    assert findings == [Count(treatment, list(range(9))) for treatment in replicas.treatments]
    assert numbers == [1] * len(replicas.treatments)
    assert sorted(lines) == sorted(f"{treatment}: 9 networks" for treatment in replicas.treatments)


def test_treatments_are_compared_on_the_pairs_that_trained_under_all(replicas, data, diverge, tmp_path):
    folder = shutil.copytree(replicas.folder, tmp_path / "zoo")
    diverge(folder, "w_asymmetric", 2)
    zoo = diverge(folder, "sigma_asymmetric", 7)
    assert {tuple(finding.networks) for finding in run(count, zoo, data)} == {(0, 1, 3, 4, 5, 6, 8)}
    diverged = {f.treatment: f.diverged for f in run(PHENOMENA["optimisation"].measure, zoo, data)}
    assert diverged == {"standard": 0, "w_asymmetric": 1, "sigma_asymmetric": 1, "w_initialised": 0}


def test_a_treatment_whose_networks_diverged_is_left_out_and_does_not_empty_the_others(
    replicas, data, diverge, tmp_path
):
    folder, left = shutil.copytree(replicas.folder, tmp_path / "zoo"), {}
    for pair in range(8):
        zoo = diverge(folder, "w_asymmetric", pair)
    findings = run(count, zoo, data, left_out=left.__setitem__)
    assert findings == [Count(name, list(range(9))) for name in zoo.treatments if name != "w_asymmetric"]
    assert list(left) == ["w_asymmetric"]
    assert "w_asymmetric has 1 trained networks; 2 or more are needed" in str(left["w_asymmetric"])


def test_treatments_that_cannot_be_measured_are_left_out_with_the_reason(tmp_path, data):
    own = SETTINGS["sigma_asymmetric"] | {"shared": False}
    training = {"batch_size": 32, "learning_rate": 1e-2, "epochs": 1}
    recipe = small_recipe(4, training=training, treatments={"standard": SETTINGS["standard"], "own": own})
    zoo, left = generate(recipe, tmp_path / "zoo"), {}
    found = run(PHENOMENA["merging"].measure, zoo, data, left_out=left.__setitem__)
    assert {finding.treatment for finding in found} == {"standard"}
    assert list(left) == ["own"]
    assert "have their own activations" in str(left["own"])


def test_the_first_reason_is_raised_if_no_treatment_can_be_measured(replicas, data):
    with pytest.raises(TaskError, match="standard is not liked"):
        run(refuse, replicas, data)
