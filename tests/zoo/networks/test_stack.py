import pytest
import torch
from torch.func import functional_call, vmap
from torch.nn import functional

import zoo.networks.stack
from tests.scenarios import CLASSES, NETWORKS, SETTINGS, some_data, some_thetas, treat
from zoo.networks.stack import Stack, cross_entropy, run_stack, score, stack_gradient, stack_size


def make_stack(network="mlp", setting="standard", networks=4, dtype=torch.float64):
    treated = treat(setting, network, dtype=dtype)
    return Stack(treated.rows(some_thetas(treated, networks, dtype=dtype)), treated.module, treated.layout)


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
        monkeypatch.setattr(zoo.networks.stack, "batch_size", lambda module, batch=batch: batch)
        monkeypatch.setattr(zoo.networks.stack, "stack_size", lambda *network, networks=networks: networks)
        found = stack.evaluate(data.train_x, data.train_y)
        torch.testing.assert_close(found.accuracy.double(), accuracy, rtol=0, atol=1e-7)
        torch.testing.assert_close(found.loss, loss, rtol=1e-10, atol=0)
    assert len(accuracy.unique()) > 1


@pytest.mark.parametrize("network", ["mlp", "cnn_norm"])
def test_splits_together_are_measured_as_each_alone(monkeypatch, network):
    stack, data = make_stack(network), some_data(NETWORKS[network].shape).to("cpu", torch.float64)
    splits = (data.train_x, data.train_y), (data.test_x, data.test_y)
    monkeypatch.setattr(
        zoo.networks.stack, "batch_size", lambda module: 7
    )  # a batch holds the end of one, the start of another
    for together, alone in zip(
        stack.evaluate_splits(*splits), [stack.evaluate(*split) for split in splits], strict=True
    ):
        assert torch.equal(together.accuracy, alone.accuracy)
        torch.testing.assert_close(together.loss, alone.loss, rtol=1e-12, atol=0)


def test_of_equal_logits_the_first_counts():
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 2.0, 2.0]])
    for label in range(3):
        y = torch.full((3,), label)
        ((right, loss),) = score([logits, logits], y)
        assert torch.equal(right[1] == 1, logits.argmax(1) == y)
        torch.testing.assert_close(loss[1], functional.cross_entropy(logits, y, reduction="none"))


def test_a_network_measures_the_same_in_any_company():
    stack, data = make_stack(networks=200, dtype=torch.float32), some_data(train=300)
    assert stack_size(stack.module, stack.layout, "cpu") < 200
    whole = stack.evaluate(data.train_x, data.train_y)
    few = Stack(stack.rows[[150, 3]], stack.module, stack.layout).evaluate(data.train_x, data.train_y)
    assert torch.equal(whole.accuracy[[150, 3]], few.accuracy)
    assert torch.equal(whole.loss[[150, 3]], few.loss)


@pytest.mark.parametrize("network", NETWORKS)
def test_one_by_one_and_vmap_agree_on_logits_and_gradients(network):
    stack = make_stack(network)
    x = torch.stack([NETWORKS[network].examples(seed=k) for k in range(len(stack))])
    logits, gradients = [], []
    for run in (
        lambda rows: run_stack(stack.with_rows(rows), x),
        lambda rows: vmap(lambda n, b: functional_call(stack.module, n, (b,)))(stack.layout.unflatten(rows), x),
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


def test_networks_of_a_stack_keep_their_weights():
    stack = make_stack()
    networks = [stack.network(k) for k in range(len(stack))]
    for network, row in zip(networks, stack.rows, strict=True):
        assert torch.equal(stack.layout.flatten(dict(network.named_parameters())), row)


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_running_a_stack_leaves_its_module_as_it_was(network):
    stack, x = make_stack(network), NETWORKS[network].examples()
    before = {name: (tensor.clone(), tensor.data_ptr()) for name, tensor in stack.module.named_parameters()}
    stack.logits(x)
    stack_gradient(stack, x.expand(len(stack), *x.shape), torch.zeros(len(stack), len(x), dtype=torch.int64))
    for name, tensor in stack.module.named_parameters():
        assert torch.equal(tensor, before[name][0])
        assert tensor.data_ptr() == before[name][1]
        assert tensor.grad is None


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_network_of_a_stack_is_an_ordinary_module_of_its_own(setting):
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


def test_each_network_smooths_labels_by_its_own_share():
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
