"""`Zoo` and `Networks`: access by column, position, mask, split and pair."""

import pickle

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from zoo import Recipe, generate, load_data, open_zoo
from zoo.errors import ZooError
from zoo.networks.architectures import ARCHITECTURES
from zoo.store import reading
from zoo.store.columns import WEIGHTS
from zoo.training.results import MEASURED

TREATMENTS = ("standard", "narrow", "w_asymmetric", "sigma_asymmetric", "syre")
SETTINGS = {
    "w_own": {"kind": "w_asymmetric", "n_fix": 2, "shared": False},
    "sigma_own": {"kind": "sigma_asymmetric", "shared": False},
}
PAIRS = 6
ODD = [False, True] * 3
INDICES = [
    *(0, 5, -1, -6, np.int64(2)),
    *(slice(None), slice(2, 5), slice(None, None, -2), slice(4, 2)),
    *([4, 0, 4, -2], range(2, 4), np.array([5, 1]), np.array([1], np.uint8), torch.tensor([3, 4])),
    *(ODD, np.array(ODD), torch.tensor(ODD), [False] * 6),
    *([], np.array([], int), torch.tensor([], dtype=torch.int64)),
]


def stored(zoo, treatment, name):
    """The columns of all networks, read from the shards with h5py."""
    parts = []
    for path in sorted((zoo.folder / treatment).glob("*.h5")):
        with h5py.File(path) as shard:
            values = shard[name]
            parts.append(values.asstr()[...].astype(str) if values.dtype == object else values[...])
    return np.concatenate(parts)


def selected(index):
    """The positions that NumPy selects."""
    if not isinstance(index, slice):
        index = np.asarray(index, int if np.size(index) == 0 else None)
    return np.arange(PAIRS)[index]


@pytest.fixture
def networks(tiny_zoo):
    return tiny_zoo["w_asymmetric"]


@pytest.fixture
def diverge(tiny_copy, reseal):
    """A function that flags networks of some pairs in a copy of the zoo, and opens it."""

    def flag(treatment, *pairs):
        for file in tiny_copy.manifest.of(treatment):
            with h5py.File(tiny_copy.folder / file.path, "r+") as shard:
                for i in np.flatnonzero(np.isin(shard["pair"][...], pairs)):
                    shard["status"][i] = "diverged"
            reseal(tiny_copy.folder, file.path)
        return open_zoo(tiny_copy.folder)

    return flag


@pytest.fixture(scope="module")
def own_zoo(tiny_recipe, tmp_path_factory):
    """A zoo whose networks have their own constants; for reading only."""
    recipe = Recipe.read(tiny_recipe.to_json() | {"pairs": 4, "treatments": SETTINGS})
    return generate(recipe, tmp_path_factory.mktemp("zoos") / "own", shard_pairs=3)


# --- By position


def test_length_is_the_number_of_networks(networks):
    assert len(networks) == len(networks.weights) == 6
    assert len(networks[1:3]) == len(networks[1:3].weights) == 2
    assert networks[1:3].weights.shape == (2, networks.layout.size)


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_an_index_selects_the_weights_that_numpy_selects(tiny_zoo, networks, index):
    for name in WEIGHTS:
        rows, expected = networks.rows(name)[index], stored(tiny_zoo, "w_asymmetric", name)[selected(index)]
        assert rows.dtype == torch.float32
        assert rows.shape == expected.shape
        assert np.array_equal(rows.numpy(), expected)


@pytest.mark.parametrize("index", [index for index in INDICES if selected(index).ndim], ids=str)
def test_several_positions_give_networks(networks, index):
    some = networks[index]
    assert type(some) is type(networks)
    assert some["pair"].tolist() == some.pairs.tolist() == selected(index).tolist()
    assert some["test_loss"].tolist() == networks["test_loss"][selected(index)].tolist()
    assert torch.equal(some.weights[:], networks.weights[index])
    assert torch.equal(some.stack().rows, some.weights[:])
    assert torch.equal(networks.stack(index, initial=True).rows, some.initial_weights[:])


@pytest.mark.parametrize("index", [index for index in INDICES if not selected(index).ndim], ids=str)
def test_one_position_gives_all_columns_of_a_network(networks, index):
    known = networks[index]
    assert list(known) == list(networks.columns)
    assert known["pair"] == selected(index)
    for name, value in known.items():
        np.testing.assert_array_equal(value, networks[name][selected(index)], strict=True)


@pytest.mark.parametrize("index", [index for index in INDICES if not selected(index).ndim], ids=str)
def test_one_position_gives_a_stack_of_one_and_its_module(networks, index):
    stack = networks.stack(index)
    assert torch.equal(stack.rows, networks.weights[index][None])
    state = networks.module(index).state_dict()
    assert torch.equal(networks.layout.flatten(state), stack.rows[0])


def test_iterating_gives_each_network(networks):
    each = list(networks[3:])
    assert [known["pair"] for known in each] == [3, 4, 5]
    for i, known in enumerate(each):
        np.testing.assert_equal(known, networks[3 + i])


def test_iterating_weights_gives_each_row(networks):
    assert torch.equal(torch.stack(list(networks.weights)), networks.weights[:])


def indices(length):
    """A strategy of slices, masks and positions for a number of networks."""
    masks = st.lists(st.booleans(), min_size=length, max_size=length).map(lambda mask: np.array(mask, bool))
    positions = st.lists(st.integers(-length, length - 1)) if length else st.just([])
    return st.one_of(st.slices(length), masks, positions.map(lambda places: np.array(places, int)))


@given(data=st.data())
def test_indexing_networks_twice_selects_what_numpy_selects(tiny_zoo, data):
    some, pairs = tiny_zoo["standard"], np.arange(PAIRS)
    for _ in range(3):
        index = data.draw(indices(len(some)))
        some, pairs = some[index], pairs[index]
        assert some["pair"].tolist() == pairs.tolist()
        assert np.array_equal(some["weights"], tiny_zoo["standard"]["weights"][pairs])


@pytest.mark.parametrize("index", [6, -7, [0, 6], torch.tensor([9]), np.array([-7])], ids=str)
def test_a_position_out_of_range_is_an_index_error(networks, index):
    for read in (networks.__getitem__, networks.weights.__getitem__, networks.stack):
        with pytest.raises(IndexError, match=r"^position out of range: there are 6 networks$"):
            read(index)


@pytest.mark.parametrize(
    "index", [True, [True], np.ones(5, bool), torch.ones(7, dtype=torch.bool), np.ones((6, 1), bool)], ids=str
)
def test_a_mask_of_another_length_is_an_index_error(networks, index):
    for read in (networks.__getitem__, networks.weights.__getitem__, networks.stack):
        with pytest.raises(IndexError, match=r"^a mask of shape \(.*\) for 6 networks; it must have shape \(6,\)$"):
            read(index)


@pytest.mark.parametrize("index", [np.zeros(6), torch.ones(6), np.array(["pair"]), np.zeros((1, 2), int)], ids=repr)
def test_an_array_that_is_not_an_index_is_a_type_error(networks, index):
    for read in (networks.__getitem__, networks.weights.__getitem__, networks.stack):
        with pytest.raises(
            TypeError, match=r"is not a position, slice, boolean mask or list of positions; give one of these$"
        ):
            read(index)


@pytest.mark.parametrize("index", [1.0, [0.5], ["pair"], [[0, 1]], {0}], ids=str)
def test_a_value_that_is_not_an_index_is_a_type_error(networks, index):
    for read in (networks.__getitem__, networks.weights.__getitem__, networks.stack):
        with pytest.raises(TypeError):
            read(index)


@pytest.mark.parametrize("index", [slice(2), [0], ODD, np.arange(2), None], ids=str)
def test_a_module_takes_one_position(networks, index):
    with pytest.raises(TypeError):
        networks.module(index)


def test_an_empty_selection_has_no_weights_and_an_empty_stack(tiny_zoo):
    for treatment in TREATMENTS:
        none = tiny_zoo[treatment][[]]
        assert len(none) == len(none["pair"]) == len(none["test_loss"]) == len(list(none)) == 0
        assert none.weights[:].shape == none.stack().rows.shape == (0, none.layout.size)


# --- By column


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_a_column_joins_those_of_the_shards(tiny_zoo, treatment):
    assert [file.pairs for file in tiny_zoo.manifest.of(treatment)] == [(0, 4), (4, 6)]
    for name in tiny_zoo[treatment].columns:
        np.testing.assert_array_equal(tiny_zoo[treatment][name], stored(tiny_zoo, treatment, name))


def test_columns_are_weights_ids_hyperparameters_metrics_curves_and_costs(tiny_zoo):
    drawn = {"learning_rate", "weight_decay", "label_smoothing", "epochs"}
    measured = {f"{prefix}{name}" for prefix in ("", "curve_") for name in MEASURED}
    assert tiny_zoo["syre"].columns.keys() == drawn | measured | {*WEIGHTS, "pair", "split", "status", "seconds"}


def test_a_group_has_the_columns_of_a_kind(networks):
    curves = networks[2:].group("curve")
    assert curves.keys() == {name for name in networks.columns if name.startswith("curve_")}
    for name, values in curves.items():
        np.testing.assert_array_equal(values, networks[2:][name])


def test_curves_end_at_the_recorded_metrics(networks):
    for name in MEASURED:
        curve = networks[f"curve_{name}"]
        assert np.array_equal((~np.isnan(curve)).sum(1), networks["epochs"])
        assert np.array_equal(curve[np.arange(6), networks["epochs"] - 1], networks[name])


def test_weights_are_mapped_shard_by_shard_when_they_are_indexed(tiny_zoo, monkeypatch):
    networks, mapped, map_rows = open_zoo(tiny_zoo.folder)["standard"], [], reading.map_rows

    def spy(folder, file, name, size):
        mapped.append((file.path, name))
        rows = map_rows(folder, file, name, size)
        assert isinstance(rows, np.memmap)
        return rows

    monkeypatch.setattr(reading, "map_rows", spy)
    weights = networks.weights
    assert mapped == []
    for _ in range(2):
        assert torch.equal(weights[5], torch.from_numpy(stored(tiny_zoo, "standard", "weights")[5]))
    assert mapped == [("standard/00004.h5", "weights")]


def test_changing_a_returned_array_does_not_change_the_zoo(networks):
    before = {name: networks[name].copy() for name in networks.columns}
    networks.weights[:].zero_()
    networks.weights[2].zero_()
    networks.stack().rows.zero_()
    networks.module(2).state_dict()["output.bias"].zero_()
    for name in networks.columns:
        networks[name][:] = 0
    for value in networks[2].values():
        if np.ndim(value):
            value[:] = 0
    for name, values in before.items():
        np.testing.assert_array_equal(networks[name], values)


def test_missing_initial_weights_are_a_zoo_error(planted_zoo):
    networks = planted_zoo["standard"]
    for read in (lambda: networks.initial_weights, lambda: networks.stack(initial=True)):
        with pytest.raises(ZooError, match=r"standard has no initial_weights; it has weights$"):
            read()
    with pytest.raises(ZooError, match="standard has no column 'initial_weights'"):
        networks["initial_weights"]
    assert "initial_weights" not in networks[0]


def test_an_unknown_name_is_an_error_that_suggests_the_nearest(tiny_zoo, networks):
    with pytest.raises(ZooError, match=r"w_asymmetric has no column 'tset_loss' \(did you mean 'test_loss'\?\); it"):
        networks["tset_loss"]
    with pytest.raises(
        ZooError, match=r"split: there is no 'val' \(did you mean 'validation'\?\); use one of train, v"
    ):
        networks.split("val")
    unknown = r"has no treatment 'standrd' \(did you mean 'standard'\?\); it has standard, narrow"
    for read in (tiny_zoo.__getitem__, tiny_zoo.networks, tiny_zoo.paired, tiny_zoo.shared):
        with pytest.raises(ZooError, match=unknown):
            read("standrd")


# --- By split, status and pair


def test_splits_are_those_of_the_recipe(tiny_zoo):
    split_of = Recipe.of(tiny_zoo).split_of
    for treatment in TREATMENTS:
        assert tiny_zoo[treatment]["split"].tolist() == [split_of(pair) for pair in range(PAIRS)]


def test_a_split_has_only_its_networks(planted_zoo):
    networks, found = planted_zoo["standard"], []
    for name in ("train", "validation", "test"):
        some = networks.split(name)
        assert set(some["split"]) == {name}
        assert torch.equal(some.weights[:], networks.weights[some["pair"]])
        assert some[::-1].split(name)["pair"].tolist() == some["pair"][::-1].tolist()
        found += some["pair"].tolist()
    assert sorted(found) == networks["pair"].tolist() == list(range(120))


def test_networks_that_diverged_are_left_out_unless_requested(diverge):
    zoo = diverge("standard", 1, 4)
    assert len(zoo) == 6
    for networks, pairs in (
        (zoo["standard"], [0, 2, 3, 5]),
        (zoo.networks("standard"), [0, 2, 3, 5]),
        (zoo.networks("standard", diverged=True), [0, 1, 2, 3, 4, 5]),
        (zoo["syre"], [0, 1, 2, 3, 4, 5]),
    ):
        rows, losses = (stored(zoo, networks.treatment, name)[pairs] for name in ("weights", "test_loss"))
        assert networks["pair"].tolist() == pairs
        assert ("diverged" in networks["status"]) == (networks.treatment == "standard" and len(pairs) == 6)
        assert networks["test_loss"].tolist() == losses.tolist()
        assert [known["test_loss"] for known in networks] == losses.tolist()
        assert np.array_equal(networks["weights"], rows)
        assert np.array_equal(networks.weights[:].numpy(), rows)
        assert np.array_equal(networks.stack().rows.numpy(), rows)
        assert np.array_equal(networks.layout.flatten(networks.module(1).state_dict()).numpy(), rows[1])
        splits = [networks.split(name)["pair"] for name in ("train", "validation", "test")]
        assert sorted(np.concatenate(splits).tolist()) == pairs


def test_paired_networks_diverged_under_no_treatment(diverge):
    diverge("syre", 5)
    zoo = diverge("standard", 1)
    standard, asymmetric = zoo.paired("standard", "w_asymmetric")
    assert (standard.treatment, asymmetric.treatment) == ("standard", "w_asymmetric")
    assert standard["pair"].tolist() == asymmetric["pair"].tolist() == [0, 2, 3, 4, 5]
    assert np.array_equal(asymmetric["weights"], stored(zoo, "w_asymmetric", "weights")[[0, 2, 3, 4, 5]])
    assert standard["learning_rate"].tolist() == asymmetric["learning_rate"].tolist()
    assert [each["pair"].tolist() for each in zoo.paired("syre", "narrow", "standard")] == [[0, 2, 3, 4]] * 3
    assert [each["pair"].tolist() for each in zoo.paired("syre")] == [[0, 1, 2, 3, 4]]


def test_positions_differ_from_pairs_if_networks_diverged(diverge):
    networks = diverge("standard", 1)["standard"]
    assert networks[1]["pair"] == networks["pair"][1] == 2
    assert networks[-1]["pair"] == 5
    with pytest.raises(IndexError, match="there are 5 networks"):
        networks[5]


def test_the_length_of_a_zoo_counts_diverged_pairs(diverged_zoo):
    assert len(diverged_zoo) == 2
    assert len(diverged_zoo["standard"]) == 0
    assert [len(each) for each in diverged_zoo.paired("standard", "w_asymmetric")] == [0, 0]


# --- To run


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_a_module_measures_what_was_recorded(tiny_zoo, treatment):
    data, networks = load_data("digits", train_limit=512), tiny_zoo[treatment]
    for i in (0, 5):
        with torch.no_grad():
            logits = networks.module(i)(data.test_x)
        accuracy = (logits.argmax(-1) == data.test_y).float().mean().item()
        loss = torch.nn.functional.cross_entropy(logits, data.test_y).item()
        assert accuracy == pytest.approx(networks["test_accuracy"][i], abs=1e-6)
        assert loss == pytest.approx(networks["test_loss"][i], rel=1e-5)


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_the_state_dict_of_a_module_fits_the_plain_architecture(tiny_zoo, treatment):
    arguments = Recipe.of(tiny_zoo).architecture.arguments
    if treatment == "narrow":
        arguments = ARCHITECTURES["mlp"].narrow(arguments, 0.5)
    plain = ARCHITECTURES["mlp"](**arguments)
    plain.load_state_dict(tiny_zoo[treatment].module(3).state_dict(), strict=True)
    flat = torch.cat([parameter.detach().flatten() for parameter in plain.parameters()])
    assert torch.equal(flat, tiny_zoo[treatment].weights[3])


def test_networks_have_the_layout_mask_and_activations_of_their_treatment(tiny_zoo):
    for treatment in TREATMENTS:
        networks, shared = tiny_zoo[treatment], tiny_zoo.shared(treatment)
        assert networks.layout == shared.layout
        assert torch.equal(networks.mask, shared.mask)
        assert networks.own_constants == ()
        assert networks[2:].treated is shared
    assert (~tiny_zoo["w_asymmetric"].mask).sum() == 8 * 4 + 8 * 3 + 10 * 2
    assert tiny_zoo["standard"].mask.all()
    assert set(tiny_zoo["standard"].activations.values()) == {"GELU"}
    assert tiny_zoo["standard"].activations.keys() == set(tiny_zoo["standard"].layout.hidden_axes)


@pytest.mark.parametrize("treatment", SETTINGS)
def test_networks_run_with_their_own_constants(own_zoo, treatment):
    networks, x = own_zoo[treatment], load_data("digits").test_x[:20]
    logits = networks.stack().logits(x)
    assert networks.own_constants == (("mask", "constants") if treatment == "w_own" else ("held_F",))
    assert networks.mask.all()
    assert {len(tensor) for tensor in networks[[3, 1]].treated.held.values()} == {2}
    assert torch.equal(networks[[3, 1]].stack().logits(x), logits[[3, 1]])
    assert torch.equal(networks.stack([3, 1]).logits(x), logits[[3, 1]])
    for i in range(4):
        assert torch.equal(networks.module(i)(x), logits[i])


@pytest.mark.parametrize("treatment", SETTINGS)
def test_an_empty_selection_with_own_constants_gives_an_empty_stack(own_zoo, treatment):
    none, x = own_zoo[treatment][[]], torch.zeros(3, 64)
    assert len(list(none)) == len(none.stack()) == len(own_zoo[treatment].stack([])) == 0
    assert {len(tensor) for tensor in none.treated.held.values()} == {0}
    assert list(none.stack().logits_in_parts(x)) == []


# --- In other processes


def test_a_pickled_zoo_stores_its_path_and_opens_again(tiny_zoo):
    rows = tiny_zoo["w_asymmetric"].weights[:]
    content = pickle.dumps(tiny_zoo)
    assert len(content) < 500
    again = pickle.loads(content)
    assert again.manifest == tiny_zoo.manifest
    assert torch.equal(again["w_asymmetric"].weights[:], rows)


@pytest.mark.parametrize("treatment", SETTINGS)
def test_pickled_networks_store_the_path_and_their_pairs(own_zoo, treatment):
    networks, x = own_zoo[treatment][[2, 0]], torch.randn(3, 64)
    logits = networks.stack().logits(x)
    content = pickle.dumps(networks)
    assert len(content) < 1000
    again = pickle.loads(content)
    assert again["pair"].tolist() == [2, 0]
    assert torch.equal(again.weights[:], networks.weights[:])
    assert torch.equal(again.stack().logits(x), logits)


def test_data_loader_workers_read_weights(tiny_zoo):
    expected = tiny_zoo["standard"].weights[:]  # its files are now open here
    loader = DataLoader(tiny_zoo["standard"].weights, batch_size=2, num_workers=2, multiprocessing_context="spawn")
    assert torch.equal(torch.cat(list(loader)), expected)


def test_a_data_loader_makes_batches_of_all_columns(networks):
    batch = next(iter(DataLoader(networks, batch_size=4)))
    assert torch.equal(batch["weights"], networks.weights[:4])
    assert batch["pair"].tolist() == [0, 1, 2, 3]
    assert batch["split"] == networks["split"][:4].tolist()
    np.testing.assert_array_equal(batch["curve_test_loss"].numpy(), networks["curve_test_loss"][:4])


def test_zoos_and_networks_show_what_they_are(tiny_zoo):
    assert repr(tiny_zoo) == f"Zoo('tiny', 6 pairs, treatments={list(TREATMENTS)})"
    size = tiny_zoo["syre"].layout.size
    assert repr(tiny_zoo["syre"][:2]) == f"Networks(tiny/syre, 2 networks of {size} parameters)"


def test_networks_contain_the_names_of_their_columns(tiny_zoo):
    assert "test_loss" in tiny_zoo["standard"]
    assert "weights" in tiny_zoo["standard"]
    assert "beauty" not in tiny_zoo["standard"]
    assert 0 not in tiny_zoo["standard"]


def test_two_dimensional_indexing_is_one_clear_error(tiny_zoo):
    with pytest.raises(TypeError, match=r"^\(0, 1\) has two dimensions, networks have one; write networks"):
        tiny_zoo["standard"].weights[0, 1]
