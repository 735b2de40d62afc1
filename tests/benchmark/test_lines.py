import pytest
import torch
from torch.nn import functional

import zoo.networks.stack
from benchmark.lines import first_layer, interpolate, measure_lines
from benchmark.repair import reestimate
from tests.scenarios import CLASSES, NETWORKS, some_thetas, treat
from zoo.data import Data

POINTS = 5
FIRST = {"mlp": "hidden.0.linear", "cnn": "convs.0.conv", "resnet8": "conv1", "gnn": None, "vit": None, "skip": None}


@pytest.fixture(params=NETWORKS)
def ends(request):
    treated = treat("w_asymmetric", request.param, dtype=torch.float64)
    rows = treated.to_rows(some_thetas(treated, 4))
    return NETWORKS[request.param], *map(treated.stack, rows.split(2))


def noise(network):
    x, y = network.examples(13), torch.arange(13) % CLASSES
    return Data("noise", x[:9], y[:9], x[9:], y[9:], CLASSES).to("cpu", torch.float64)


def test_a_line_is_measured_as_the_networks_with_interpolated_weights(ends, monkeypatch):
    monkeypatch.setattr(zoo.networks.stack, "batch_size", lambda *_: 5)  # one batch holds examples of both splits
    network, a, b = ends
    data = noise(network)
    between = reestimate(interpolate(a, b, POINTS), data.train_x)
    found = measure_lines(a, b, data, POINTS)
    for split, x, y in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y)):
        logits = [between.network(k)(x).detach() for k in range(len(between))]
        loss = torch.stack([functional.cross_entropy(one, y) for one in logits])
        right = torch.stack([(one.argmax(1) == y).double().mean() for one in logits])
        torch.testing.assert_close(torch.from_numpy(found[f"{split}_loss"]).flatten(), loss, rtol=1e-9, atol=1e-12)
        assert torch.equal(torch.from_numpy(found[f"{split}_accuracy"]).flatten(), right)


def test_networks_of_a_line_are_measured_as_they_have_been_changed(ends):
    network, a, b = ends
    data, changed = noise(network), []

    def shift_last(stack, both, t):
        rows, learned = both[0].rows.lerp(both[1].rows, t[:, None].double()), stack.layout.learned
        assert torch.equal(stack.rows[:, learned], rows[:, learned])
        tensors = stack.layout.unflatten(stack.rows)
        last = [name for name in tensors if name.endswith("bias")][-1]
        tensors[last] = tensors[last] + t[:, None] * torch.arange(tensors[last].shape[1])
        changed.append(stack.with_rows(stack.layout.flatten(tensors)))
        return changed[0]

    found = measure_lines(a, b, data, POINTS, change=shift_last)
    loss = changed[0].evaluate(data.test_x, data.test_y).loss
    torch.testing.assert_close(torch.from_numpy(found["test_loss"]).flatten(), loss, rtol=1e-9, atol=1e-12)
    unchanged = reestimate(interpolate(a, b, POINTS), data.train_x)
    assert not torch.allclose(loss, unchanged.evaluate(data.test_x, data.test_y).loss)


@pytest.mark.parametrize("name", FIRST)
def test_the_first_layer_is_the_one_that_alone_reads_the_input(name):
    treated = treat("standard", name)
    stack = treated.stack(some_thetas(treated, dtype=torch.float32))
    assert first_layer(stack, NETWORKS[name].examples().float()) == FIRST[name]
