from itertools import permutations, product

import numpy as np
import pytest
import torch
from torch.func import functional_call

from benchmark.alignment import (
    activation_matching,
    activations,
    assign,
    is_permutable,
    merge_many,
    permute_checked,
    similarity,
    weight_matching,
)
from tests.scenarios import NETWORKS, SETTINGS, Network, some_thetas, treat
from zoo.errors import TaskError
from zoo.networks.parameter import Parameter
from zoo.networks.parameters import ParameterLayout

EVERY_NETWORK = pytest.mark.parametrize("network", NETWORKS)
TINY = Network("mlp", {"widths": [3, 4, 4, 3]}, (3,))  # 576 orders of units


def some_stack(network="mlp", networks=3, setting="standard", seed=0):
    treated = treat(setting, network, dtype=torch.float64)
    return treated.stack(treated.to_rows(some_thetas(treated, networks, seed)))


def shuffled(stack, seed=0):
    """The networks with their units in another order each."""
    return stack.permute(stack.layout.random_permutations(np.random.default_rng(seed), len(stack)))


def inner(a, b, layout):
    """The inner product of weights; the running statistics of batch norm are none."""
    return (a * b)[..., layout.learned].sum(-1)


@EVERY_NETWORK
@pytest.mark.parametrize("noise", [0, 0.05])
def test_a_planted_order_of_units_is_found_by_their_weights(network, noise):
    stack = some_stack(network)
    rng = np.random.default_rng(1)
    disturbed = stack.with_rows(stack.rows + noise * torch.from_numpy(rng.normal(size=stack.rows.shape)))
    found = weight_matching(stack.layout, shuffled(disturbed).rows, stack.rows, rng, restarts=5)
    torch.testing.assert_close(shuffled(disturbed).permute(found).rows, disturbed.rows, rtol=0, atol=0)


@pytest.mark.parametrize("network", ["mlp", "mlp_plain", "cnn_norm"])  # no unit of theirs is dead, as ReLU's may be
def test_a_planted_order_of_units_is_found_by_their_activations(network):
    stack = some_stack(network)
    found = activation_matching(shuffled(stack), stack, NETWORKS[network].examples(100))
    torch.testing.assert_close(shuffled(stack).permute(found).rows, stack.rows, rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_no_order_of_units_brings_networks_nearer_than_weight_matching_with_restarts(seed):
    stack, targets = some_stack(TINY, 2, seed=seed), some_stack(TINY, 2, seed=seed + 100)
    found = weight_matching(stack.layout, stack.rows, targets.rows, np.random.default_rng(seed), restarts=30)
    distance = (stack.permute(found).rows - targets.rows).square().sum(1)
    every = [
        stack.layout.permute(stack.rows, dict(zip(stack.layout.hidden_axes, map(torch.tensor, order), strict=True)))
        for order in product(permutations(range(4)), repeat=2)
    ]
    least = torch.stack([(rows - targets.rows).square().sum(1) for rows in every]).amin(0)
    torch.testing.assert_close(distance, least)


@EVERY_NETWORK
def test_no_step_lowers_the_objective_and_the_last_is_of_what_is_returned(network):
    stack, targets = some_stack(network), some_stack(network, seed=1)
    path = [inner(stack.rows, targets.rows, stack.layout)]
    found = weight_matching(stack.layout, stack.rows, targets.rows, np.random.default_rng(0), on_step=path.append)
    steps = torch.stack(path).diff(dim=0)
    assert steps.min() >= 0
    assert (steps.sum(0) > 0).all()
    torch.testing.assert_close(path[-1], inner(stack.permute(found).rows, targets.rows, stack.layout))


@EVERY_NETWORK
def test_each_network_is_matched_as_if_it_were_alone(network):
    stack, target = some_stack(network), some_stack(network, 1, seed=1)
    together = weight_matching(stack.layout, stack.rows, target.rows, np.random.default_rng(0))
    for k in range(len(stack)):
        alone = weight_matching(stack.layout, stack.rows[k : k + 1], target.rows, np.random.default_rng(0))
        for axis in together:
            assert torch.equal(together[axis][k], alone[axis][0])


def test_similarity_is_what_swapping_units_would_gain():
    stack, targets = some_stack("resnet8", 2), some_stack("resnet8", 2, seed=1)
    layout = stack.layout
    for axis in layout.hidden_axes:
        alike = similarity(layout, axis, *map(layout.unflatten, (stack.rows, targets.rows)))
        units = layout.axes[axis]
        order = torch.randperm(units, generator=torch.Generator().manual_seed(0))
        gain = alike[:, torch.arange(units), order].sum(1) - alike.diagonal(dim1=1, dim2=2).sum(1)
        moved = layout.permute(stack.rows, {axis: order})
        torch.testing.assert_close(inner(moved, targets.rows, layout) - inner(stack.rows, targets.rows, layout), gain)


def test_a_tensor_that_has_an_axis_twice_is_one_clear_error():
    layout = ParameterLayout((Parameter("recurrent.weight", (4, 4), ("hidden", "hidden"), "weight"),))
    rows = torch.zeros(1, 16)
    with pytest.raises(
        TaskError, match=r"^weight matching: recurrent\.weight has the axis hidden twice; match .* activations$"
    ):
        weight_matching(layout, rows, rows, np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(5))
def test_assignment_is_the_best_of_all(seed):
    alike = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 5, 5)))
    chosen = alike.gather(2, assign(alike)[:, :, None]).sum((1, 2))
    every = torch.stack([alike[:, torch.arange(5), torch.tensor(order)].sum(1) for order in permutations(range(5))])
    torch.testing.assert_close(chosen, every.amax(0))


@EVERY_NETWORK
def test_activations_are_those_of_the_module_itself(network):
    stack, x = some_stack(network, 2), NETWORKS[network].examples()
    given = activations(stack, x)
    assert given.keys() == set(stack.module.sites.values())
    for k in range(2):
        own = {}
        for site, axis in stack.module.sites.items():
            seen = []
            handle = stack.module.get_submodule(site).register_forward_hook(lambda m, i, o, seen=seen: seen.append(o))
            functional_call(stack.module, stack.layout.unflatten(stack.rows[k]), (x,))
            handle.remove()
            own.setdefault(axis, []).append(seen[0].transpose(0, 1).flatten(1))
        for axis, outputs in own.items():
            torch.testing.assert_close(given[axis][k], torch.cat(outputs, 1))
    assert not any(module._forward_hooks for module in stack.module.modules())


@EVERY_NETWORK
@pytest.mark.parametrize("method", ["weights", "activations"])
def test_matched_networks_compute_the_same(network, method):
    stack, target, x = some_stack(network), some_stack(network, 1, seed=1), NETWORKS[network].examples()
    if method == "weights":
        found = weight_matching(stack.layout, stack.rows, target.rows, np.random.default_rng(0))
    else:
        found = activation_matching(stack, target, x)
    matched = permute_checked(stack, found, x)
    torch.testing.assert_close(matched.logits(x), stack.logits(x))
    assert not found or (matched.rows != stack.rows).any(1).all()  # activations say nothing of units in blocks


@pytest.mark.parametrize("setting", SETTINGS)
def test_units_with_activations_of_their_own_are_not_permuted(setting):
    stack, x = some_stack(setting=setting), NETWORKS["mlp"].examples()
    order = stack.layout.random_permutations(np.random.default_rng(0), len(stack))
    assert is_permutable(stack, x) != setting.startswith("sigma")
    if setting.startswith("sigma"):
        with pytest.raises(TaskError, match="permuting hidden units changes what these networks compute"):
            permute_checked(stack, order, x)
    else:  # fixed entries move with their units
        torch.testing.assert_close(permute_checked(stack, order, x).rows, stack.permute(order).rows)


@EVERY_NETWORK
def test_many_networks_that_differ_in_their_order_alone_become_one(network):
    stack = some_stack(network, 1)
    many = shuffled(stack.with_rows(stack.rows.expand(5, -1)))
    merged = many.permute(merge_many(many.layout, many.rows, np.random.default_rng(0), restarts=5))
    assert torch.equal(merged.rows, merged.rows[:1].expand_as(merged.rows))
    x = NETWORKS[network].examples()
    torch.testing.assert_close(merged.logits(x), many.logits(x))


@EVERY_NETWORK
def test_no_turn_of_merging_many_lowers_the_sum_of_all_inner_products(network):
    stack = some_stack(network, 4)

    def inner_products(rows):
        weights = rows[:, stack.layout.learned]
        return (weights @ weights.T).triu(1).sum()[None]

    path = [inner_products(stack.rows)]
    found = merge_many(stack.layout, stack.rows, np.random.default_rng(0), on_step=path.append)
    steps = torch.cat(path).diff()
    assert steps.min() > -1e-9
    assert steps.sum() > 0
    torch.testing.assert_close(path[-1], inner_products(stack.permute(found).rows))
