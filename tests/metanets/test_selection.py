import operator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from metanets.datasets import ZooRows
from metanets.identity import identify
from metanets.selection import label, select, select_all
from tests.conftest import PLANTED
from tests.metanets.scenarios import CLASSES, ask
from zoo.errors import TaskError, ZooError
from zoo.store.columns import SPLITS, Column

EVERY_SPLIT = pytest.mark.parametrize("split", SPLITS)
TREATMENT = pytest.mark.parametrize("treatment", PLANTED)
COMPARISONS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def only(zoo, treatment):
    """A function that tells the arrays of a treatment from those of the others, by the entries that it holds constant."""
    constant = not zoo.shared(treatment).mask.all()
    return lambda arrays: (arrays["weights"].std(0).min() == 0) == constant


# Which networks


@TREATMENT
@pytest.mark.parametrize("target", ["test_accuracy", "test_loss", "learning_rate", "epochs", "generalisation_gap"])
def test_splits_have_the_networks_and_targets_of_the_zoo(planted_zoo, treatment, target):
    networks = 0
    for split, found in select_all(ask(treatment, target=target), planted_zoo).items():
        own = planted_zoo[treatment].split(split)
        gap = own["train_accuracy"].astype(np.float64) - own["test_accuracy"]
        true = gap if target == "generalisation_gap" else own[target].astype(np.float64)
        assert np.allclose(found.values, true, atol=1e-7)
        assert np.allclose(found.y, np.log(true) if target == "learning_rate" else true)
        assert torch.equal(found.rows, own.weights[:])
        assert np.array_equal(found.pairs, own.pairs)
        networks += len(found)
    assert networks == len(planted_zoo)


def test_fewer_training_networks_are_the_first_of_them(planted_zoo):
    all_, few = (select_all(ask(max_train=most), planted_zoo) for most in (None, 7))
    assert np.array_equal(few["train"].pairs, all_["train"].pairs[:7])
    assert np.array_equal(few["train"].values, all_["train"].values[:7])
    for split in ("validation", "test"):
        assert np.array_equal(few[split].pairs, all_[split].pairs)


def test_fewer_training_networks_are_the_first_that_meet_the_conditions(planted_zoo):
    own = planted_zoo["standard"].split("train")
    few = select(ask(train_where=["epochs > 2"], max_train=5), planted_zoo, "train")
    assert np.array_equal(few.pairs, own.pairs[own["epochs"] > 2][:5])


@pytest.fixture(scope="module")
def diverged_zoo(plant_zoo, planted_zoo):
    """A zoo whose first network of each split diverged, without the treatment that holds nothing constant."""
    asymmetric = only(planted_zoo, "w_asymmetric")

    def change(arrays):
        for split in SPLITS if asymmetric(arrays) else ():
            first = np.flatnonzero(arrays["split"] == split)[0]
            arrays["status"][first] = "diverged"
            arrays["weights"][first] = np.nan
            arrays["test_accuracy"][first] = np.nan

    return plant_zoo(change)


@EVERY_SPLIT
def test_diverged_networks_are_left_out_everywhere(diverged_zoo, planted_zoo, split):
    full = planted_zoo["w_asymmetric"].split(split).pairs
    for task in (ask("w_asymmetric"), ask("w_asymmetric", target="learning_rate"), ask("standard", test_on=PLANTED)):
        found = select(task, diverged_zoo, split)
        assert found.rows.isfinite().all()
        if "w_asymmetric" in (task.test_on if split == "test" else task.learn_from):
            assert np.array_equal(found.networks[-1].pairs, full[1:])
    data = ZooRows(diverged_zoo["w_asymmetric"].split(split))
    assert data.x.isfinite().all()
    assert data.pairs.tolist() == full[1:].tolist()


@EVERY_SPLIT
def test_several_treatments_have_the_pairs_that_trained_under_all_of_them(diverged_zoo, split):
    found = select(CLASSES, diverged_zoo, split)
    standard, asymmetric = found.networks
    assert np.array_equal(standard.pairs, asymmetric.pairs)
    assert len(standard) == len(diverged_zoo["standard"].split(split)) - 1
    assert found.values.tolist() == [0] * len(standard) + [1] * len(asymmetric)
    assert torch.equal(found.rows, torch.cat([standard.weights[:], asymmetric.weights[:]]))
    assert found.y.dtype == torch.int64
    swapped = select(ask(PLANTED[::-1], target="treatment"), diverged_zoo, split)
    assert swapped.values.tolist() == found.values.tolist()
    assert [networks.treatment for networks in swapped.networks] == list(PLANTED[::-1])


def test_a_task_is_tested_on_the_treatments_that_it_names(planted_zoo):
    found = select_all(ask(test_on="w_asymmetric"), planted_zoo)
    assert [{n.treatment for n in part.networks} for part in found.values()] == [{"standard"}] * 2 + [{"w_asymmetric"}]


@EVERY_SPLIT
@pytest.mark.parametrize("networks", [0, 1])
def test_a_split_without_networks_to_compare_is_too_small(plant_zoo, split, networks):
    def change(arrays):
        arrays["status"][np.flatnonzero(arrays["split"] == split)[networks:]] = "diverged"

    with pytest.raises(
        TaskError, match=f"standard has {networks} networks with a test_accuracy in its {split} split; two or more are"
    ):
        select(ask(), plant_zoo(change, pairs=40), split)


@EVERY_SPLIT
@pytest.mark.parametrize("value", [0.1, 0.5])  # the mean of many float32 of 0.1 is not 0.1
def test_targets_that_are_all_the_same_are_no_task(plant_zoo, split, value):
    def change(arrays):
        arrays["test_accuracy"][arrays["split"] == split] = value

    zoo = plant_zoo(change)
    with pytest.raises(TaskError, match=f"standard: all {split} networks have the same test_accuracy"):
        select(ask(), zoo, split)
    assert select(ask(target="test_loss"), zoo, split).y.std() > 0


def test_unknown_treatments_and_targets_are_named(planted_zoo):
    for task in (ask("syre"), ask(test_on="syre"), ask(["standard", "syre"], target="treatment")):
        with pytest.raises(ZooError, match="has no treatment 'syre'; it has standard, w_asymmetric"):
            select(task, planted_zoo, "test")
        with pytest.raises(ZooError, match="has no treatment 'syre'; it has standard, w_asymmetric"):
            identify(task, planted_zoo)
    with pytest.raises(TaskError, match=r"standard has no target 'test_los' \(did you mean 'test_loss'\?\)"):
        select(ask(target="test_los"), planted_zoo, "train")
    with pytest.raises(TaskError, match="w_asymmetric is none of the classes standard, syre"):
        label([planted_zoo["w_asymmetric"]], "treatment", ["standard", "syre"])


# Missing targets


@EVERY_SPLIT
def test_networks_without_a_target_are_left_out_and_counted_in_one_warning(gappy_zoo, split):
    own = gappy_zoo["standard"].split(split)
    with pytest.warns(UserWarning, match="left out") as caught:
        found = select(ask(target="test_loss"), gappy_zoo, split)
    (warning,) = caught
    assert str(warning.message) == (
        f"{gappy_zoo.folder}: 3 of {len(own)} standard networks are left out, their test_loss is missing or not finite"
    )
    assert np.array_equal(found.pairs, np.delete(own.pairs, [1, 2, 3]))
    assert np.array_equal(found.values, np.delete(own["test_loss"], [1, 2, 3]).astype(float))
    assert torch.equal(found.rows, own.weights[[0, *range(4, len(own))]])


def test_networks_of_each_treatment_without_a_target_are_left_out(gappy_zoo):
    with pytest.warns(UserWarning, match=r"6 of \d+ standard\+w_asymmetric networks are left out"):
        found = select(ask(PLANTED, target="test_loss"), gappy_zoo, "train")
    rows = [networks.weights[:] for networks in found.networks]
    assert torch.equal(found.rows, torch.cat(rows))
    assert len(found) == len(gappy_zoo["standard"].split("train")) * 2 - 6


def test_rates_not_above_zero_have_no_logarithm(plant_zoo):
    def change(arrays):
        arrays["learning_rate"][np.flatnonzero(arrays["split"] == "train")[:2]] = 0, -1

    with pytest.warns(UserWarning, match="2 of"):
        found = select(ask(target="learning_rate"), plant_zoo(change), "train")
    assert found.y.isfinite().all()


@pytest.mark.filterwarnings("ignore:.*are left out:UserWarning")
def test_a_target_that_all_networks_lack_is_one_clear_error(plant_zoo):
    def change(arrays):
        arrays["test_loss"][:] = np.nan

    zoo = plant_zoo(change, pairs=24)
    for among in ("all", "above_median"):
        task = ask(target="test_loss", among=among)
        with pytest.raises(TaskError, match="standard has 0 networks with a test_loss in its test split"):
            select(task, zoo, "test")


# Conditions


@given(
    column=st.sampled_from(["learning_rate", "epochs", "test_accuracy", "pair"]),
    comparison=st.sampled_from(list(COMPARISONS)),
    data=st.data(),
)
@budget(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_conditions_select_what_numpy_does(planted_zoo, column, comparison, data):
    for split, where in (("train", "train_where"), ("validation", "train_where"), ("test", "test_where")):
        own = planted_zoo["standard"].split(split)
        value = data.draw(st.sampled_from(own[column].tolist()) | st.floats(0.001, 5))
        expected = own.pairs[COMPARISONS[comparison](own[column], value)]
        task = ask(target="test_loss", **{where: [f"{column} {comparison} {value!r}"]})
        if len(expected) > 1:
            assert np.array_equal(select(task, planted_zoo, split).pairs, expected)
        else:
            with pytest.raises(TaskError, match=f"has {len(expected)} networks"):
                select(task, planted_zoo, split)


def test_all_conditions_hold_and_each_side_has_its_own(planted_zoo):
    task = ask(train_where=["epochs > 1", "epochs < 4"], test_where=["epochs == 4"])
    found = select_all(task, planted_zoo)
    epochs = {split: {*found[split].networks[0]["epochs"].tolist()} for split in SPLITS}
    assert epochs == {"train": {2, 3}, "validation": {2, 3}, "test": {4}}


def test_words_can_be_compared_with_and_nothing_else(plant_zoo):
    def change(arrays):
        arrays["optimizer"] = np.array(["adam", "sgd"] * (len(arrays["pair"]) // 2))

    zoo = plant_zoo(change, pairs=40, columns=[Column(name="optimizer", kind="setting", dtype="string")])
    for comparison, parity in (("==", 0), ("!=", 1)):
        found = select(ask(train_where=[f"optimizer {comparison} adam"]), zoo, "train")
        assert {*(found.pairs % 2).tolist()} == {parity}
    for wrong in ("optimizer < 3", "epochs == few", "weights > 0"):
        with pytest.raises(TaskError, match=r"cannot be compared$"):
            select(ask(train_where=[wrong]), zoo, "train")
    with pytest.raises(ZooError, match="has no column 'momentum'"):
        select(ask(train_where=["momentum > 0"]), zoo, "train")


@pytest.mark.parametrize("target", ["test_accuracy", "learning_rate"])
def test_test_networks_above_the_median_are_those_above_that_of_all_training_networks(planted_zoo, target):
    train, test = (planted_zoo["standard"].split(split) for split in ("train", "test"))
    found = select_all(ask(target=target, among="above_median", max_train=8), planted_zoo)
    assert np.array_equal(found["test"].pairs, test.pairs[test[target] > np.median(train[target])])
    assert 0 < len(found["test"]) < len(test)
    assert len(found["validation"]) == len(planted_zoo["standard"].split("validation"))
