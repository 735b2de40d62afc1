import itertools
import os
import subprocess
import sys
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.scenarios import NETWORKS, SETTINGS, Network, digest_of_draws, rolled, some_thetas, treat, treatment_of
from zoo.errors import RecipeError
from zoo.networks.parameter import Parameter
from zoo.recipes.recipe import Recipe, built_in_recipes
from zoo.seeds import rng_for
from zoo.treatments.masks import check_rows_differ, draw_fixed, per_layer
from zoo.treatments.sigma_asymmetric import FiGLU

ROOT = Path(__file__).parents[3]
SIZES = st.tuples(st.integers(1, 8), st.integers(1, 6), st.integers(1, 3))
LARGE = Network("mlp", {"widths": [200, 300, 100, 10]}, (200,))


def weight_of(rows, inputs, kernel):
    shape = (rows, inputs) if kernel == 1 else (rows, inputs, kernel, kernel)
    return Parameter("layer.weight", shape, ("out", "in", None, None)[: len(shape)], "weight")


def mask_of(size, kind, n_fix, seed=0):
    return draw_fixed(weight_of(*size), kind, n_fix, np.random.default_rng(seed))


def rows_of(mask):
    return [tuple(np.flatnonzero(row).tolist()) for row in mask]


def proper_subsets(choices):
    return [s for size in range(choices) for s in itertools.combinations(range(choices), size)]


def refusal(setting, network="mlp"):
    with pytest.raises(RecipeError) as error:
        treat({"kind": "w_asymmetric", **setting}, network)
    return str(error.value)


# Masks


@settings(deadline=None, max_examples=40)
@given(size=SIZES, n_fix=st.integers(0, 10), seed=st.integers(0, 2**32))
def test_random_subsets_fix_n_entries_of_each_row_and_all_rows_differ(size, n_fix, seed):
    rows, inputs, kernel = size
    fan_in = inputs * kernel**2
    assume(n_fix < fan_in)
    assume(comb(fan_in, n_fix) >= rows)
    mask = mask_of(size, "random_subsets", n_fix, seed)
    assert mask.shape == (rows, fan_in)
    assert (mask.sum(1) == n_fix).all()
    assert len(set(rows_of(mask))) == rows


@settings(deadline=None, max_examples=40)
@given(size=SIZES, n_fix=st.integers(0, 5), seed=st.integers(0, 2**32))
def test_filter_random_subsets_fix_whole_kernels_of_n_input_channels(size, n_fix, seed):
    rows, inputs, kernel = size
    assume(n_fix < inputs)
    assume(comb(inputs, n_fix) >= rows)
    kernels = mask_of(size, "filter_random_subsets", n_fix, seed).reshape(rows, inputs, kernel**2)
    assert (kernels.all(2) == kernels.any(2)).all()
    assert (kernels.all(2).sum(1) == n_fix).all()
    assert len(set(rows_of(kernels.all(2)))) == rows


def test_random_masks_choose_every_entry_equally_often():
    share = mask_of((2000, 30, 1), "random_subsets", 10).mean(0)
    assert abs(share - 1 / 3).max() < 0.06


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 5), choices=st.integers(1, 4))
def test_densest_fixes_the_fewest_entries_for_which_all_rows_differ(rows, choices):
    assume(rows < 2**choices)
    mask = mask_of((rows, choices, 1), "densest", 3)
    fewest = min(sum(map(len, chosen)) for chosen in itertools.combinations(proper_subsets(choices), rows))
    assert mask.sum() == fewest
    assert len(set(rows_of(mask))) == rows


@settings(deadline=None, max_examples=40)
@given(size=SIZES, n_fix=st.integers(0, 5))
def test_bound_zeros_are_in_lexicographic_order_from_n_entries_up(size, n_fix):
    rows, fan_in = size[0], size[1] * size[2] ** 2
    assume(n_fix < fan_in <= 12)
    ordered = [subset for subset in proper_subsets(fan_in) if len(subset) >= n_fix]
    assume(rows <= len(ordered))
    assert rows_of(mask_of(size, "bound_zeros", n_fix)) == ordered[:rows]


def test_bound_zeros_are_those_computed_by_hand():
    assert rows_of(mask_of((5, 3, 1), "bound_zeros", 1)) == [(0,), (1,), (2,), (0, 1), (0, 2)]


def test_equal_rows_are_an_error_that_names_the_layer():
    mask = np.array([[True, False, False], [False, True, False], [True, False, False]])
    with pytest.raises(RecipeError, match=r"rows 0 and 2 of block\.weight are equal; change n_fix or the seed"):
        check_rows_differ("block.weight", mask)
    check_rows_differ("block.weight", mask[:2])


@pytest.mark.parametrize("kind", ["bound_zeros", "random_subsets", "filter_random_subsets"])
def test_every_row_keeps_an_entry_that_trains(kind):
    with pytest.raises(RecipeError, match=r"n_fix: 4 for layer.weight, whose rows have 4 entries; .*wholly_fixed"):
        mask_of((2, 4, 1), kind, 4)
    assert not mask_of((2, 4, 1), kind, 3).all(1).any()


@pytest.mark.parametrize(
    ("kind", "n_fix", "most"),
    [("densest", 0, 15), ("bound_zeros", 2, 10), ("random_subsets", 2, 6), ("filter_random_subsets", 1, 4)],
)
def test_more_rows_than_distinct_masks_are_an_error(kind, n_fix, most):
    assert len(set(rows_of(mask_of((most, 4, 1), kind, n_fix)))) == most
    with pytest.raises(RecipeError, match=rf"layer.weight has {most + 1} rows but only {most} distinct masks"):
        mask_of((most + 1, 4, 1), kind, n_fix)


# Arguments


def test_wholly_fixed_weights_do_not_train_and_their_biases_do():
    treated = treat({"kind": "w_asymmetric", "n_fix": 2, "wholly_fixed": ["hidden.1.linear"]})
    free = treated.layout.unflatten(treated.mask.float())
    assert free["hidden.1.linear.weight"].eq(0).all()
    assert free["hidden.1.linear.bias"].all()
    assert free["hidden.0.linear.weight"].eq(0).sum(1).eq(2).all()
    assert treated.layout.unflatten(treated.held["constants"])["hidden.1.linear.weight"].std() > 0.5


def test_wholly_fixed_refuses_equal_rows_and_unknown_weights():
    assert refusal({"n_fix": 2, "kappa": 0, "wholly_fixed": ["output"]}).startswith(
        "wholly_fixed: output.weight has kappa 0"
    )
    unknown = refusal({"n_fix": 2, "wholly_fixed": ["hidden.9.linear"]})
    assert "there is no weight hidden.9.linear.weight; the weights are ['hidden.0.linear.weight'," in unknown


def test_settings_are_one_value_a_list_or_a_table_of_patterns():
    weights = treat("standard", "resnet8").layout.weights
    names = [weight.name for weight in weights]
    assert per_layer("n_fix", 3, weights) == dict.fromkeys(names, 3)
    assert per_layer("n_fix", list(range(len(names))), weights) == {name: i for i, name in enumerate(names)}
    table = per_layer("n_fix", {"conv1": 1, "layer2.*.conv*": 2, "*": 4}, weights)
    assert list(table) == names
    assert {value: [n for n in names if table[n] == value] for value in (1, 2)} == {
        1: ["conv1.weight"],
        2: ["layer2.0.conv1.weight", "layer2.0.conv2.weight"],
    }
    assert set(table.values()) == {1, 2, 4}


def test_settings_that_do_not_fit_the_weights_are_errors():
    assert refusal({"n_fix": [1, 2]}).startswith(
        "n_fix: 2 values for 3 weights; give one for each of ['hidden.0.linear'"
    )
    assert refusal({"n_fix": {"hidden.*": 2}}).startswith("n_fix: no pattern matches output; add one, or '*'")
    assert refusal({"n_fix": 2, "kappa": {"conv*": 2, "*": 1}}).startswith("kappa: pattern 'conv*' matches no weight")
    assert refusal({"n_fix": 2, "mask": ["densest"]}).startswith("mask: 1 values for 3 weights")


@pytest.mark.parametrize(("recipe", "count"), [("cifar10-resnet8", 60_634), ("mnist-mlp-replicas", 834_570)])
def test_w_asymmetric_networks_train_as_many_numbers_as_published(recipe, count):
    assert Recipe.load(recipe).treat("w_asymmetric").mask.sum() == count


@pytest.mark.parametrize("name", built_in_recipes())
def test_narrow_networks_have_about_as_many_parameters_as_w_asymmetric_ones_train(name):
    recipe = Recipe.load(name)
    trained = int(recipe.treat("w_asymmetric").mask.sum())
    assert recipe.treat("narrow").layout.size == pytest.approx(trained, rel=0.04)


def test_narrow_resnet8_has_the_published_number_of_parameters():
    assert Recipe.load("cifar10-resnet8").treat("narrow").layout.size == 59_944


# Constants


def test_constants_are_normal_with_deviation_kappa_and_only_where_entries_are_fixed():
    kappas = [1.0, 0.5, 2.0]
    treated = treat({"kind": "w_asymmetric", "n_fix": 80, "kappa": kappas}, LARGE)
    for weight, kappa in zip(treated.layout.weights, kappas, strict=True):
        where = treated.layout.slices[weight.name]
        fixed, constants = ~treated.mask[where], treated.held["constants"][where]
        assert constants[~fixed].eq(0).all()
        assert constants[fixed].std() == pytest.approx(kappa, rel=0.06)
        assert abs(constants[fixed].mean()) < 0.1 * kappa
        assert (constants[fixed].abs() < kappa).double().mean() == pytest.approx(0.683, abs=0.04)
    others = torch.cat(
        [treated.mask[treated.layout.slices[p.name]] for p in treated.layout.parameters if p.role != "weight"]
    )
    assert others.all()


def test_with_kappa_0_fixed_entries_are_zero():
    masked, whole = (treat(setting) for setting in ("w_masked", "w_asymmetric"))
    assert torch.equal(masked.mask, whole.mask)
    assert masked.held["constants"].eq(0).all()


@pytest.mark.parametrize("setting", ["w_asymmetric", "sigma_asymmetric", "syre"])
def test_another_seed_draws_other_constants(setting):
    one, other = (treat(setting, seed=seed).held for seed in (0, 1))
    assert one.keys() == other.keys()
    assert all(not torch.equal(one[name], other[name]) for name in one)


def test_draws_are_the_same_in_every_process():
    code = f"""
from tests.scenarios import SETTINGS, digest_of_draws
print(*[digest_of_draws(s, n) for s in SETTINGS for n in {["mlp", "resnet8"]}])
"""
    here = [digest_of_draws(s, n) for s in SETTINGS for n in ("mlp", "resnet8")]
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    assert run.stdout.split() == here
    assert len(set(here)) > len(here) / 2


# What breaks the symmetry, and what does not


def permuted_stack(setting, network, seed=0):
    treated = treat(setting, network, dtype=torch.float64)
    stack = treated.stack(treated.to_rows(some_thetas(treated)))
    shifted = {}
    for axis in stack.layout.hidden_axes:
        if axis not in stack.layout.blocks:  # units in blocks move with these
            shifted |= rolled(stack.layout, axis)
    return treated, stack, stack.permute(shifted)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("setting", ["w_asymmetric", "w_masked"])
def test_permuted_w_asymmetric_networks_cannot_be_reached_by_training(setting, network):
    treated, stack, permuted = permuted_stack(setting, network)
    x, fixed = NETWORKS[network].examples(), ~treated.mask
    torch.testing.assert_close(permuted.logits(x), stack.logits(x), rtol=0, atol=1e-10)
    assert (permuted.rows[:, fixed] != treated.constants[fixed]).any(1).all()
    nearest = stack.with_rows(treated.to_rows(treated.keep_trainable(permuted.rows)))
    assert ((nearest.logits(x) - stack.logits(x)).abs().amax((1, 2)) > 1e-3).all()


@pytest.mark.parametrize("network", ["mlp", "resnet8"])
def test_w_asymmetric_networks_with_two_exchanged_units_cannot_be_reached_by_training(network):
    treated = treat("w_asymmetric", network)
    row = treated.to_rows(some_thetas(treated, 1, dtype=torch.float32))[0]
    fixed, constants = ~treated.mask, treated.held["constants"]
    for axis in treated.layout.hidden_axes:
        units = treated.layout.axes[axis]
        for a, b in itertools.islice(itertools.combinations(range(units), 2), 30):
            order = torch.arange(units)
            order[[a, b]] = order[[b, a]]
            assert (treated.layout.permute(row, {axis: order})[fixed] != constants[fixed]).any()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("setting", ["standard", "narrow", "w_initialised", "w_rescaled", "syre"])
def test_permuting_networks_with_plain_activations_does_not_change_their_function(setting, network):
    treated, stack, permuted = permuted_stack(setting, network)
    x = NETWORKS[network].examples()
    torch.testing.assert_close(permuted.logits(x), stack.logits(x), rtol=0, atol=1e-10)
    if setting != "syre":
        assert torch.equal(treated.to_rows(treated.keep_trainable(permuted.rows)), permuted.rows)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("setting", ["sigma_asymmetric", "sigma_scaled"])
def test_permuting_sigma_asymmetric_networks_changes_their_function(setting, network):
    _, stack, permuted = permuted_stack(setting, network)
    x = NETWORKS[network].examples()
    assert ((permuted.logits(x) - stack.logits(x)).abs().amax((1, 2)) > 1e-3).all()


# The controls for the start


def both_starts(initialised, asymmetric, network="mlp", pair=0):
    one, other = treat(initialised, network), treat(asymmetric, network)
    initial = one.layout.draw_initial(rng_for(0, "initial", pair))
    starts = [treatment_of(s).start(initial, one.layout, 0, pair) for s in (initialised, asymmetric)]
    return (
        one,
        one.to_rows(one.keep_trainable(starts[0][None]))[0],
        other.to_rows(other.keep_trainable(starts[1][None]))[0],
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_w_initialised_networks_start_like_w_asymmetric_ones_and_every_entry_trains(network):
    treated, initialised, asymmetric = both_starts("w_initialised", "w_asymmetric", network)
    assert torch.equal(initialised, asymmetric)
    assert treated.mask.all()


def test_w_initialised_takes_every_argument_of_w_asymmetric():
    arguments = {
        "n_fix": [3, 2, 1],
        "kappa": {"output": 2, "*": 0.5},
        "mask": "bound_zeros",
        "wholly_fixed": ["hidden.1.linear"],
    }
    _, initialised, asymmetric = both_starts(
        {"kind": "w_initialised", **arguments}, {"kind": "w_asymmetric", **arguments}
    )
    assert torch.equal(initialised, asymmetric)


def test_rescaled_networks_have_their_own_fixed_entries_and_constants():
    setting = {"kind": "w_initialised", "n_fix": 80, "kappa": 1.0, "shared": False}
    layout = treat(setting, LARGE).layout
    initial = layout.draw_initial(rng_for(0, "initial", 0))
    rows = [treatment_of(setting).start(initial, layout, 0, pair) for pair in (0, 1, 0)]
    rows.append(treatment_of(setting | {"shared": True}).start(initial, layout, 0, 0))
    assert torch.equal(rows[0], rows[2])
    places = [row != initial for row in rows]
    for a, b in ((0, 1), (0, 3)):
        assert not torch.equal(places[a], places[b])
        assert (rows[a] != rows[b])[places[a] & places[b]].all()
    assert rows[0].std() == pytest.approx(rows[3].std().item(), rel=0.02)


# Offsets and activations


def test_syre_networks_use_theta_plus_a_fixed_offset():
    treated = treat({"kind": "syre", "std": 0.1, "anisotropy": 0.2}, LARGE)
    theta = some_thetas(treated, dtype=torch.float32)
    offset = treated.held["constants"]
    assert torch.equal(treated.to_rows(theta), theta + offset)
    assert offset.std() == pytest.approx(0.1, rel=0.02)
    assert treated.mask.all()


def test_syre_decays_each_entry_at_its_own_rate():
    decay = treat({"kind": "syre", "anisotropy": 0.2}, LARGE).decay
    assert 0.8 <= decay.min() < 0.801
    assert 1.199 < decay.max() <= 1.2
    assert decay.mean() == pytest.approx(1, abs=0.005)
    assert treat("standard").decay.unique().tolist() == [1]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3, 2)])
def test_figlu_is_x_times_sigmoid_of_f_x(shape):
    generator = torch.Generator().manual_seed(0)
    F, x = (torch.randn(*s, dtype=torch.float64, generator=generator) for s in ((5, 5), shape))
    expected = x * torch.einsum("uv,bv...->bu...", F, x).sigmoid()
    torch.testing.assert_close(FiGLU(F)(x), expected, rtol=1e-12, atol=1e-12)
    assert not FiGLU(F).state_dict()


@pytest.mark.parametrize(("variance", "deviation"), [("unit", 1.0), ("inverse_width", 300**-0.5)])
def test_mixing_matrices_have_the_variance_asked_for_and_differ_by_site(variance, deviation):
    treated = treat({"kind": "sigma_asymmetric", "variance": variance}, LARGE)
    assert treated.held["F/hidden.0.activation"].std() == pytest.approx(deviation, rel=0.02)
    assert treated.held["F/hidden.0.activation"].shape == (300, 300)
    networks = treat("sigma_asymmetric", "resnet8")
    assert treated.held.keys() == {"F/hidden.0.activation", "F/hidden.1.activation"}
    same_width = networks.held["F/nonlin"], networks.held["F/layer1.0.nonlin2"]
    assert same_width[0].shape == same_width[1].shape
    assert not torch.equal(*same_width)
    assert all(isinstance(networks.module.get_submodule(site), FiGLU) for site in networks.module.sites)
