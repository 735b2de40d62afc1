import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional

import zoo.networks.stack
from tests.scenarios import CLASSES, NETWORKS, SETTINGS, some_data, some_thetas, treat
from zoo.networks.stack import Stack, cross_entropy, in_turn, run_stack, score_examples, stack_gradient, stack_size


def make_stack(network="mlp", setting="standard", networks=4, dtype=torch.float64):
    treated = treat(setting, network, dtype=dtype)
    return treated.stack(treated.to_rows(some_thetas(treated, networks, dtype=dtype)))


def measured_by_hand(stack, x, y):
    logits = [stack.network(k)(x) for k in range(len(stack))]
    accuracy = torch.stack([(one.argmax(1) == y).double().mean() for one in logits])
    return accuracy, torch.stack([functional.cross_entropy(one, y) for one in logits]).detach()


@pytest.mark.parametrize("network", ["mlp", "cnn_norm"])
@pytest.mark.parametrize("setting", ["standard", "sigma_asymmetric"])
def test_evaluation_is_accuracy_and_cross_entropy_by_hand(monkeypatch, network, setting):
    stack = make_stack(network, setting)
    data = some_data(NETWORKS[network].shape).to("cpu", torch.float64)
    accuracy, loss = measured_by_hand(stack, data.train_x, data.train_y)
    for batch, networks in ((256, 128), (7, 128), (43, 2)):  # portions of examples, of networks
        monkeypatch.setattr(zoo.networks.stack, "batch_size", lambda *_, batch=batch: batch)
        monkeypatch.setattr(zoo.networks.stack, "stack_size", lambda *network, networks=networks: networks)
        found = stack.evaluate(data.train_x, data.train_y)
        torch.testing.assert_close(found.accuracy.double(), accuracy, rtol=0, atol=1e-7)
        torch.testing.assert_close(found.loss, loss, rtol=1e-10, atol=0)
    assert len(accuracy.unique()) > 1


@pytest.mark.parametrize("network", ["mlp", "cnn_norm"])
def test_several_splits_are_measured_as_each_one_separately(monkeypatch, network):
    stack, data = make_stack(network), some_data(NETWORKS[network].shape).to("cpu", torch.float64)
    splits = (data.train_x, data.train_y), (data.test_x, data.test_y)
    monkeypatch.setattr(
        zoo.networks.stack, "batch_size", lambda *_: 7
    )  # a batch holds the end of one, the start of another
    for together, alone in zip(
        stack.evaluate_splits(*splits), [stack.evaluate(*split) for split in splits], strict=True
    ):
        assert torch.equal(together.accuracy, alone.accuracy)
        torch.testing.assert_close(together.loss, alone.loss, rtol=1e-12, atol=0)


def test_ties_are_predicted_as_the_first_class():
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 2.0, 2.0]])
    for label in range(3):
        y = torch.full((3,), label)
        ((right, loss),) = score_examples([logits[None], logits[None]], y)
        assert torch.equal(right[1] == 1, logits.argmax(1) == y)
        torch.testing.assert_close(loss[1], functional.cross_entropy(logits, y, reduction="none"))


def test_metrics_of_a_network_do_not_depend_on_its_stack():
    stack, data = make_stack(networks=200, dtype=torch.float32), some_data(train=300)
    assert stack_size(stack.module, stack.layout, "cpu") < 200
    whole = stack.evaluate(data.train_x, data.train_y)
    few = stack.take([150, 3]).evaluate(data.train_x, data.train_y)
    assert torch.equal(whole.accuracy[[150, 3]], few.accuracy)
    assert torch.equal(whole.loss[[150, 3]], few.loss)


@pytest.mark.parametrize("network", NETWORKS)
def test_one_by_one_and_vmap_agree_on_logits_and_gradients(network):
    stack = make_stack(network)
    x = torch.stack([NETWORKS[network].examples(seed=k) for k in range(len(stack))])
    logits, gradients = [], []
    for run in (
        lambda rows: run_stack(stack.with_rows(rows), x),
        lambda rows: vmap(lambda n, b: functional_call(stack.module, n, (b,)))(stack.with_rows(rows).tensors(), x),
    ):
        rows = stack.rows.clone().requires_grad_()
        logits.append(run(rows))
        gradients.append(torch.autograd.grad(logits[-1].log_softmax(-1)[..., 0].sum(), rows)[0])
    torch.testing.assert_close(*logits, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-11)
    assert logits[0].shape == (len(stack), 6, CLASSES)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_gradient_of_a_stack_is_that_of_autograd_through_its_rows(network):
    stack, smoothing = make_stack(network), torch.tensor([0.0, 0.1, 0.3], dtype=torch.float64)
    x = torch.stack([NETWORKS[network].examples(seed=k) for k in range(3)])
    y = torch.arange(18).view(3, 6) % CLASSES
    rows = stack.rows[:3].clone().requires_grad_()
    expected = cross_entropy(run_stack(stack.with_rows(rows), x), y, smoothing)
    loss, gradient = stack_gradient(stack.take([0, 1, 2]), x, y, smoothing)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), rows)[0], rtol=1e-9, atol=1e-12)


def parameters_of(stack, network):
    return stack.layout.flatten(dict(network.named_parameters()))


@pytest.mark.parametrize("setting", ["standard", "sigma_asymmetric"])
def test_networks_of_a_stack_are_separate_modules_with_its_weights(setting):
    stack, x = make_stack(setting=setting), NETWORKS["mlp"].examples()
    networks = list(stack.networks())
    assert len({id(network) for network in networks}) == len(stack) == 4
    tensors = [tensor.data_ptr() for network in (*networks, stack.module) for tensor in network.parameters()]
    assert len(set(tensors)) == len(tensors)
    for k, network in enumerate(networks):
        assert torch.equal(parameters_of(stack, network), stack.rows[k])
        assert torch.equal(network(x), stack.network(k)(x))


def test_one_module_becomes_each_network_in_turn():
    stack, seen = make_stack(), []
    for k, network in enumerate(in_turn(stack)):
        assert torch.equal(parameters_of(stack, network), stack.rows[k])
        seen.append(network)
    assert len(seen) == 4
    assert {id(network) for network in seen} == {id(seen[0])}
    assert seen[0] is not stack.module


@pytest.mark.parametrize("index", [2, -2, np.int64(2)], ids=repr)
def test_taking_one_network_gives_a_stack_of_one(index):
    stack = make_stack()
    one = stack.take(index)
    assert len(one) == 1
    assert torch.equal(one.rows, stack.rows[2:3])
    assert torch.equal(parameters_of(stack, stack.network(index)), stack.rows[2])


@pytest.mark.parametrize(
    "index", [[3, 0], np.array([3, 0]), slice(1, 3), torch.tensor([2, 2]), torch.tensor([True, False] * 2)], ids=str
)
def test_taken_networks_keep_their_own_buffers(index):
    rows = make_stack().rows
    own = {"buffer": torch.arange(4.0)}
    stack = Stack(rows, make_stack().module, make_stack().layout, own)
    assert torch.equal(stack.take(index).rows, rows[index])
    assert torch.equal(stack.take(index).own["buffer"], own["buffer"][index])
    assert stack.take(1).own["buffer"].tolist() == [1.0]
    assert stack.repeat(2).own["buffer"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    with pytest.raises(ValueError, match="buffer: 4 values for 3 networks"):
        stack.with_rows(rows[:3])


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_running_a_stack_does_not_change_its_module(network):
    stack, x = make_stack(network), NETWORKS[network].examples()
    before = {name: (tensor.clone(), tensor.data_ptr()) for name, tensor in stack.module.named_parameters()}
    stack.logits(x)
    stack_gradient(stack, x.expand(len(stack), *x.shape), torch.zeros(len(stack), len(x), dtype=torch.int64))
    for name, tensor in stack.module.named_parameters():
        assert torch.equal(tensor, before[name][0])
        assert tensor.data_ptr() == before[name][1]
        assert tensor.grad is None


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_network_of_a_stack_is_an_ordinary_separate_module(setting):
    stack = make_stack(setting=setting)
    before, network = stack.rows.clone(), stack.network(1)
    x, y = NETWORKS["mlp"].examples(), torch.tensor([0, 1, 2, 3, 1, 2])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    functional.cross_entropy(network(x), y).backward()
    optimizer.step()
    assert (stack.layout.flatten(dict(network.named_parameters())) - before[1]).abs().max() > 1e-4
    assert torch.equal(stack.rows, before)
    assert all(a is not b for a, b in zip(network.parameters(), stack.module.parameters(), strict=True))


def test_permuting_a_stack_permutes_its_rows():
    stack = make_stack()
    permutations = {"hidden0": torch.stack([torch.randperm(16) for _ in range(len(stack))])}
    assert torch.equal(stack.permute(permutations).rows, stack.layout.permute(stack.rows, permutations))


def test_each_network_smooths_labels_by_its_own_fraction():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 8, CLASSES, dtype=torch.float64, generator=generator)
    y = torch.randint(CLASSES, (3, 8), generator=generator)
    smoothing = torch.tensor([0.0, 0.1, 0.3], dtype=torch.float64)
    expected = [
        functional.cross_entropy(one, labels, label_smoothing=share)
        for one, labels, share in zip(logits, y, smoothing.tolist(), strict=True)
    ]
    torch.testing.assert_close(cross_entropy(logits, y, smoothing), torch.stack(expected), rtol=1e-12, atol=0)
    torch.testing.assert_close(cross_entropy(logits, y)[0], expected[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("convolution", "expected"),
    [
        (nn.Conv2d(16, 32, 1, stride=2), torch.channels_last),
        (nn.Conv2d(3, 16, 3, stride=2), torch.channels_last),
        (nn.Conv2d(6, 12, 1), torch.channels_last),
        (nn.Conv2d(6, 12, 1, stride=2), torch.contiguous_format),
    ],
)
def test_networks_whose_backward_pass_is_broken_in_channels_last_do_without(convolution, expected):
    assert zoo.networks.stack.kernel_format(nn.Sequential(nn.Conv2d(3, 8, 3), convolution)) == expected
