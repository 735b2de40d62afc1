import numpy as np
import pytest
import torch

from metanets.inputs import fit_reader
from metanets.selection import fit_task_reader, is_symmetric, select
from tests.conftest import PLANTED
from tests.metanets.scenarios import CLASSES, ask
from tests.scenarios import NETWORKS
from zoo.errors import TaskError, ZooError

# Rows


@pytest.mark.parametrize(("rows", "added"), [("weights", 0), ("initial", 1), ("checkpoint:.10", 2)])
def test_rows_are_those_of_the_column_that_the_task_names(deep_zoo, rows, added):
    networks = deep_zoo["standard"].split("test")
    task = ask(rows=rows)
    assert torch.equal(select(task, deep_zoo, "test").rows, networks.weights[:] + added)
    reader = fit_task_reader(task, deep_zoo, "rows")
    plain = fit_reader("rows", deep_zoo["standard"].split("train"))
    assert torch.allclose(reader.mean, plain.mean + added, atol=1e-4)


def test_rows_that_a_zoo_does_not_hold_are_named(planted_zoo, deep_zoo):
    with pytest.raises(ZooError, match="standard has no initial_weights; it has weights"):
        _ = select(ask(rows="initial"), planted_zoo, "test").rows
    with pytest.raises(
        ZooError, match="standard has no weights_at_0_25; it has weights, initial_weights, weights_at_0_1"
    ):
        _ = select(ask(rows="checkpoint:0.25"), deep_zoo, "test").rows


def test_permuted_test_networks_compute_the_same_and_are_the_same_at_every_reading(planted_zoo):
    plain, *permuted = (select(ask(permuted=each), planted_zoo, "test") for each in (False, True, True))
    assert torch.equal(permuted[0].rows, permuted[1].rows)
    assert ((plain.rows - permuted[0].rows).abs().mean(1) > 0.1).all()
    treated, inputs = planted_zoo.shared("standard"), NETWORKS["mlp"].examples().float()
    before, after = (treated.stack(found.rows).logits(inputs) for found in (plain, permuted[0]))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    few = select(ask(permuted=True, test_where=["epochs == 2"]), planted_zoo, "test")
    same = torch.from_numpy(np.isin(permuted[0].pairs, few.pairs))
    assert torch.equal(few.rows, permuted[0].rows[same])  # whatever the companions
    for split in ("train", "validation"):
        rows = [select(ask(permuted=each), planted_zoo, split).rows for each in (False, True)]
        assert torch.equal(*rows)


def test_networks_that_hold_entries_constant_cannot_be_permuted(planted_zoo):
    assert [is_symmetric(planted_zoo[treatment]) for treatment in PLANTED] == [True, False]
    with pytest.raises(TaskError, match="permuted: permuting hidden units changes what w_asymmetric networks compute"):
        _ = select(ask("w_asymmetric", permuted=True), planted_zoo, "test").rows


# Readers


def test_a_task_s_reader_is_fitted_to_its_training_networks_whatever_their_number_and_targets(gappy_zoo):
    plain = fit_reader("rows", gappy_zoo["standard"].split("train"))
    for task in (ask(target="test_loss"), ask(max_train=8)):
        reader = fit_task_reader(task, gappy_zoo, "rows")
        assert torch.equal(reader.mean, plain.mean)
        assert torch.equal(reader.std, plain.std)
    own = gappy_zoo["standard"].split("train")
    few = fit_task_reader(ask(train_where=["epochs > 2"]), gappy_zoo, "rows")
    assert torch.equal(few.mean, fit_reader("rows", own[own["epochs"] > 2]).mean)


@pytest.mark.parametrize(
    ("task", "all_"),
    [
        (ask("w_asymmetric"), False),
        (ask("w_asymmetric", test_on="standard"), True),
        (CLASSES, True),
        (ask(PLANTED), True),
    ],
)
def test_entries_that_do_not_train_are_read_where_treatments_meet(planted_zoo, task, all_):
    size, trainable = planted_zoo.shared("standard").layout.size, int(planted_zoo.shared("w_asymmetric").mask.sum())
    assert fit_task_reader(task, planted_zoo, "rows").features == (size if all_ else trainable)
    assert fit_task_reader(task, planted_zoo, "rows", include_fixed=True).features == size
