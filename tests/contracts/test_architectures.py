"""What holds for every architecture in `ARCHITECTURES`."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from tests.scenarios import CLASSES, NETWORKS, rolled, some_thetas, treat
from zoo.networks.architectures import ARCHITECTURES
from zoo.networks.architectures.base import ACTIVATIONS
from zoo.networks.parameters import ParameterLayout

EVERY = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


def standard_stack(network, networks=3):
    treated = treat("standard", network, dtype=torch.float64)
    return treated.stack(some_thetas(treated, networks))


def test_every_architecture_has_a_scenario():
    assert {network.name for network in NETWORKS.values()} == ARCHITECTURES.keys()


@EVERY
def test_axes_name_every_dimension_of_every_parameter(network):
    module = network.build()
    layout = ParameterLayout.of(module)
    state = module.state_dict()
    further = dict(module.named_parameters(remove_duplicate=False)).keys() - dict(module.named_parameters()).keys()
    tensors = {
        n: tuple(t.shape) for n, t in state.items() if not n.endswith("num_batches_tracked") and n not in further
    }
    assert [(p.name, p.shape) for p in layout.parameters] == list(tensors.items())
    assert {p.name for p in layout.parameters if p.name not in layout.statistics} == dict(
        module.named_parameters()
    ).keys()
    assert {p.name for p in layout.weights if not p.written} == set()
    assert layout.weights[0].split.axes[1] == "input"
    assert layout.weights[-1].axes[0] == "output"
    assert layout.axes["output"] == CLASSES
    assert {"input", "output"}.isdisjoint(layout.hidden_axes)


@EVERY
def test_sites_are_the_activations_and_the_axes_they_act_on(network):
    module, seen = network.build().double(), {}
    kinds = tuple(type(make()) for make in ACTIVATIONS.values())
    assert {name for name, m in module.named_modules() if isinstance(m, kinds)} == module.sites.keys()
    for site in module.sites:
        module.get_submodule(site).register_forward_hook(lambda m, i, out, site=site: seen.update({site: out.shape[1]}))
    assert module(network.examples()).shape == (6, CLASSES)
    axes = ParameterLayout.of(module).axes
    assert seen == {site: axes[axis] for site, axis in module.sites.items()}


@EVERY
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**32))
def test_permuting_hidden_units_keeps_logits(network, seed):
    stack, x = standard_stack(network), network.examples()
    permutations = stack.layout.random_permutations(np.random.default_rng(seed))
    assert permutations.keys() == set(stack.layout.hidden_axes)
    permuted = stack.permute(permutations)
    torch.testing.assert_close(permuted.logits(x), stack.logits(x), rtol=0, atol=1e-10)


@EVERY
def test_permuting_one_hidden_axis_keeps_logits_and_moves_weights(network):
    stack, x = standard_stack(network), network.examples()
    for axis in stack.layout.hidden_axes:
        permuted = stack.permute(rolled(stack.layout, axis))
        assert not torch.equal(permuted.rows, stack.rows)
        torch.testing.assert_close(permuted.logits(x), stack.logits(x), rtol=0, atol=1e-10)


@EVERY
def test_permuting_one_tensor_alone_changes_logits(network):
    stack, x = standard_stack(network), network.examples()
    for weight in stack.layout.weights[:-1]:
        tensors = stack.layout.unflatten(stack.rows.clone())
        tensors[weight.name] = tensors[weight.name].roll(1, dims=1)
        moved = stack.with_rows(stack.layout.flatten(tensors))
        assert (moved.logits(x) - stack.logits(x)).abs().max() > 1e-4


@EVERY
def test_inverse_permutation_restores(network):
    stack = standard_stack(network)
    permutations = stack.layout.random_permutations(np.random.default_rng(1))
    inverse = {axis: permutation.argsort() for axis, permutation in permutations.items()}
    assert torch.equal(stack.permute(permutations).permute(inverse).rows, stack.rows)


@EVERY
@pytest.mark.parametrize("axis", ["input", "output", "nonsense"])
def test_identified_and_unknown_axes_cannot_be_permuted(network, axis):
    stack = standard_stack(network)
    with pytest.raises(ValueError, match=axis):
        stack.permute({axis: torch.arange(stack.layout.axes.get(axis, 1))})


@EVERY
def test_start_has_the_distribution_of_pytorchs_default(network):
    torch.manual_seed(0)
    layout, rng, networks = ParameterLayout.of(network.build()), np.random.default_rng(0), 60
    fresh = [layout.flatten(network.build().state_dict()) for _ in range(networks)]
    expected = layout.unflatten(torch.stack(fresh))
    found = layout.unflatten(torch.stack([layout.draw_initial(rng) for _ in range(networks)]))
    for parameter in layout.parameters:
        a, b = expected[parameter.name].flatten(), found[parameter.name].flatten()
        if parameter.role.startswith("norm_"):
            assert torch.equal(a, b)
            continue
        assert ks_2samp(a.numpy(), b.numpy()).pvalue > 1e-4, parameter
        torch.testing.assert_close(b.abs().max(), a.abs().max(), rtol=0.08, atol=0)
        torch.testing.assert_close(b.std(), a.std(), rtol=0.15, atol=0)
        assert b.abs().max() <= a.abs().max() * 1.1


@EVERY
def test_narrower_networks_keep_inputs_and_outputs(network):
    architecture = ARCHITECTURES[network.name]
    wide, narrow = (
        ParameterLayout.of(architecture(**arguments))
        for arguments in (network.arguments, architecture.narrow(network.arguments, 0.5))
    )
    named = [[(p.name, p.split.axes, p.role) for p in layout.parameters] for layout in (narrow, wide)]
    assert named[0] == named[1]
    kept = {"input", "output", *wide.blocks.values()}  # there are as many heads, each with fewer units
    for axis, units in wide.axes.items():
        assert narrow.axes[axis] == (units if axis in kept else round(units / 2))


@EVERY
def test_layout_survives_json(network):
    layout = ParameterLayout.of(network.build())
    assert ParameterLayout.from_json(layout.to_json()) == layout
