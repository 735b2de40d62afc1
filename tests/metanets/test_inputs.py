import numpy as np
import pytest
import torch

from metanets.inputs import LARGEST, QUANTILES, READERS, fit_reader
from tests.conftest import PLANTED
from tests.scenarios import NETWORKS, some_thetas, treat
from zoo.seeds import rng_for
from zoo.store.columns import SPLITS

TREATMENT = pytest.mark.parametrize("treatment", PLANTED)
READS = pytest.mark.parametrize("reads", READERS)


def rows_of(zoo, treatment, split):
    return zoo[treatment].split(split).weights[:]


def fitted(zoo, treatment, reads, **options):
    """A reader fitted to the training networks of a treatment."""
    return fit_reader(reads, zoo[treatment].split("train"), **options)


def statistics_by_numpy(rows, layout, read):
    features = []
    for where in layout.slices.values():
        values = rows[:, where][:, read[where]].astype(float)
        features += [values.mean(1), values.var(1), *(np.quantile(values, q, axis=1) for q in QUANTILES)]
    return np.stack(features, 1)


@TREATMENT
@pytest.mark.parametrize("reads", ["rows", "statistics"])
def test_inputs_are_features_of_trainable_entries_standardised_by_the_training_networks(planted_zoo, treatment, reads):
    treated, reader = planted_zoo.shared(treatment), fitted(planted_zoo, treatment, reads)
    read = treated.mask.numpy()
    plain = {}
    for split in SPLITS:
        rows = rows_of(planted_zoo, treatment, split).numpy()
        plain[split] = rows[:, read] if reads == "rows" else statistics_by_numpy(rows, treated.layout, read)
    mean, std = plain["train"].mean(0), plain["train"].std(0, ddof=1)
    for split in SPLITS:
        x = reader(rows_of(planted_zoo, treatment, split))
        assert x.shape == (len(plain[split]), reader.features)
        assert np.allclose(x, (plain[split] - mean) / std, atol=1e-4)


@TREATMENT
def test_a_tensor_is_standardised_by_its_trainable_entries_in_the_median_network_and_compressed(planted_zoo, treatment):
    treated, reader = planted_zoo.shared(treatment), fitted(planted_zoo, treatment, "tensors")
    rows, trainable = rows_of(planted_zoo, treatment, "train").numpy(), treated.mask.numpy()
    x = reader(torch.from_numpy(rows)).numpy()
    for where in treated.layout.slices.values():
        means = [row[where][trainable[where]].mean() for row in rows]
        middle = np.quantile(means, 0.5, method="lower")
        spreads = [np.sqrt(np.mean((row[where][trainable[where]] - middle) ** 2)) for row in rows]
        expected = np.arcsinh((rows[:, where] - middle) / np.quantile(spreads, 0.5, method="lower"))
        assert np.allclose(x[:, where], expected, atol=1e-4)


def test_one_network_of_enormous_weights_moves_the_tensors_of_no_other(planted_zoo):
    rows = rows_of(planted_zoo, "standard", "train")
    outlier = torch.cat([rows, 1e6 * rows[:1]])
    reader = READERS["tensors"].of(planted_zoo.shared("standard"))
    before, after = reader.fit(rows)(rows), reader.fit(outlier)(outlier)
    assert (after[:-1] - before).abs().max() < 0.2
    assert 10 < after[-1].abs().max() < 30


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("setting", PLANTED)
def test_tensors_can_be_inverted(network, setting):
    treated = treat(setting, network)
    rows = treated.to_rows(some_thetas(treated, 5, dtype=torch.float32))
    reader = READERS["tensors"].of(treated).fit(rows)
    torch.testing.assert_close(reader.invert(reader(rows)), rows, rtol=1e-4, atol=1e-5)


def test_tensors_commute_with_permutations_of_hidden_units(planted_zoo):
    reader, rows = fitted(planted_zoo, "standard", "tensors"), planted_zoo["standard"].weights[:20]
    permutations = reader.layout.random_permutations(rng_for(0, "permutation"))
    assert torch.equal(
        reader(reader.layout.permute(rows, permutations)), reader.layout.permute(reader(rows), permutations)
    )


def test_fixed_entries_are_read_only_when_asked_for(planted_zoo):
    treated, rows = planted_zoo.shared("w_asymmetric"), planted_zoo["w_asymmetric"].weights[:]
    trainable = int(treated.mask.sum())
    assert trainable < treated.layout.size
    own, all_ = (fitted(planted_zoo, "w_asymmetric", "rows", include_fixed=fixed) for fixed in (False, True))
    assert (own.features, all_.features) == (trainable, treated.layout.size)
    assert all_(rows)[:, ~treated.mask].abs().max() < 1e-4  # alike in all networks, and no division by nothing
    own, all_ = (
        fitted(planted_zoo, "w_asymmetric", "statistics", include_fixed=fixed)(rows) for fixed in (False, True)
    )
    assert not torch.allclose(own, all_, atol=1e-2)
    tensors = fitted(planted_zoo, "w_asymmetric", "tensors")
    assert tensors.features == treated.layout.size
    assert torch.equal(tensors.mask, treated.mask)


def test_a_tensor_of_which_nothing_is_read_has_no_statistics(planted_zoo):
    treated, rows = planted_zoo.shared("standard"), planted_zoo["standard"].weights[:]
    some = treated.mask.clone()
    some[next(iter(treated.layout.slices.values()))] = False
    all_, all_but_first = (READERS["statistics"](treated.layout, read, {}) for read in (treated.mask, some))
    assert torch.equal(all_but_first.arrange(rows), all_.arrange(rows)[:, 7:])


def test_permuting_hidden_units_changes_rows_but_no_statistic(planted_zoo):
    treated, rows = planted_zoo.shared("standard"), planted_zoo["standard"].weights[:20].double()
    permuted = treated.layout.permute(rows, treated.layout.random_permutations(rng_for(0, "permutation")))
    statistics, flat = (READERS[reads].of(treated) for reads in ("statistics", "rows"))
    torch.testing.assert_close(statistics.arrange(permuted), statistics.arrange(rows), rtol=0, atol=1e-12)
    assert (flat.arrange(permuted) - flat.arrange(rows)).abs().mean() > 0.1


@READS
def test_readers_do_not_depend_on_validation_and_test_networks(plant_zoo, planted_zoo, reads):
    def change(arrays):
        arrays["weights"][arrays["split"] != "train"] *= 10

    changed, original = (fitted(zoo, "standard", reads) for zoo in (plant_zoo(change), planted_zoo))
    assert torch.equal(changed.mean, original.mean)
    assert torch.equal(changed.std, original.std)


@READS
def test_readers_compute_in_the_precision_they_are_given(planted_zoo, reads):
    reader, rows = fitted(planted_zoo, "standard", reads), planted_zoo["standard"].weights[:9]
    single = reader(rows)
    double = reader.double()(rows.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-3, atol=1e-4)


def test_readers_know_the_activation_on_each_hidden_axis():
    names = {
        ("standard", "mlp"): {"hidden0": "GELU", "hidden1": "GELU"},
        ("standard", "cnn_norm"): {"conv0": "Tanh", "conv1": "Tanh"},
        ("sigma_asymmetric", "mlp"): {"hidden0": "FiGLU", "hidden1": "FiGLU"},
    }
    for (setting, network), activations in names.items():
        assert READERS["tensors"].of(treat(setting, network)).activations == activations
    resnet = READERS["tensors"].of(treat("standard", "resnet14"))
    assert resnet.activations == dict.fromkeys(resnet.layout.hidden_axes, "ReLU")


@READS
@pytest.mark.parametrize("factor", [1e8, 1e20, 1e37])
def test_networks_of_exploded_weights_change_nothing_of_how_others_are_read(planted_zoo, reads, factor):
    networks = planted_zoo["w_asymmetric"].split("train")
    rows, reader = networks.weights[:], READERS[reads].of(networks)
    exploded = torch.cat([rows, (factor * rows[:3]).clamp(-3e38, 3e38)])
    before, after = reader.fit(rows)(rows), reader.fit(exploded)(exploded)
    assert torch.equal(after[: len(rows)], before)
    assert after.isfinite().all()
    assert after.abs().max() <= LARGEST
    assert after[-1].abs().max() > 10


@READS
def test_networks_whose_weights_exploded_one_and_all_are_read(planted_zoo, reads):
    rows = 1e20 * planted_zoo["standard"].weights[:20]
    x = READERS[reads].of(planted_zoo["standard"]).fit(rows)(rows)
    assert x.isfinite().all()


def test_statistics_of_enormous_weights_are_those_in_double_precision(planted_zoo):
    reader, rows = READERS["statistics"].of(planted_zoo["standard"]), 1e18 * planted_zoo["standard"].weights[:20]
    torch.testing.assert_close(reader.arrange(rows).double(), reader.arrange(rows.double()), rtol=1e-4, atol=0)
    enormous = reader.arrange(1e15 * rows)  # whose variances have no place in single precision
    assert enormous.isfinite().all()
    assert (enormous == torch.finfo(torch.float32).max).any()


def test_a_reader_of_several_treatments_reads_what_trains_under_any_and_names_all_activations():
    treated = [treat(setting, "mlp") for setting in ("w_asymmetric", "sigma_asymmetric", "standard")]
    for some in ([0], [0, 1], [1, 2], [0, 1, 2]):
        reader = READERS["rows"].of(*(treated[i] for i in some))
        assert torch.equal(reader.mask, torch.stack([treated[i].mask for i in some]).any(0))
        names = "FiGLU" if some == [1] else "FiGLU or GELU" if 1 in some else "GELU"
        assert reader.activations == dict.fromkeys(reader.layout.hidden_axes, names)


def test_a_fitted_reader_is_fitted_to_the_rows_of_all_its_networks(planted_zoo):
    both = [planted_zoo[treatment].split("train") for treatment in PLANTED]
    reader = fit_reader("rows", *both, include_fixed=True)
    rows = torch.cat([networks.weights[:] for networks in both]).double()
    assert np.allclose(reader.mean, rows.mean(0), atol=1e-5)
    assert np.allclose(reader.std, rows.std(0), rtol=1e-4)
