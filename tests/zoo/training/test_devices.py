"""Training as on a GPU: the same networks, nothing read back within an epoch, steps that can be repeated."""

import gc
import weakref
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from tests import pretend
from tests.scenarios import NETWORKS, SETTINGS, some_data, some_thetas, treat
from zoo.data.augmentation import Augmentation
from zoo.networks import stack as stacks
from zoo.networks.convolutions import UnfoldedConv2d, unfold_convolutions
from zoo.recipes.optimizer import Optimizer
from zoo.training import replay
from zoo.training.engines import engine_for
from zoo.training.memory import UNKNOWN, bytes_of_network, networks_that_fit
from zoo.training.minibatches import draw_minibatches
from zoo.training.results import Draws
from zoo.training.stacked import begin, take_step, train_stacked
from zoo.training.timing import fastest_way
from zoo.training.ways import WAYS

ADAMW, SGD = Optimizer(batch_size=8, schedule="triangular"), Optimizer(batch_size=8, optimizer="sgd", curves=2)
CONVOLUTIONAL = [name for name in NETWORKS if stacks.is_convolutional(treat("standard", name).module)]
DEVICE = pytest.mark.skipif(not pretend.available(), reason="this version of PyTorch has no devices written in Python")


def draws(rates=(0.02, 0.05, 1e30, 0.01), epochs=(3, 1, 2, 2)):
    rates = torch.tensor(rates, dtype=torch.float64)
    return Draws(torch.arange(len(rates)), rates, 0.1 * rates.sign(), 0.1 * rates.sign(), torch.tensor(epochs))


def begun(network="mlp", setting="standard", settings=ADAMW, way="torch", networks=4):
    """Networks before their first step, and their data."""
    treated = replace(treat(setting, network), way=way)
    data = some_data(NETWORKS[network].shape, train=43)
    rates = draws((0.02, 0.05, 0.1, 0.01) * (networks // 4), (3, 1, 2, 2) * (networks // 4))
    live = begin(treated, some_thetas(treated, networks=networks, dtype=torch.float32), rates, data, settings)
    pairs = range(networks)
    live.minibatches.load(draw_minibatches(data, 8, 0, pairs, 0, augmentation=settings.augmentation))
    return live, data


def tensors_of(live):
    return [live.descent.theta, live.descent.before, *live.descent.moments, live.finite, live.descent.step]


@DEVICE
@pytest.mark.parametrize("settings", [ADAMW, SGD], ids=["adamw", "sgd"])
@pytest.mark.parametrize(("network", "setting"), [*(("mlp", setting) for setting in SETTINGS), ("cnn", "standard")])
def test_a_second_device_trains_the_same_networks(network, setting, settings):
    if network == "cnn":
        settings = settings.model_copy(update={"augmentation": Augmentation(flip=True, translate=1, cutout=2)})
    treated, data = treat(setting, network), some_data(NETWORKS[network].shape, train=43)
    start = some_thetas(treated, networks=4, dtype=torch.float32)
    expected = train_stacked(treated, start, draws(), data, settings, seed=1)
    with pretend.Pretend():
        found = train_stacked(treated, start.to("pretend"), draws(), data, settings, seed=1)
    assert found.rows.device.type == "cpu"
    assert expected.diverged.any()
    assert torch.equal(found.diverged, expected.diverged)
    torch.testing.assert_close(found.rows, expected.rows, rtol=1e-4, atol=1e-5)
    for name, curve in expected.curves.items():
        torch.testing.assert_close(found.curves[name], curve, rtol=1e-4, atol=1e-4, equal_nan=True)
        torch.testing.assert_close(found.metrics[name], expected.metrics[name], rtol=1e-4, atol=1e-4)


@DEVICE
@pytest.mark.parametrize("settings", [ADAMW, SGD], ids=["adamw", "sgd"])
@pytest.mark.parametrize("network", ["mlp", "cnn", "resnet8", "gnn"])
def test_a_step_neither_reads_nor_copies(network, settings):
    with pretend.Pretend():
        treated, data = treat("standard", network).to("pretend"), some_data(NETWORKS[network].shape).to("pretend")
        start = some_thetas(treated, networks=4, dtype=torch.float32).to("pretend")
        live = begin(treated, start, draws(), data, settings)
        take_step(live, data, settings)  # may copy what stays there, such as a graph
        pretend.READS.clear()
        pretend.COPIES.clear()
        for _ in range(3):
            take_step(live, data, settings)
        assert pretend.READS == pretend.COPIES == []
        live.finite.cpu()
        assert pretend.READS


@pytest.mark.parametrize(
    ("network", "way", "settings"),
    [
        ("mlp", "torch", ADAMW),
        ("mlp", "torch", SGD),
        ("gnn", "torch", ADAMW),
        *((name, way, ADAMW) for name in ("cnn", "resnet8") for way in WAYS),
    ],
)
def test_a_recorded_step_repeats_like_a_new_one(network, way, settings, monkeypatch):
    """What a CUDA graph needs: a step is operations on tensors at fixed places, and nothing else changes."""
    monkeypatch.setattr(stacks, "one_by_one", lambda *_: False)  # as on a GPU
    found, data = begun(network, settings=settings, way=way)
    expected, _ = begun(network, settings=settings, way=way)
    places = [tensor.data_ptr() for tensor in tensors_of(found)]
    recorded = make_fx(lambda: take_step(found, data, settings) or found.descent.theta)()  # takes the first step
    for _ in range(4):
        recorded()
    for _ in range(5):
        take_step(expected, data, settings)
    for one, other in zip(tensors_of(found), tensors_of(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert found.descent.step.item() == 5
    assert [tensor.data_ptr() for tensor in tensors_of(found)] == places


def test_the_number_of_operations_of_a_step_does_not_depend_on_that_of_networks():
    def count(networks):
        live, data = begun(networks=networks)
        return len(make_fx(lambda: take_step(live, data, ADAMW) or live.descent.theta)().graph.nodes)

    assert count(4) == count(64) < 300


class Graph:
    """Stands for a CUDA graph: what is recorded runs when it is replayed."""

    made: list["Graph"] = []

    def __init__(self):
        self.recorded, self.replays = None, 0
        self.made.append(self)

    def replay(self):
        self.replays += 1
        self.recorded()


def test_a_step_is_launched_once_for_each_minibatch_after_it_is_recorded(monkeypatch):
    taken = []
    monkeypatch.setattr(replay, "run_aside", lambda step, stream: step())
    monkeypatch.setattr(replay, "record", lambda step, stream: setattr(graph := Graph(), "recorded", step) or graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    step = replay.repeatable(lambda: taken.append(1), torch.device("cuda"))
    for _ in range(22):
        step()
    (graph,) = Graph.made
    assert (len(taken), graph.replays) == (22, 22 - replay.WARM_UP)


@pytest.mark.parametrize("network", CONVOLUTIONAL)
@pytest.mark.parametrize("way", WAYS)
def test_all_ways_give_the_same_gradients(network, way, monkeypatch):
    treated, data = treat("standard", network, dtype=torch.float64), some_data(NETWORKS[network].shape)
    stack = treated.stack(treated.to_rows(some_thetas(treated)))
    x, y = data.train_x[:24].double().unflatten(0, (3, 8)), data.train_y[:24].unflatten(0, (3, 8))
    smoothing = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)
    expected = stacks.stack_gradient(stack, x, y, smoothing)
    monkeypatch.setattr(stacks, "one_by_one", lambda *_: False)  # as on a GPU
    for found, right in zip(WAYS[way](treated.module)(stack, x, y, smoothing), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (3, 2, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_an_unfolded_convolution_is_a_convolution(stride, padding, dilation, bias):
    ordinary = nn.Conv2d(3, 5, (3, 2), stride, padding, dilation, bias=bias).double()
    unfolded, x = unfold_convolutions(ordinary), torch.randn(4, 3, 11, 10, dtype=torch.float64)
    assert type(unfolded) is UnfoldedConv2d
    assert type(ordinary) is nn.Conv2d
    torch.testing.assert_close(unfolded(x), ordinary(x))


def test_bfloat16_trains_and_keeps_float32_weights():
    treated, data, start = treat("standard"), some_data(train=43), some_thetas(treat("standard"), dtype=torch.float32)
    settings = ADAMW.model_copy(update={"precision": "bfloat16"})
    exact, short = (
        train_stacked(treated, start, draws((0.02, 0.05, 0.01), (3, 1, 2)), data, one, seed=1)
        for one in (ADAMW, settings)
    )
    assert short.rows.dtype == torch.float32
    assert not torch.equal(short.rows, short.rows.bfloat16().float())
    change = (short.rows - exact.rows).norm() / (exact.rows - start).norm()
    assert 1e-5 < change < 0.3


@pytest.mark.parametrize("network", NETWORKS)
def test_memory_grows_with_the_batch_and_the_activations(network):
    treated, data = treat("standard", network), some_data(NETWORKS[network].shape, train=43)
    small, large = (bytes_of_network(treated, data, Optimizer(batch_size=size)) for size in (8, 16))
    assert 4 * 14 * treated.layout.size < small < large


def test_the_memory_of_an_mlp_is_that_of_its_activations():
    treated, data = treat("standard"), some_data(train=43)
    small, large = (bytes_of_network(treated, data, Optimizer(batch_size=size)) for size in (8, 16))
    units = sum(parameter.shape[0] for parameter in treated.layout.parameters if len(parameter.shape) == 2)
    assert 4 * units < (large - small) / 8 < 100 * units


def test_networks_whose_memory_cannot_be_estimated_train_few_at_a_time(monkeypatch):
    treated = treat("standard")
    monkeypatch.setattr(type(treated.module), "forward", lambda self, x: x[x > 0])  # a size that depends on numbers
    assert networks_that_fit(treated, some_data(), ADAMW, "cpu") == UNKNOWN


def test_the_fastest_way_is_measured_once_for_each_shape(monkeypatch):
    times, asked = {"torch": 3.0, "torch unfolded": 1.0, "torch streams": 2.0}, []

    def time_of(treated, *others):
        asked.append(treated.way)
        return times[treated.way]

    monkeypatch.setattr("zoo.training.timing.time_of_step", time_of)
    treated, data = treat("standard", "cnn"), some_data(NETWORKS["cnn"].shape)
    assert [fastest_way(treated, data, ADAMW, "pretend") for _ in range(2)] == ["torch unfolded"] * 2
    assert asked == list(WAYS)


@DEVICE
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_an_engine_for_a_gpu_trains_a_shard(network):
    treated, data = treat("standard", network), some_data(NETWORKS[network].shape, train=43)
    start = some_thetas(treated, networks=4, dtype=torch.float32)
    with pretend.Pretend():
        engine = engine_for(treated, data, ADAMW, "pretend")
        found = engine.train(treated, start.to("pretend"), draws(), data, ADAMW, seed=1)
    assert engine.name in (WAYS if network == "cnn" else ["torch"])
    assert engine.stack > 1000
    expected = train_stacked(treated, start, draws(), data, ADAMW, seed=1)
    torch.testing.assert_close(found.rows, expected.rows, rtol=1e-4, atol=1e-5)


def test_a_recorded_step_does_not_outlive_its_use(monkeypatch):
    class State:
        """What a step changes."""

    monkeypatch.setattr(replay, "run_aside", lambda step, stream: step())
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    state = State()
    alive, step = weakref.ref(state), replay.repeatable(partial(id, state), torch.device("cuda"))
    step()
    gc.disable()
    del state, step
    assert alive() is None
    gc.enable()


def test_a_step_that_cannot_be_recorded_runs_as_it_is(monkeypatch):
    def refuse(step, stream):
        raise RuntimeError("operation not permitted when stream is capturing")

    taken = []
    monkeypatch.setattr(replay, "run_aside", lambda step, stream: step())
    monkeypatch.setattr(replay, "record", refuse)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    step = replay.repeatable(lambda: taken.append(1), torch.device("cuda"))
    with pytest.warns(UserWarning, match="cannot be recorded.*: operation not permitted"):
        _ = [step() for _ in range(22)]
    assert len(taken) == 22
