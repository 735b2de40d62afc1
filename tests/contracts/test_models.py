"""What holds for every metanetwork in `MODELS`, on every network of `NETWORKS` that it can read."""

from functools import cache

import numpy as np
import pytest
import torch

from metanets.examples import InMemory
from metanets.inputs import LARGEST, READERS
from metanets.links import Link
from metanets.metanet import Metanet
from metanets.models import MODELS, Metanetwork
from metanets.selection import select
from metanets.settings import Settings
from metanets.tasks import ACCESS, Task
from metanets.training import begin, build, train
from tests.conftest import PLANTED
from tests.scenarios import NETWORKS, some_thetas, treat
from zoo.errors import TaskError

FLAT = {"linear", "mlp", "dmc"}  # they read a row in its order
SETTINGS = Settings(epochs=5, batch_size=16, learning_rate=5e-3, weight_decay=0)
LINKS = {  # by target
    "test_accuracy": "sigmoid",
    "test_loss": "identity",
    "learning_rate": "logarithm",
    "generalisation_gap": "sigmoid",
    "treatment": "softmax",
}
EVERY = pytest.mark.parametrize("model", MODELS)
SYMMETRIC = pytest.mark.parametrize("model", [model for model in MODELS if model not in FLAT])
ON_EVERY_NETWORK = pytest.mark.parametrize("network", NETWORKS)
TARGET = pytest.mark.parametrize("target", LINKS)

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


def in_general_position(model, network, outputs=1):
    """A function from rows to outputs, in float64, no weight of the metanetwork zero."""
    if reason := refusal(model, network):
        pytest.skip(reason)
    options = {"trees": 20} if model == "boosted" else {}
    metanetwork, reader = start(model, network, outputs=outputs, **options)
    if not MODELS[model].takes_steps:
        x = reader(some_thetas(treated(network), 40, dtype=torch.float32))
        y = x[:, 0] if outputs == 1 else torch.arange(40) % outputs
        MODELS[model].learn([metanetwork], InMemory(x, y), InMemory(x, y), Link.of(y), SETTINGS, [0])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in metanetwork.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    metanetwork.double().eval(), reader.double()
    return torch.no_grad()(lambda rows: metanetwork(reader(rows)))


def shift(arrays):
    """Shift all entries that train, let targets follow from by how much, and spread them more where some are constant."""
    rng = np.random.default_rng(0)
    shifts = rng.normal(size=len(arrays["pair"])).clip(-2, 2).astype(np.float32)
    noise = rng.normal(0, 0.3, arrays["weights"].shape).astype(np.float32)
    varying = np.ptp(arrays["weights"], 0) > 0
    spread = 1 if varying.all() else 3
    arrays["weights"][:, varying] = (spread * noise + 0.2 * shifts[:, None])[:, varying]
    arrays["test_accuracy"] = 0.5 + 0.1 * shifts
    arrays["train_accuracy"] = 0.5 + 0.2 * shifts
    arrays["test_loss"] = -shifts
    arrays["learning_rate"] = 10 ** (0.5 * shifts.astype(np.float64) - 2)


@pytest.fixture(scope="session")
def easy_zoo(plant_zoo):
    """A zoo that every metanetwork can read."""
    return plant_zoo(shift, pairs=120, activation="relu")


def task_of(target):
    learn_from = PLANTED if target == "treatment" else "standard"
    return Task.read({"recipe": "small", "learn_from": learn_from, "target": target})


@EVERY
def test_a_metanetwork_says_what_it_reads_and_uses(model):
    assert issubclass(MODELS[model], Metanetwork)
    assert MODELS[model].reads in READERS
    assert MODELS[model].access in ACCESS
    assert MODELS[model].learning_rate > 0


@EVERY
def test_a_metanetwork_reads_an_mlp_or_a_cnn_and_says_in_one_line_what_it_cannot_read(model):
    refusals = {network: refusal(model, network) for network in NETWORKS}
    assert not refusals["mlp"] or not refusals["cnn"]
    assert all("\n" not in reason for reason in refusals.values() if reason)


@EVERY
@pytest.mark.parametrize("network", ["mlp", "cnn", "resnet8"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_metanetwork_gives_its_outputs_for_each_network_whatever_its_companions(model, network, outputs):
    predict = in_general_position(model, network, outputs)
    rows = some_thetas(treated(network), 5)
    together = predict(rows)
    assert together.shape == (5, outputs)
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
    network = next(name for name in ("mlp", "cnn") if not refusal(model, name))
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


def assert_learnt(metanet, test):
    metrics = metanet.evaluate(test)
    if metanet.link.kind == "softmax":
        assert metrics["accuracy"] > 0.8
        assert metrics["log_loss"] < 0.55
    else:
        assert metrics["r2"] > 0.7
        assert metrics["kendall_tau"] > 0.7


def assert_allowed(predicted, target):
    """Predictions are probabilities, or in the units of the target and within its bounds."""
    assert predicted.dtype == torch.float32
    assert predicted.ndim == (2 if target == "treatment" else 1)
    if target == "treatment":
        torch.testing.assert_close(predicted.sum(1), torch.ones(len(predicted)))
    low, high = {"generalisation_gap": (-1, 1), "test_loss": (-9, 9)}.get(target, (0, 1))
    assert ((predicted >= low) & (predicted <= high)).all()


def assert_every_parameter_learns(metanet, model):
    start_ = begin(model, metanet.reader, metanet.link.outputs, SETTINGS, 0).state_dict()
    for name, parameter in metanet.module.named_parameters():
        assert not torch.equal(parameter, start_[name]), name


def assert_read_back(metanet, path, networks):
    metanet.save(path)
    assert torch.equal(Metanet.load(path).predict(networks), metanet.predict(networks))


@EVERY
@TARGET
def test_every_parameter_of_a_metanetwork_learns_every_kind_of_target_and_its_file_predicts_the_same(
    easy_zoo, tmp_path, model, target
):
    (metanet,) = train(task_of(target), easy_zoo, model, settings=SETTINGS)
    test, path = select(task_of(target), easy_zoo, "test"), tmp_path / "metanet.safetensors"
    trees = not MODELS[model].takes_steps  # they predict nothing beyond what they saw, without bounds
    assert metanet.link.kind == ("identity" if trees and LINKS[target] == "sigmoid" else LINKS[target])
    assert_learnt(metanet, test)
    assert_allowed(metanet.predict(test), target)
    assert_every_parameter_learns(metanet, model)
    if trees:
        with pytest.raises(TaskError, match="holds no tensors to save"):
            metanet.save(path)
    else:
        assert_read_back(metanet, path, test)


@EVERY
def test_a_metanetwork_of_one_seed_predicts_the_same_every_time(easy_zoo, model):
    few, networks = SETTINGS.model_copy(update={"epochs": 2}), easy_zoo["standard"].split("test")
    task = task_of("test_loss").model_copy(update={"max_train": 24})
    first, again, other = (
        train(task, easy_zoo, model, seeds=seeds, settings=few)[-1].predict(networks) for seeds in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@EVERY
def test_networks_of_exploded_weights_break_no_others(plant_zoo, model):
    def explode(arrays):
        shift(arrays)
        some = np.concatenate(
            [np.flatnonzero(arrays["split"] == split)[:2] for split in ("train", "validation", "test")]
        )
        arrays["weights"][some] *= np.float32(1e20)
        arrays["test_loss"][some] = 2

    zoo = plant_zoo(explode, pairs=120, activation="relu")
    (metanet,) = train(task_of("test_loss"), zoo, model, settings=SETTINGS)
    networks = zoo["standard"].split("test")
    assert networks.weights[:2].abs().max() > LARGEST
    assert metanet.predict(networks).isfinite().all()
    assert metanet.evaluate(networks[2:])["r2"] > 0.5
