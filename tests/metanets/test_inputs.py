import numpy as np
import pytest
import torch

from metanets.inputs import QUANTILES, READERS, SPLITS, read_zoo
from tests.metanets.conftest import TREATMENTS
from zoo.errors import TaskError, ZooError
from zoo.seeds import rng_for

TREATMENT = pytest.mark.parametrize("treatment", TREATMENTS)
READS = pytest.mark.parametrize("reads", READERS)


def read_plainly(zoo, treatment, reads, split):
    """The features of a split before they are standardised, and for `statistics` by NumPy."""
    treated, rows = zoo.treated(treatment), zoo.rows(treatment, zoo.index(treatment, split)).numpy()
    trainable = treated.trainable.numpy()
    if reads == "rows":
        return rows[:, trainable]
    features = []
    for where in treated.layout.slices.values():
        values = rows[:, where][:, trainable[where]].astype(float)
        features += [values.mean(1), values.var(1), *(np.quantile(values, q, axis=1) for q in QUANTILES)]
    return np.stack(features, 1)


@TREATMENT
@READS
def test_features_are_numpys_of_trainable_entries(planted_zoo, treatment, reads):
    treated, index = planted_zoo.treated(treatment), planted_zoo.index(treatment, "test")
    features = READERS[reads](planted_zoo.rows(treatment, index), treated.layout, treated.trainable)
    assert np.allclose(features, read_plainly(planted_zoo, treatment, reads, "test"), atol=1e-5)


@TREATMENT
@READS
def test_inputs_are_features_of_trainable_entries_standardised_by_the_training_networks(planted_zoo, treatment, reads):
    splits = read_zoo(planted_zoo, treatment, reads)
    plain = {split: read_plainly(planted_zoo, treatment, reads, split) for split in SPLITS}
    mean, std = plain["train"].mean(0), plain["train"].std(0, ddof=1)
    for split in SPLITS:
        assert np.allclose(splits[split].x, (plain[split] - mean) / std, atol=1e-4)
        accuracy = planted_zoo.field(treatment, "metrics/test_accuracy")[planted_zoo.index(treatment, split)]
        assert np.array_equal(splits[split].y, accuracy)
    assert sum(len(examples.y) for examples in splits.values()) == len(planted_zoo)


def test_fixed_entries_are_read_only_when_asked_for(planted_zoo):
    treated = planted_zoo.treated("w_asymmetric")
    trainable = int(treated.trainable.sum())
    assert trainable < treated.layout.size
    assert read_zoo(planted_zoo, "w_asymmetric", "rows")["test"].x.shape[1] == trainable
    with_fixed = read_zoo(planted_zoo, "w_asymmetric", "rows", fixed=True)["test"].x
    assert with_fixed.shape[1] == treated.layout.size
    assert with_fixed[:, ~treated.trainable].abs().max() < 1e-6  # the same in all networks, and no division by nothing
    own, all_ = (read_zoo(planted_zoo, "w_asymmetric", "statistics", fixed=f)["test"].x for f in (False, True))
    assert not torch.allclose(own, all_, atol=1e-2)


def test_a_tensor_of_which_nothing_is_read_has_no_statistics(planted_zoo):
    treated = planted_zoo.treated("standard")
    read, first = treated.trainable.clone(), next(iter(treated.layout.slices.values()))
    read[first] = False
    rows = planted_zoo.rows("standard")
    all_but_first = READERS["statistics"](rows, treated.layout, treated.trainable)[:, 7:]
    assert torch.equal(READERS["statistics"](rows, treated.layout, read), all_but_first)


def test_permuting_hidden_units_changes_rows_but_no_statistic(planted_zoo):
    treated, rows = planted_zoo.treated("standard"), planted_zoo.rows("standard", slice(20)).double()
    permuted = treated.layout.permute(rows, treated.layout.random_permutations(rng_for(0, "permutation")))
    before, after = (READERS["statistics"](r, treated.layout, treated.trainable) for r in (rows, permuted))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)
    flat, flat_after = (READERS["rows"](r, treated.layout, treated.trainable) for r in (rows, permuted))
    assert (flat - flat_after).abs().mean() > 0.1


@READS
def test_inputs_of_training_and_validation_do_not_depend_on_test_networks(plant_zoo, planted_zoo, reads):
    def change(arrays):
        arrays["weights"][arrays["split"] == "test"] *= 10

    changed, original = read_zoo(plant_zoo(change), "standard", reads), read_zoo(planted_zoo, "standard", reads)
    for split in ("train", "validation"):
        assert torch.equal(changed[split].x, original[split].x)
    assert not torch.equal(changed["test"].x, original["test"].x)


def test_diverged_networks_are_left_out(plant_zoo, planted_zoo):
    def change(arrays):
        for split in SPLITS:
            first = np.flatnonzero(arrays["split"] == split)[0]
            arrays["status"][first] = "diverged"
            arrays["weights"][first] = np.nan
            arrays["metrics/test_accuracy"][first] = np.nan

    kept, original = read_zoo(plant_zoo(change), "standard", "rows"), read_zoo(planted_zoo, "standard", "rows")
    for split in SPLITS:
        assert kept[split].x.isfinite().all()
        assert torch.equal(kept[split].y, original[split].y[1:])


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_of_one_network_is_too_small(plant_zoo, split):
    def change(arrays):
        arrays["status"][np.flatnonzero(arrays["split"] == split)[1:]] = "diverged"

    with pytest.raises(TaskError, match=f"standard has 1 networks in its {split} split; generate more pairs"):
        read_zoo(plant_zoo(change, pairs=40), "standard", "rows")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("value", [0.1, 0.5])  # the mean of many float32 of 0.1 is not 0.1
def test_targets_that_are_all_the_same_are_no_task(plant_zoo, split, value):
    def change(arrays):
        arrays["metrics/test_accuracy"][arrays["split"] == split] = value

    zoo = plant_zoo(change)
    with pytest.raises(TaskError, match=f"{split} networks all have the same test_accuracy"):
        read_zoo(zoo, "standard", "rows")
    assert read_zoo(zoo, "standard", "rows", task="test_loss")["train"].y.std() > 0


def test_unknown_treatments_and_metrics_are_named(planted_zoo):
    with pytest.raises(ZooError, match="has no treatment 'syre'; it has standard, w_asymmetric"):
        read_zoo(planted_zoo, "syre", "rows")
    with pytest.raises(ZooError, match="has no field 'metrics/beauty'"):
        read_zoo(planted_zoo, "standard", "rows", task="beauty")
