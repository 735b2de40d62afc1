import numpy as np
import pytest
import torch

from metanets.identity import check_identity, identify
from metanets.selection import select, select_all
from tests.conftest import PLANTED
from tests.metanets.scenarios import CLASSES, ask
from zoo.errors import TaskError
from zoo.store.columns import SPLITS

EVERY_SPLIT = pytest.mark.parametrize("split", SPLITS)


def identities(task, *zoos):
    return [identify(task, zoo, found=select_all(task, zoo)) for zoo in zoos]


# Other zoos


def test_a_zoo_of_another_name_is_refused(planted_zoo, other_zoo):
    with pytest.raises(
        TaskError, match="holds the zoo other, but the task small/standard/test_accuracy is about small"
    ):
        select(ask(), other_zoo, "train")
    with pytest.raises(TaskError, match=r"holds the zoo small, but the task .* is about other$"):
        select(ask(test_recipe="other"), planted_zoo, "test")


def test_a_task_can_be_tested_on_another_zoo(planted_zoo, other_zoo):
    task = ask(test_recipe="other", test_on="syre", among="above_median")
    found = select_all(task, planted_zoo, other_zoo)
    test, train = other_zoo["syre"].split("test"), planted_zoo["standard"].split("train")
    above = test["test_accuracy"] > np.median(train["test_accuracy"])
    assert np.array_equal(found["test"].pairs, test.pairs[above])
    assert torch.equal(found["test"].rows, test.weights[:][torch.from_numpy(above)])
    assert torch.equal(found["train"].rows, planted_zoo["standard"].split("train").weights[:])


def test_test_networks_of_another_layout_are_refused(planted_zoo, plant_zoo):
    wide = plant_zoo(widths=[8, 20, 4], name="other", pairs=24)
    with pytest.raises(TaskError, match="test networks have another layout than those of standard"):
        select(ask(test_recipe="other"), planted_zoo, "test", wide)
    mixed = plant_zoo(treatments=["standard", "narrow"], pairs=24)
    with pytest.raises(TaskError, match="narrow and standard networks differ in layout"):
        select(ask(["standard", "narrow"]), mixed, "train")


# Identity


def test_further_treatments_change_neither_a_task_nor_its_identity(planted_zoo, plant_zoo):
    grown = plant_zoo(treatments=("syre", *PLANTED, "narrow"))
    assert grown.manifest.digest != planted_zoo.manifest.digest
    for task in (ask(), ask("w_asymmetric"), ask(test_on="w_asymmetric"), CLASSES):
        data = [identify(task, zoo, found=select_all(task, zoo)) for zoo in (planted_zoo, grown)]
        assert data[0] == data[1]
        pinned = [task.model_copy(update={"data": each}) for each in data]
        assert pinned[0].digest == pinned[1].digest
        check_identity(pinned[0], data[1])


def test_the_identity_depends_on_the_treatments_that_are_used(planted_zoo):
    tasks = [ask(), ask("w_asymmetric"), ask(test_on="w_asymmetric"), CLASSES]
    recipes = [identify(task, planted_zoo).recipe for task in tasks]
    assert len({*recipes}) == 3
    assert recipes[2] == recipes[3]
    assert identify(tasks[0], planted_zoo).labels is identify(tasks[0], planted_zoo).test_rows is None


def shift(column, split, only_first=True):
    """A change of one value of a column, or of all in a split."""

    def change(arrays):
        where = np.flatnonzero(arrays["split"] == split)
        where = where[:1] if only_first else where
        arrays[column][where] += np.float32(0.01)

    return change


@EVERY_SPLIT
def test_a_changed_label_changes_the_identity(planted_zoo, plant_zoo, split):
    before, after = identities(ask(), planted_zoo, plant_zoo(shift("test_accuracy", split)))
    assert after.labels != before.labels
    assert after.model_copy(update={"labels": before.labels}) == before


@EVERY_SPLIT
def test_a_changed_test_row_changes_the_identity_and_a_training_row_does_not(planted_zoo, plant_zoo, split):
    before, after = identities(ask(), planted_zoo, plant_zoo(shift("weights", split)))
    assert (after.test_rows != before.test_rows) == (split == "test")
    assert after.model_copy(update={"test_rows": before.test_rows}) == before


def test_what_a_task_does_not_use_leaves_its_identity_alone(planted_zoo, plant_zoo):
    changed = plant_zoo(shift("test_loss", "test", only_first=False))
    before, after = identities(ask(), planted_zoo, changed)
    assert before == after
    before, after = identities(ask(target="test_loss"), planted_zoo, changed)
    assert before != after


def test_the_identity_is_of_the_rows_that_are_read(deep_zoo):
    tasks = [ask(rows=rows) for rows in ("weights", "initial", "checkpoint:0.1")]
    assert len({identify(task, deep_zoo, found=select_all(task, deep_zoo)).test_rows for task in tasks}) == 3


def test_a_zoo_of_more_pairs_is_another_one(planted_zoo, plant_zoo):
    before, after = (identify(ask(), zoo) for zoo in (planted_zoo, plant_zoo(pairs=100)))
    assert (before.pairs, after.pairs) == (120, 100)
    assert before.recipe != after.recipe


def test_another_zoo_that_is_tested_on_has_an_identity_of_its_own(planted_zoo, other_zoo):
    task = ask(test_recipe="other", test_on="syre")
    data = identify(task, planted_zoo, other_zoo, select_all(task, planted_zoo, other_zoo))
    assert data.recipe == identify(ask(), planted_zoo).recipe
    assert data.test_recipe == other_zoo.digest(["syre"])
    assert data.test_pairs == 120
    check_identity(task.model_copy(update={"data": data}), identify(task, planted_zoo))  # as in training


@pytest.mark.parametrize("field", ["recipe", "pairs", "labels", "test_rows"])
def test_a_task_pinned_to_other_data_names_the_first_difference(planted_zoo, field):
    found = identify(ask(), planted_zoo, found=select_all(ask(), planted_zoo))
    pinned = ask(data=found.model_dump() | {field: 7 if field == "pairs" else "7"})
    with pytest.raises(TaskError, match=f"{field} of the zoo is .*, but the task is pinned to 7$"):
        check_identity(pinned, found)
    check_identity(ask(data=found.model_dump()), found)
    check_identity(ask(data={"recipe": found.recipe, "pairs": found.pairs}), found)
