"""Treatments that hold something for each network by itself: drawn, trained with, stored and read again."""

import math
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmark.inference import langevin
from benchmark.phenomena import PHENOMENA, bayesian, curvature
from metanets import Settings, train_model
from tests.scenarios import some_data, treatment_of
from tests.zoo.training.test_generation import assert_same
from zoo import Recipe, generate, open_zoo, verify
from zoo.errors import AsymZooError, ZooError
from zoo.networks.stack import Stack
from zoo.recipes.optimizer import Optimizer
from zoo.sharing.export import export_zoo
from zoo.sharing.importers.hf import import_zoo
from zoo.store.zoo import Zoo
from zoo.training import generation
from zoo.training.training import METRICS, Hyperparameters, train
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
    """For reading only."""
    return generate(recipe, tmp_path_factory.mktemp("zoos") / "own", shard_pairs=SHARD)


@pytest.fixture
def small(recipe, tmp_path):
    """Three pairs, to be damaged."""
    return generate(recipe.model_copy(update={"pairs": 3}), tmp_path / "small")


@pytest.fixture(scope="module")
def data(recipe):
    return recipe.load_data()


def drawn(recipe, setting, pair):
    """What is held for one pair, drawn by itself."""
    return recipe.treat(setting, pairs=[pair]).held


# --- Stored


def test_columns_unpack_to_the_masks_and_constants_that_the_recipe_draws(zoo, recipe):
    size = zoo.layout("w_own").size
    masks = np.unpackbits(zoo.field("w_own", "mask"), axis=1)[:, :size].astype(bool)
    constants = zoo.field("w_own", "constants")
    assert zoo.field("w_own", "mask").shape == (PAIRS, -(-size // 8))
    for pair in range(PAIRS):
        held = drawn(recipe, "w_own", pair)
        assert np.array_equal(masks[pair], held["mask"][0].numpy())
        assert np.array_equal(constants[pair], held["constants"][0].numpy())


def test_columns_unpack_to_the_matrices_that_the_recipe_draws(zoo, recipe):
    column = zoo.field("sigma_own", "held_F")
    assert column.shape == (PAIRS, 8 * 8 + 6 * 6)
    for pair in range(PAIRS):
        held = drawn(recipe, "sigma_own", pair)
        first, second = held["F/hidden.0.activation"][0], held["F/hidden.1.activation"][0]
        assert np.array_equal(column[pair, :64].reshape(8, 8), first.numpy())
        assert np.array_equal(column[pair, 64:].reshape(6, 6), second.numpy())


@EVERY
def test_what_is_held_is_a_column_of_its_treatment_alone(zoo, setting):
    (other,) = SETTINGS.keys() - {setting}
    assert {name for name, column in zoo.columns(setting).items() if column.kind == "constant"} == set(HELD[setting])
    assert zoo.columns(other).keys().isdisjoint(HELD[setting])
    assert not (zoo.folder / setting / "constants.safetensors").exists()


def test_fixed_entries_are_the_networks_own_constants_bit_for_bit(zoo):
    treated = zoo.treated("w_own", range(PAIRS))
    fixed = ~treated.trainable
    assert (fixed.sum(1) == 2 * (8 + 6 + 10)).all()
    for initial in (False, True):
        rows = zoo.rows("w_own", initial=initial)
        assert torch.equal(rows[fixed].view(torch.int32), treated.constants[fixed].view(torch.int32))
    assert (zoo.rows("w_own")[~fixed] != zoo.rows("w_own", initial=True)[~fixed]).any()


@EVERY
def test_what_is_held_differs_between_pairs(zoo, setting):
    for name in HELD[setting]:
        assert len(np.unique(zoo.field(setting, name), axis=0)) == PAIRS


def test_constants_differ_between_pairs_also_where_both_have_some(zoo):
    treated = zoo.treated("w_own", range(PAIRS))
    first, second = treated.constants[0], treated.constants[1:]
    both = ~treated.trainable[0] & ~treated.trainable[1:]
    assert both.sum() > PAIRS
    assert (first.expand_as(second)[both] != second[both]).all()


@EVERY
def test_networks_do_not_depend_on_shards_and_stacks(zoo, recipe, setting, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "stack_size", lambda *network: 2)
    few = recipe.only([setting]).model_copy(update={"pairs": 5})
    again = generate(few, tmp_path / "zoo", shard_pairs=3)
    assert torch.equal(again.rows(setting), zoo.rows(setting, range(5)))
    for name in set(zoo.fields(setting)) - {"seconds"}:
        values = zoo.field(setting, name)[:5]
        assert np.array_equal(again.field(setting, name), values, equal_nan=values.dtype.kind == "f")


@EVERY
def test_what_is_shared_is_known_without_reading_what_is_not(zoo, setting, monkeypatch):
    monkeypatch.setattr(Zoo, "field", None)
    treated = open_zoo(zoo.folder).treated(setting)
    assert treated.held == {}
    assert treated.layout.size == 8 * 65 + 2 * 8 + 6 * 9 + 2 * 6 + 70
    assert treated.trainable.all()


def test_networks_with_activations_of_their_own_have_no_module_in_common(zoo):
    with pytest.raises(ZooError, match=r"each of the sigma_own networks has its own activations; name some"):
        _ = zoo.treated("sigma_own").module


# --- Run


def by_hand(tensors, x, activation):
    """The MLP as plain formulas."""
    x = x.flatten(1)
    for i in range(2):
        weight, bias, scale, shift = (
            tensors[f"hidden.{i}.{name}"] for name in ("linear.weight", "linear.bias", "norm.weight", "norm.bias")
        )
        x = activation(i, functional.layer_norm(x @ weight.T + bias, (len(bias),), scale, shift))
    return x @ tensors["output.weight"].T + tensors["output.bias"]


@EVERY
def test_logits_of_a_stack_are_those_of_each_network_written_by_hand(zoo, recipe, data, setting):
    index, x = [21, 3, 9], data.test_x[:50]
    logits, layout = zoo.stack(setting, index).logits(x), zoo.layout(setting)
    for own, pair in zip(logits, index, strict=True):
        held = drawn(recipe, setting, pair)

        def activation(i, x, held=held):
            if setting == "w_own":
                return functional.gelu(x)
            return x * torch.sigmoid(x @ held[f"F/hidden.{i}.activation"][0].T)

        alone = by_hand(layout.unflatten(zoo.rows(setting, pair)), x, activation)
        torch.testing.assert_close(own, alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(zoo.module(setting, pair)(x), alone, rtol=1e-4, atol=1e-5)
    assert (logits[0] - logits[1]).abs().max() > 0.1


# --- Trained

ADAMW = Optimizer(optimizer="adamw", batch_size=8, schedule="triangular")
SGD = Optimizer(optimizer="sgd", batch_size=8, momentum=0.8)


@EVERY
@pytest.mark.parametrize("settings", [ADAMW, SGD], ids=["adamw", "sgd"])
def test_networks_train_together_as_each_alone_whenever_they_leave(setting, settings):
    pairs, epochs = (4, 0, 9, 2), torch.tensor([3, 1, 4, 2])
    treated = treat(setting, pairs)
    rng = np.random.default_rng(0)
    start = torch.stack([treated.layout.draw_initial(rng) for _ in pairs]).double()
    hyper = Hyperparameters(*torch.tensor([[0.02, 0.05, 0.01, 0.03], [0.1, 0.0, 0.5, 0.2], [0.0, 0.2, 0.1, 0]]), epochs)
    data = some_data()
    together = train(treated, start, hyper, data, settings, seed=3, pairs=pairs)
    for k, pair in enumerate(pairs):
        one = Hyperparameters(*(values[k : k + 1] for values in vars(hyper).values()))
        alone = train(treat(setting, [pair]), start[k : k + 1], one, data, settings, seed=3, pairs=[pair])
        torch.testing.assert_close(together.rows[k], alone.rows[0], rtol=0, atol=1e-10)
        for name in METRICS:
            torch.testing.assert_close(together.metrics[name][k], alone.metrics[name][0], rtol=0, atol=1e-10)
    fixed = ~treated.trainable.expand_as(together.rows)
    assert torch.equal(together.rows[fixed], treated.rows(treated.thetas(start))[fixed])


def treat(setting, pairs):
    arguments = {"widths": [8, 7, 6, 4]}
    treated = Treated.of(treatment_of(SETTINGS[setting]), "mlp", arguments, seed=7, pairs=tuple(pairs))
    return treated.to("cpu", torch.float64)


@EVERY
def test_a_network_that_diverges_is_measured_with_what_is_its_own(setting):
    treated = treat(setting, (4, 0, 9))
    rng = np.random.default_rng(0)
    start = torch.stack([treated.layout.draw_initial(rng) for _ in range(3)]).double()
    rates = torch.tensor([0.01, math.inf, 0.01], dtype=torch.float64)
    hyper = Hyperparameters(rates, torch.zeros(3), torch.zeros(3), torch.tensor([2, 2, 1]))
    data = some_data()
    trained = train(treated, start, hyper, data, SGD, seed=3, pairs=[4, 0, 9])
    assert trained.diverged.tolist() == [False, True, False]
    again = treated.stack(trained.rows).evaluate(data.test_x.double(), data.test_y)
    torch.testing.assert_close(trained.metrics["test_loss"], again.loss, rtol=0, atol=1e-10)
    stranger = replace(treated, held={name: tensor.roll(1, 0) for name, tensor in treated.held.items()})
    others = Stack(trained.rows, treated.module, treated.layout, stranger.buffers)
    assert setting == "w_own" or (others.evaluate(data.test_x.double(), data.test_y).loss != again.loss).all()


# --- Verified


def test_verify_measures_and_trains_such_networks_again(small):
    found = verify(small, retrain=2)
    assert (found.measured, found.retrained + found.compared) == (6, 2)


@pytest.mark.parametrize(("setting", "name"), [(s, name) for s, names in HELD.items() for name in names])
def test_verify_finds_what_is_not_the_networks_own(small, reseal, setting, name):
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
def test_metanetworks_train_on_such_networks(zoo, setting, model):
    (metanet,) = train_model(zoo, setting, model, settings=Settings(epochs=1, batch_size=8))
    predicted = metanet.predict(zoo.rows(setting, [0, 1]))
    assert predicted.shape == (2,)
    assert predicted.isfinite().all()


def test_what_was_exported_comes_back_bit_for_bit(zoo, tmp_path):
    export_zoo(zoo, tmp_path / "exported")
    again = import_zoo(tmp_path / "exported", tmp_path / "again")
    assert again.manifest.digest == zoo.manifest.digest
    assert_same(again, zoo)
    for setting in SETTINGS:
        assert torch.equal(
            again.stack(setting, [5]).logits(torch.ones(1, 64)), zoo.stack(setting, [5]).logits(torch.ones(1, 64))
        )


# --- Measured


@EVERY
@pytest.mark.parametrize("name", ["monotonic_interpolation", "optimisation", "curvature", "geometry"])
def test_phenomena_of_single_networks_take_them(zoo, data, setting, name):
    findings = PHENOMENA[name].measure(zoo, setting, data)
    assert [finding.treatment for finding in findings] == [setting] * len(findings)
    assert "nan" not in findings[0].headline()


@pytest.mark.parametrize("name", ["mode_connectivity", "merging", "planes", "bayesian"])
def test_phenomena_between_networks_refuse_activations_of_their_own(zoo, data, name):
    with pytest.raises(AsymZooError, match=r"sigma_own networks have their own .*; take a treatment that shares them"):
        PHENOMENA[name].measure(zoo, "sigma_own", data)


@pytest.mark.parametrize("name", ["mode_connectivity", "merging", "planes"])
def test_phenomena_between_networks_take_masks_of_their_own(zoo, data, name):
    assert PHENOMENA[name].measure(zoo, "w_own", data)[0].treatment == "w_own"


def test_posteriors_are_not_trained_with_masks_of_their_own(zoo, data, monkeypatch):
    monkeypatch.setattr(bayesian, "CHAIN", langevin.Settings(burn_in=1, every=1, batch_size=50))
    with pytest.raises(AsymZooError, match="w_own networks have their own constants; take a treatment that shares"):
        PHENOMENA["bayesian"].measure(zoo, "w_own", data)


def test_the_hessian_is_over_the_entries_that_each_network_trains(zoo, data, monkeypatch):
    asked, product = [], curvature.hessian_product

    def spy(stack, trainable, *arguments):
        asked.append(trainable)
        return product(stack, trainable, *arguments)

    monkeypatch.setattr(curvature, "hessian_product", spy)
    (finding,) = PHENOMENA["curvature"].measure(zoo, "w_own", data)
    found = torch.cat(list({id(each): each for each in asked}.values()))
    assert torch.equal(found, zoo.treated("w_own", finding.networks).trainable)
