"""What holds for every metanetwork in `MODELS`, on every network of `NETWORKS` that it can read."""

from functools import cache

import numpy as np
import pytest
import torch

from metanets.datasets import Examples
from metanets.inputs import READERS
from metanets.metrics import r2
from metanets.models import MODELS, Metanetwork
from metanets.settings import Settings
from metanets.training import build, fit
from tests.scenarios import NETWORKS, some_thetas, treat
from zoo.errors import TaskError

FLAT = {"linear", "mlp", "dmc"}  # they read a row in its order
SETTINGS = Settings(epochs=30, batch_size=32, learning_rate=5e-3, weight_decay=0)
EVERY = pytest.mark.parametrize("model", MODELS)
SYMMETRIC = pytest.mark.parametrize("model", [model for model in MODELS if model not in FLAT])
ON_EVERY_NETWORK = pytest.mark.parametrize("network", NETWORKS)

treated = cache(lambda network: treat("standard", network))


def start(model, network, seed=0, **options):
    """A metanetwork that nobody trained and its reader, in float32."""
    rows = some_thetas(treated(network), 8, seed=1, dtype=torch.float32)
    reader = READERS[MODELS[model].reads].of(treated(network)).fit(rows)
    return build(lambda: MODELS[model](reader, **options), seed), reader


def refusal(model, network):
    """Why a metanetwork does not take networks of an architecture; None if it does."""
    try:
        start(model, network)
    except TaskError as error:
        return str(error)
    return None


def in_general_position(model, network):
    """A function from rows to predictions, in float64, no weight of the metanetwork zero."""
    if reason := refusal(model, network):
        pytest.skip(reason)
    metanetwork, reader = start(model, network, **({"trees": 20} if model == "boosted" else {}))
    if hasattr(metanetwork, "fit"):
        x = reader(some_thetas(treated(network), 40, dtype=torch.float32))
        metanetwork.fit(x, x[:, 0], x, x[:, 0], seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in metanetwork.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    metanetwork.double().eval(), reader.double()
    return torch.no_grad()(lambda rows: metanetwork(reader(rows)))


@cache
def easy_task(model):
    """Networks all of whose entries are shifted, and by how much, in three splits."""
    network = next(name for name in ("mlp", "cnn") if not refusal(model, name))
    _, reader = start(model, network)
    y = torch.from_numpy(np.random.default_rng(0).normal(size=160).astype(np.float32))
    rows = some_thetas(treated(network), 160, dtype=torch.float32) + 0.2 * y[:, None]
    reader.fit(rows[:96])
    sizes = [96, 32, 32]
    return network, [Examples(*parts) for parts in zip(reader(rows).split(sizes), y.split(sizes), strict=True)]


def train(model, settings=SETTINGS, seed=0):
    network, (examples, validation, _) = easy_task(model)
    (predictor,) = fit(start(model, network, seed)[0], examples, validation, settings, seeds=[seed])
    return predictor


learned = cache(train)


@EVERY
def test_a_metanetwork_says_what_it_reads(model):
    assert issubclass(MODELS[model], Metanetwork)
    assert MODELS[model].reads in READERS
    assert MODELS[model].learning_rate > 0


@EVERY
def test_a_metanetwork_reads_an_mlp_or_a_cnn_and_says_in_one_line_what_it_cannot_read(model):
    refusals = {network: refusal(model, network) for network in NETWORKS}
    assert not refusals["mlp"] or not refusals["cnn"]
    assert all("\n" not in reason for reason in refusals.values() if reason)


@EVERY
@pytest.mark.parametrize("network", ["mlp", "cnn", "resnet8"])
def test_a_metanetwork_gives_one_number_for_each_network_whatever_its_companions(model, network):
    predict = in_general_position(model, network)
    rows = some_thetas(treated(network), 5)
    together = predict(rows)
    assert together.shape == (5,)
    assert together.dtype == torch.float64
    for some in rows.split([1, 4]), rows.split(1):
        torch.testing.assert_close(together, torch.cat([predict(each) for each in some]), rtol=0, atol=1e-10)


@SYMMETRIC
@ON_EVERY_NETWORK
def test_permuting_hidden_units_keeps_predictions(model, network):
    predict, layout = in_general_position(model, network), treated(network).layout
    rows = some_thetas(treated(network), 3)
    permuted = layout.permute(rows, layout.random_permutations(np.random.default_rng(0), 3))
    before, after = predict(rows), predict(permuted)
    assert (rows - permuted).abs().mean() > 0.1
    assert before.std() > 1e-6  # it tells networks apart
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6 * float(before.std()))


@EVERY
def test_shuffling_the_entries_of_every_tensor_changes_predictions_but_for_sets_of_them(model):
    network = easy_task(model)[0]
    predict, layout, rng = in_general_position(model, network), treated(network).layout, np.random.default_rng(0)
    rows = some_thetas(treated(network), 3)
    shuffled = rows.clone()
    for where in layout.slices.values():
        shuffled[:, where] = torch.from_numpy(rng.permuted(rows[:, where], axis=1))
    change = (predict(shuffled) - predict(rows)).abs().max()
    assert (change < 1e-9) == (MODELS[model].reads == "statistics" or model == "deepsets")


@pytest.mark.parametrize("model", sorted(FLAT & MODELS.keys()))
def test_permuting_hidden_units_changes_predictions_of_flat_rows(model):
    predict, layout = in_general_position(model, "mlp"), treated("mlp").layout
    rows = some_thetas(treated("mlp"), 3)
    permuted = layout.permute(rows, layout.random_permutations(np.random.default_rng(0), 3))
    assert ((predict(permuted) - predict(rows)).abs() > 1e-4).all()


@EVERY
def test_a_metanetwork_learns_how_far_networks_are_shifted(model):
    test = easy_task(model)[1][2]
    assert r2(test.y.numpy(), learned(model)(test).numpy()) > 0.7


@EVERY
def test_every_parameter_of_a_metanetwork_learns(model):
    start_ = start(model, easy_task(model)[0])[0].state_dict()
    for name, parameter in learned(model).network.named_parameters():
        assert not torch.equal(parameter, start_[name]), name


@EVERY
def test_a_metanetwork_of_one_seed_predicts_the_same_every_time(model):
    few, test = SETTINGS.model_copy(update={"epochs": 2}), easy_task(model)[1][2]
    first, again, other = (train(model, few, seed)(test) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
