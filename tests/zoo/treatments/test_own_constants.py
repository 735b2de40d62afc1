"""Treatments whose constants differ between networks: these are drawn, trained with, stored and read again."""

import math
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmark.inference import langevin
from benchmark.phenomena import PHENOMENA, bayesian, curvature
from metanets import Settings, Task
from metanets import train as train_metanet
from tests.scenarios import some_data, treatment_of
from tests.zoo.training.test_generation import assert_same
from zoo import Recipe, generate, open_zoo, verify
from zoo.errors import AsymZooError, ZooError
from zoo.recipes.optimizer import Optimizer
from zoo.sharing.export import export_zoo
from zoo.sharing.importers.hf import import_zoo
from zoo.store.columns import WEIGHTS
from zoo.store.zoo import Zoo
from zoo.training import engines
from zoo.training.engines import train
from zoo.training.results import MEASURED, Draws
from zoo.treatments import Treated

SETTINGS = {
    "w_own": {"kind": "w_asymmetric", "n_fix": 2, "shared": False},
    "sigma_own": {"kind": "sigma_asymmetric", "shared": False},
}
EVERY = pytest.mark.parametrize("setting", SETTINGS)
WIDTHS = [64, 8, 6, 10]
PAIRS, SHARD = 24, 10
HELD = {"w_own": ("mask", "constants"), "sigma_own": ("held_F",)}


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    architecture, data = {"name": "mlp", "widths": WIDTHS}, {"name": "digits", "train_limit": 128}
    changes = {"pairs": PAIRS, "architecture": architecture, "data": data, "treatments": SETTINGS}
    return Recipe.read(tiny_recipe.to_json() | changes)


@pytest.fixture(scope="module")
def zoo(recipe, tmp_path_factory):
    """A zoo of such treatments, for reading only."""
    return generate(recipe, tmp_path_factory.mktemp("zoos") / "own", shard_pairs=SHARD)


@pytest.fixture
def small(recipe, tmp_path):
    """A zoo of three pairs, which a test may damage."""
    return generate(recipe.model_copy(update={"pairs": 3}), tmp_path / "small")


@pytest.fixture(scope="module")
def data(recipe):
    return recipe.load_data()


def drawn(recipe, setting, pair):
    """The constants of one pair, drawn separately."""
    return recipe.treat(setting, pairs=[pair]).held


# --- Stored


def test_columns_unpack_to_the_masks_and_constants_that_the_recipe_draws(zoo, recipe):
    size = zoo["w_own"].layout.size
    masks = np.unpackbits(zoo["w_own"]["mask"], axis=1)[:, :size].astype(bool)
    constants = zoo["w_own"]["constants"]
    assert zoo["w_own"]["mask"].shape == (PAIRS, -(-size // 8))
    for pair in range(PAIRS):
        held = drawn(recipe, "w_own", pair)
        assert np.array_equal(masks[pair], held["mask"][0].numpy())
        assert np.array_equal(constants[pair], held["constants"][0].numpy())


def test_columns_unpack_to_the_matrices_that_the_recipe_draws(zoo, recipe):
    column = zoo["sigma_own"]["held_F"]
    assert column.shape == (PAIRS, 8 * 8 + 6 * 6)
    for pair in range(PAIRS):
        held = drawn(recipe, "sigma_own", pair)
        first, second = held["F/hidden.0.activation"][0], held["F/hidden.1.activation"][0]
        assert np.array_equal(column[pair, :64].reshape(8, 8), first.numpy())
        assert np.array_equal(column[pair, 64:].reshape(6, 6), second.numpy())


@EVERY
def test_constants_are_columns_only_of_their_treatment(zoo, setting):
    (other,) = SETTINGS.keys() - {setting}
    assert {name for name, column in zoo[setting].columns.items() if column.kind == "constant"} == set(HELD[setting])
    assert zoo[other].columns.keys().isdisjoint(HELD[setting])
    assert not (zoo.folder / setting / "constants.safetensors").exists()


def test_fixed_entries_are_the_networks_own_constants_bit_for_bit(zoo):
    treated = zoo["w_own"].treated
    fixed = ~treated.mask
    assert (fixed.sum(1) == 2 * (8 + 6 + 10)).all()
    for name in WEIGHTS:
        rows = torch.from_numpy(zoo["w_own"][name])
        assert torch.equal(rows[fixed].view(torch.int32), treated.constants[fixed].view(torch.int32))
    assert (zoo["w_own"].weights[:][~fixed] != zoo["w_own"].initial_weights[:][~fixed]).any()


@EVERY
def test_constants_differ_between_pairs(zoo, setting):
    for name in HELD[setting]:
        assert len(np.unique(zoo[setting][name], axis=0)) == PAIRS


def test_constants_of_two_pairs_differ_at_entries_that_both_fix(zoo):
    treated = zoo["w_own"].treated
    first, second = treated.constants[0], treated.constants[1:]
    both = ~treated.mask[0] & ~treated.mask[1:]
    assert both.sum() > PAIRS
    assert (first.expand_as(second)[both] != second[both]).all()


@EVERY
def test_networks_do_not_depend_on_shards_and_stacks(zoo, recipe, setting, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "stack_size", lambda *network: 2)
    few = recipe.only([setting]).model_copy(update={"pairs": 5})
    again = generate(few, tmp_path / "zoo", shard_pairs=3)
    for name in zoo[setting].columns.keys() - {"seconds"}:
        values = zoo[setting][name][:5]
        assert np.array_equal(again[setting][name], values, equal_nan=values.dtype.kind == "f")


@EVERY
def test_reading_what_networks_share_reads_no_columns(zoo, setting, monkeypatch):
    monkeypatch.setattr(Zoo, "column", None)
    treated = open_zoo(zoo.folder).shared(setting)
    assert treated.held == {}
    assert treated.layout.size == 8 * 65 + 2 * 8 + 6 * 9 + 2 * 6 + 70
    assert treated.mask.all()


def test_networks_with_their_own_activations_have_no_common_module(zoo):
    with pytest.raises(
        ZooError, match=r"the sigma_own networks have their own activations; use zoo\['sigma_own'\].stack"
    ):
        _ = zoo.shared("sigma_own").module


# --- Run


def by_hand(tensors, x, activation):
    """The logits of the MLP, by plain formulas."""
    x = x.flatten(1)
    for i in range(2):
        weight, bias, scale, shift = (
            tensors[f"hidden.{i}.{name}"] for name in ("linear.weight", "linear.bias", "norm.weight", "norm.bias")
        )
        x = activation(i, functional.layer_norm(x @ weight.T + bias, (len(bias),), scale, shift))
    return x @ tensors["output.weight"].T + tensors["output.bias"]


@EVERY
def test_logits_of_a_stack_are_those_computed_by_hand_for_each_network(zoo, recipe, data, setting):
    index, x = [21, 3, 9], data.test_x[:50]
    logits, layout = zoo[setting].stack(index).logits(x), zoo[setting].layout
    for own, pair in zip(logits, index, strict=True):
        held = drawn(recipe, setting, pair)

        def activation(i, x, held=held):
            if setting == "w_own":
                return functional.gelu(x)
            return x * torch.sigmoid(x @ held[f"F/hidden.{i}.activation"][0].T)

        alone = by_hand(layout.unflatten(zoo[setting].weights[pair]), x, activation)
        torch.testing.assert_close(own, alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(zoo[setting].module(pair)(x), alone, rtol=1e-4, atol=1e-5)
    assert (logits[0] - logits[1]).abs().max() > 0.1


# --- Trained

ADAMW = Optimizer(optimizer="adamw", batch_size=8, schedule="triangular")
SGD = Optimizer(optimizer="sgd", batch_size=8, momentum=0.8)


@EVERY
@pytest.mark.parametrize("settings", [ADAMW, SGD], ids=["adamw", "sgd"])
def test_networks_train_together_as_separately_whenever_they_leave_the_stack(setting, settings):
    pairs, epochs = (4, 0, 9, 2), torch.tensor([3, 1, 4, 2])
    treated = treat(setting, pairs)
    rng = np.random.default_rng(0)
    start = torch.stack([treated.layout.draw_initial(rng) for _ in pairs]).double()
    floats = torch.tensor([[0.02, 0.05, 0.01, 0.03], [0.1, 0.0, 0.5, 0.2], [0.0, 0.2, 0.1, 0]])
    hyper = Draws(torch.tensor(pairs), *floats, epochs)
    data = some_data()
    together = train(treated, start, hyper, data, settings, seed=3)
    for k, pair in enumerate(pairs):
        one = Draws(*(values[k : k + 1] for values in vars(hyper).values()))
        alone = train(treat(setting, [pair]), start[k : k + 1], one, data, settings, seed=3)
        torch.testing.assert_close(together.rows[k], alone.rows[0], rtol=0, atol=1e-10)
        for name in MEASURED:
            torch.testing.assert_close(together.metrics[name][k], alone.metrics[name][0], rtol=0, atol=1e-10)
    fixed = ~treated.mask.expand_as(together.rows)
    assert torch.equal(together.rows[fixed], treated.to_rows(treated.keep_trainable(start))[fixed])


def treat(setting, pairs):
    arguments = {"widths": [8, 7, 6, 4]}
    treated = Treated.of(treatment_of(SETTINGS[setting]), "mlp", arguments, seed=7, pairs=tuple(pairs))
    return treated.to("cpu", torch.float64)


@EVERY
def test_a_diverged_network_is_measured_with_its_own_constants(setting):
    treated = treat(setting, (4, 0, 9))
    rng = np.random.default_rng(0)
    start = torch.stack([treated.layout.draw_initial(rng) for _ in range(3)]).double()
    rates = torch.tensor([0.01, math.inf, 0.01], dtype=torch.float64)
    hyper = Draws(torch.tensor([4, 0, 9]), rates, torch.zeros(3), torch.zeros(3), torch.tensor([2, 2, 1]))
    data = some_data()
    trained = train(treated, start, hyper, data, SGD, seed=3)
    assert trained.diverged.tolist() == [False, True, False]
    again = treated.stack(trained.rows).evaluate(data.test_x.double(), data.test_y)
    torch.testing.assert_close(trained.metrics["test_loss"], again.loss, rtol=0, atol=1e-10)
    stranger = replace(treated, held={name: tensor.roll(1, 0) for name, tensor in treated.held.items()})
    others = stranger.stack(trained.rows)
    assert setting == "w_own" or (others.evaluate(data.test_x.double(), data.test_y).loss != again.loss).all()


# --- Verified


def test_verify_measures_and_trains_networks_with_own_constants_again(small):
    found = verify(small, retrain=2)
    assert (found.measured, found.retrained + found.compared) == (6, 2)


@pytest.mark.parametrize(("setting", "name"), [(s, name) for s, names in HELD.items() for name in names])
def test_verify_finds_altered_constants(small, reseal, setting, name):
    path = f"{setting}/00000.h5"
    with h5py.File(small.folder / path, "r+") as shard:
        values = shard[name][...]
        place = (1, int((values[1] != 0).argmax()))
        shard[name][place] = values[place] ^ 1 if name == "mask" else values[place] + 0.5
    reseal(small.folder, path)
    with pytest.raises(ZooError, match=f"{setting}'s constants are not those of the recipe"):
        verify(open_zoo(small.folder))


# --- Read and shared


@EVERY
@pytest.mark.parametrize("model", ["statnn", "mlp", "gmn"])
def test_metanetworks_train_on_networks_with_own_constants(zoo, setting, model):
    task = Task(recipe=zoo.name, learn_from=setting)
    (metanet,) = train_metanet(task, zoo, model, settings=Settings(epochs=1, batch_size=8))
    predicted = metanet.predict(zoo[setting].weights[[0, 1]])
    assert predicted.shape == (2,)
    assert predicted.isfinite().all()


def test_export_and_import_give_the_same_zoo_bit_for_bit(zoo, tmp_path):
    export_zoo(zoo, tmp_path / "exported")
    again = import_zoo(tmp_path / "exported", tmp_path / "again")
    assert again.manifest.digest == zoo.manifest.digest
    assert_same(again, zoo)
    for setting in SETTINGS:
        assert torch.equal(
            again[setting].stack(5).logits(torch.ones(1, 64)), zoo[setting].stack(5).logits(torch.ones(1, 64))
        )


# --- Measured


@EVERY
@pytest.mark.parametrize("name", ["monotonic_interpolation", "optimisation", "curvature", "geometry"])
def test_phenomena_of_single_networks_measure_networks_with_own_constants(zoo, data, setting, name):
    findings = PHENOMENA[name].measure(zoo[setting], data)
    assert [finding.treatment for finding in findings] == [setting] * len(findings)
    assert "nan" not in findings[0].headline()


@pytest.mark.parametrize("name", ["mode_connectivity", "merging", "planes", "bayesian"])
def test_phenomena_between_networks_refuse_networks_with_their_own_activations(zoo, data, name):
    with pytest.raises(AsymZooError, match=r"sigma_own networks have their own .*; take a treatment that shares them"):
        PHENOMENA[name].measure(zoo["sigma_own"], data)


@pytest.mark.parametrize("name", ["mode_connectivity", "merging", "planes"])
def test_phenomena_between_networks_measure_networks_with_their_own_masks(zoo, data, name):
    assert PHENOMENA[name].measure(zoo["w_own"], data)[0].treatment == "w_own"


def test_posteriors_refuse_networks_with_their_own_masks(zoo, data, monkeypatch):
    monkeypatch.setattr(bayesian, "CHAIN", langevin.Settings(burn_in=1, every=1, batch_size=50))
    with pytest.raises(AsymZooError, match="w_own networks have their own constants; take a treatment that shares"):
        PHENOMENA["bayesian"].measure(zoo["w_own"], data)


def test_the_hessian_covers_the_entries_that_each_network_trains(zoo, data, monkeypatch):
    asked, product = [], curvature.hessian_product

    def spy(stack, mask, *arguments):
        asked.append(mask)
        return product(stack, mask, *arguments)

    monkeypatch.setattr(curvature, "hessian_product", spy)
    (finding,) = PHENOMENA["curvature"].measure(zoo["w_own"], data)
    found = torch.cat(list({id(each): each for each in asked}.values()))
    assert torch.equal(found, zoo["w_own"][finding.networks].treated.mask)
