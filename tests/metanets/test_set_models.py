import numpy as np
import pytest
import torch

from metanets.inputs import Tensors
from metanets.models.deepsets import DeepSets, MeanReLU
from metanets.models.dmc import DMC
from metanets.models.set_transformer import SetTransformer
from tests.scenarios import NETWORKS, Network, some_thetas, treat
from zoo.recipes.recipe import Recipe
from zoo.seeds import rng_for

MODEL = pytest.mark.parametrize("model", [DeepSets, DMC, SetTransformer])
INVARIANT = pytest.mark.parametrize("model", [DeepSets, SetTransformer])
NETWORK = pytest.mark.parametrize("network", NETWORKS)


def some_inputs(network, setting="standard", networks=3, include_fixed=False):
    """A reader in double precision, and what it makes of networks in general position."""
    treated = treat(setting, network, dtype=torch.float64)
    rows = treated.to_rows(some_thetas(treated, networks)).double()
    reader = Tensors.of(treated, include_fixed=include_fixed).double().fit(rows)
    return reader, reader(rows)


def build(model, reader):
    torch.manual_seed(0)
    return model(reader).double()


def permute_hidden(layout, x):
    return layout.permute(x, layout.random_permutations(rng_for(1, "permutation"), len(x)))


def reverse(layout, x, axis):
    """Networks whose units of one axis, which may be an identified one, stand in reverse order."""
    return x[:, layout.permutation_index({axis: torch.arange(layout.axes[axis]).flip(0)})]


@INVARIANT
@NETWORK
def test_permuting_hidden_units_keeps_predictions(model, network):
    reader, x = some_inputs(network)
    metanetwork = build(model, reader)
    assert not torch.equal(permute_hidden(reader.layout, x), x)
    torch.testing.assert_close(metanetwork(permute_hidden(reader.layout, x)), metanetwork(x), rtol=0, atol=1e-12)
    assert metanetwork(x).std() > 1e-4


@NETWORK
def test_permuting_hidden_units_changes_what_convolutions_along_the_row_predict(network):
    reader, x = some_inputs(network)
    metanetwork = build(DMC, reader)
    assert (metanetwork(permute_hidden(reader.layout, x)) - metanetwork(x)).abs().min() > 1e-4


@NETWORK
def test_set_transformer_tells_inputs_and_outputs_apart(network):
    reader, x = some_inputs(network)
    metanetwork = build(SetTransformer, reader)
    for axis in ("input", "output"):
        if reader.layout.axes[axis] > 1:
            assert (metanetwork(reverse(reader.layout, x, axis)) - metanetwork(x)).abs().min() > 1e-6


def test_set_transformer_tells_which_bias_belongs_to_which_weights():
    reader, x = some_inputs("mlp")
    metanetwork, where, changed = build(SetTransformer, reader), reader.layout.slices["hidden.0.linear.bias"], x.clone()
    changed[:, where] = x[:, where].flip(1)
    assert (metanetwork(changed) - metanetwork(x)).abs().min() > 1e-6


def test_set_transformer_has_a_token_for_each_unit():
    reader = Tensors.of(Recipe.load("digits-mlp").treat("standard"))
    assert len(SetTransformer(reader).code) == 32 + 32 + 10


def test_set_transformer_describes_units_with_more_than_256_inputs_by_statistics():
    reader, x = some_inputs(Network("mlp", {"widths": [257, 6, 4]}, (257,)))
    metanetwork = build(SetTransformer, reader)
    torch.testing.assert_close(metanetwork(reverse(reader.layout, x, "input")), metanetwork(x), rtol=0, atol=1e-12)


def test_deepsets_tells_entries_of_one_tensor_from_those_of_another_but_not_among_themselves():
    reader, x = some_inputs("mlp")
    metanetwork = build(DeepSets, reader)
    scale, shift = (reader.layout.slices[f"hidden.0.norm.{kind}"] for kind in ("weight", "bias"))
    among, between = x.clone(), x.clone()
    among[:, scale] = x[:, scale].flip(1)
    between[:, scale], between[:, shift] = x[:, shift], x[:, scale]
    torch.testing.assert_close(metanetwork(among), metanetwork(x), rtol=0, atol=1e-12)
    assert (metanetwork(between) - metanetwork(x)).abs().min() > 1e-6


def test_mean_relu_by_sorting_is_that_over_embedded_entries_and_so_are_its_gradients():
    torch.manual_seed(0)
    mean_relu, x = MeanReLU(16).double(), torch.randn(5, 37, dtype=torch.float64, requires_grad=True)
    by_sorting, plain = mean_relu(x), (x[..., None] * mean_relu.weight[:, 0] + mean_relu.bias).relu().mean(1)
    torch.testing.assert_close(by_sorting, plain, rtol=0, atol=1e-12)
    weights, inputs = torch.randn_like(plain), [*mean_relu.parameters(), x]
    gradients = [torch.autograd.grad((mean * weights).sum(), inputs) for mean in (by_sorting, plain)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("recipe", "convolutions"), [("digits-mlp", 8), ("cifar10-resnet8", 10)])
def test_convolutions_along_the_row_halve_it_until_it_is_short_ten_times_at_most(recipe, convolutions):
    metanetwork = DMC(Tensors.of(Recipe.load(recipe).treat("standard")))
    assert len(metanetwork.convolutions) == 2 * convolutions  # each with its activation
    with torch.no_grad():
        positions = metanetwork.convolutions(torch.zeros(1, 1, len(metanetwork.columns))).shape[2]
    assert positions == -(-len(metanetwork.columns) // 2**convolutions)


@MODEL
@NETWORK
def test_a_prediction_does_not_depend_on_its_batch_and_every_parameter_learns(model, network):
    reader, x = some_inputs(network)
    metanetwork = build(model, reader)
    one_by_one = torch.cat([metanetwork(one[None]) for one in x])
    torch.testing.assert_close(metanetwork(x), one_by_one, rtol=0, atol=1e-12)
    metanetwork(x).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in metanetwork.parameters())


@MODEL
@pytest.mark.parametrize("include_fixed", [False, True])
def test_entries_that_are_not_read_do_not_matter(model, include_fixed):
    reader, x = some_inputs("mlp", "w_asymmetric", include_fixed=include_fixed)
    metanetwork = build(model, reader)
    changed = torch.where(reader.mask, x, x + 1)
    difference = (metanetwork(changed) - metanetwork(x)).abs()
    assert difference.min() > 1e-6 if include_fixed else difference.max() == 0


@MODEL
def test_the_spread_of_weights_can_be_learnt(model):
    rng = np.random.default_rng(0)
    treated = treat("standard", "mlp")
    spread = torch.from_numpy(rng.uniform(-1, 1, 128)).float()
    x = spread.exp()[:, None] * torch.from_numpy(rng.standard_normal((128, treated.layout.size))).float()
    torch.manual_seed(0)
    metanetwork = model(Tensors.of(treated))
    optimizer = torch.optim.AdamW(metanetwork.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        (metanetwork(x[:96])[:, 0] - spread[:96]).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        left = (metanetwork(x[96:])[:, 0] - spread[96:]).square().mean() / spread[96:].var()
    assert left < 0.3
