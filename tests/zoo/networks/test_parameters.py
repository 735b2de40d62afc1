import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.scenarios import NETWORKS, Network, some_thetas, treat
from zoo.networks.parameter import Parameter
from zoo.networks.parameters import ParameterLayout

LAYOUT = ParameterLayout.of(NETWORKS["mlp"].build())


@pytest.mark.parametrize("leading", [(), (3,), (2, 4)])
def test_flatten_inverts_unflatten(leading):
    rows = torch.arange(float(np.prod(leading, dtype=int) * LAYOUT.size)).view(*leading, LAYOUT.size)
    tensors = LAYOUT.unflatten(rows)
    assert {name: t.shape for name, t in tensors.items()} == {p.name: (*leading, *p.shape) for p in LAYOUT.parameters}
    assert torch.equal(LAYOUT.flatten(tensors), rows)


def test_unflatten_gives_views():
    rows = torch.ones(2, LAYOUT.size)
    tensors = LAYOUT.unflatten(rows)
    rows.zero_()
    assert all(tensor.eq(0).all() for tensor in tensors.values())
    assert all(t.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr() for t in tensors.values())


def test_a_row_is_the_parameters_of_the_module_end_to_end():
    module = NETWORKS["resnet8"].build()
    layout = ParameterLayout.of(module)
    row = nn.utils.parameters_to_vector(module.parameters()).detach()
    assert torch.equal(layout.flatten(module.state_dict()), row)
    assert all(torch.equal(row[layout.slices[name]], p.flatten()) for name, p in module.named_parameters())


def test_an_axis_has_one_length():
    first = Parameter("a.weight", (4, 3), ("hidden", "input"), "weight")
    with pytest.raises(ValueError, match=r"b.weight: axis hidden has 5 units here, 4 before"):
        ParameterLayout((first, Parameter("b.weight", (2, 5), ("output", "hidden"), "weight")))
    with pytest.raises(ValueError, match=r"b.weight: axis input has 4 units here, 3 before"):
        ParameterLayout((first, Parameter("b.weight", (2, 4), ("output", "input"), "weight")))


def test_axes_must_fit_the_shape():
    with pytest.raises(ValueError, match=r"axes .* do not fit the shape"):
        ParameterLayout((Parameter("a.weight", (4, 3), ("hidden",), "weight"),))
    module = NETWORKS["mlp"].build()
    del module.axes["output.bias"]
    with pytest.raises(ValueError, match=r"differ in \['output.bias'\]"):
        ParameterLayout.of(module)


def test_parameters_of_norms_have_their_own_roles():
    roles = {p.name: p.role for p in LAYOUT.parameters if p.name.startswith("hidden.0")}
    assert roles == {
        "hidden.0.linear.weight": "weight",
        "hidden.0.linear.bias": "bias",
        "hidden.0.norm.weight": "norm_scale",
        "hidden.0.norm.bias": "norm_shift",
    }


def random_networks():
    """Networks of any shape, among them convolutions flattened into linear maps, attention and tied weights."""
    widths, channels, units = st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(1, 3), st.integers(1, 6)
    mlp = st.builds(
        lambda w, norm, act: Network("mlp", {"widths": w, "norm": norm, "activation": act}, (w[0],)),
        widths,
        st.sampled_from(["layer", "none"]),
        st.sampled_from(["gelu", "relu", "tanh"]),
    )
    cnn = st.builds(
        lambda c, u, norm: Network("cnn", {"channels": [c, *u], "norm": norm, "padding": 1}, (c, 5, 5)),
        channels,
        st.lists(units, min_size=1, max_size=3),
        st.sampled_from(["group", "none"]),
    )
    resnet = st.builds(
        lambda b, w, c: Network("resnet", {"blocks": b, "width": w, "channels": c}, (c, 5, 4)),
        st.integers(1, 2),
        st.floats(0.05, 0.3),
        channels,
    )
    vit = st.builds(
        lambda heads, units, patch, b, c: Network(
            "vit",
            {"size": 4, "patch": patch, "channels": c, "width": heads * units, "heads": heads, "blocks": b},
            (c, 4, 4),
        ),
        st.integers(1, 3),
        units,
        st.sampled_from([1, 2]),
        st.integers(1, 2),
        channels,
    )
    flat = st.builds(
        lambda u, last: Network("flat", {"channels": u, "channels_last": last}, (2, 6, 6)), units, st.booleans()
    )
    unusual = st.builds(lambda u: Network("unusual", {"hidden": u}, (8,)), units)
    return mlp | cnn | resnet | vit | flat | unusual


@settings(deadline=None, max_examples=25)
@given(network=random_networks(), seed=st.integers(0, 2**32))
def test_permuting_hidden_units_keeps_logits_of_networks_of_any_shape(network, seed):
    treated = treat("standard", network, dtype=torch.float64)
    stack = treated.stack(some_thetas(treated, 2))
    permuted = stack.permute(treated.layout.random_permutations(np.random.default_rng(seed)))
    x = network.examples(3)
    torch.testing.assert_close(permuted.logits(x), stack.logits(x), rtol=0, atol=1e-10)


@settings(deadline=None, max_examples=20)
@given(network=random_networks(), seed=st.integers(0, 2**32), networks=st.integers(1, 4))
def test_permuting_each_row_by_its_own_permutation_equals_permuting_row_by_row(network, seed, networks):
    layout, rng = ParameterLayout.of(network.build()), np.random.default_rng(seed)
    rows = torch.arange(float(networks * layout.size)).view(networks, -1)
    drawn = [layout.random_permutations(rng) for _ in range(networks)]
    together = layout.permute(rows, {axis: torch.stack([d[axis] for d in drawn]) for axis in layout.hidden_axes})
    one_by_one = torch.stack([layout.permute(row, d) for row, d in zip(rows, drawn, strict=True)])
    assert torch.equal(together, one_by_one)
    back = {axis: torch.stack([d[axis].argsort() for d in drawn]) for axis in layout.hidden_axes}
    assert torch.equal(layout.permute(together, back), rows)


def test_new_unit_j_is_the_old_unit_at_entry_j_of_the_permutation():
    row, order = torch.arange(float(LAYOUT.size)), torch.arange(16).roll(3)
    old, new = (LAYOUT.unflatten(r) for r in (row, LAYOUT.permute(row, {"hidden0": order})))
    assert torch.equal(new["hidden.0.linear.weight"], old["hidden.0.linear.weight"][order])
    assert torch.equal(new["hidden.0.norm.bias"], old["hidden.0.norm.bias"][order])
    assert torch.equal(new["hidden.1.linear.weight"], old["hidden.1.linear.weight"][:, order])
    assert torch.equal(new["hidden.1.linear.bias"], old["hidden.1.linear.bias"])


def test_random_permutations_are_uniform():
    layout, rng = ParameterLayout.of(Network("mlp", {"widths": [2, 3, 2]}, (2,)).build()), np.random.default_rng(0)
    seen = [tuple(layout.random_permutations(rng)["hidden0"].tolist()) for _ in range(1200)]
    _, counts = np.unique(seen, axis=0, return_counts=True)
    assert len(counts) == 6
    assert (abs(counts - 200) < 60).all()


class Layers(nn.Module):
    """A linear layer and another module; the units of both have the axis `hidden`."""

    def __init__(self, other, axes=None):
        super().__init__()
        self.linear, self.other = nn.Linear(3, 4), other
        self.axes = {"linear.weight": ("hidden", "input"), "linear.bias": ("hidden",)} | (axes or {})


def tied(axes=None):
    network = Layers(nn.Linear(3, 4), {"other.bias": ("hidden",)} | (axes or {}))
    network.other.weight = network.linear.weight
    return network


def bare(roles=None):
    network = Layers(nn.Identity(), {"scale": ("hidden",)})
    network.scale, network.roles = nn.Parameter(torch.ones(4)), roles or {}
    return network


def frozen():
    network = Layers(nn.Identity())
    network.linear.weight.requires_grad_(False)
    return network


def names(flat):
    return {"other.weight": ("output", flat), "other.bias": ("output",)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Layers(nn.Dropout(0.5)),
            "other: Dropout drops units in training only; set its dropout to 0, or leave it out",
        ),
        (
            lambda: Layers(nn.BatchNorm1d(4, track_running_stats=False)),
            "other: BatchNorm1d has no running statistics with a momentum; set both",
        ),
        (
            lambda: Layers(nn.Sequential(nn.AlphaDropout())),
            "other.0: AlphaDropout drops units in training only",
        ),
        (lambda: Layers(nn.RReLU()), "other: RReLU works differently in training and in evaluation"),
        (lambda: Layers(nn.SyncBatchNorm(4)), "other: SyncBatchNorm works across processes; use BatchNorm"),
        (lambda: Layers(nn.InstanceNorm1d(4, track_running_stats=True)), "other: InstanceNorm1d works differently"),
        (lambda: Layers(nn.MultiheadAttention(4, 2, dropout=0.1)), "other: MultiheadAttention drops units in training"),
        (bare, "scale: no layer or norm of PyTorch says what this parameter of Layers does; name its role in `roles`"),
        (frozen, "linear.weight: is a parameter that requires no gradient; make it a buffer"),
        (lambda: bare(roles={"scale": "bias"}), "scale: is the bias of no layer with a weight; its role is shift"),
        (lambda: Layers(nn.ConvTranspose2d(4, 4, 3)), "other: ConvTranspose2d has inputs before outputs in its weight"),
        (lambda: Layers(nn.Conv2d(4, 4, 3, groups=2)), "other: Conv2d has groups of several inputs"),
        (lambda: Layers(nn.Embedding(9, 4, padding_idx=0)), "other: Embedding has a row that does not train"),
        (
            lambda: Layers(nn.GroupNorm(2, 4), {"other.weight": ("hidden",), "other.bias": ("hidden",)}),
            "other: GroupNorm treats its 4 units in 2 groups; name them as blocks in the axes of its weight",
        ),
        (lambda: Layers(nn.Linear(5, 2), names((("hidden", 5), "input"))), "other.weight: .* is no product, which is"),
        (lambda: bare(roles={"scale": "gain"}), "scale: there is no role 'gain'; use one of weight, bias"),
        (lambda: bare(roles={"skale": "scale"}), r"roles: \['skale'\] are no parameters"),
        (
            lambda: tied({"other.weight": ("hidden", "input")}),
            "other.weight: is the same tensor as linear.weight; give its axes under that name alone",
        ),
        (lambda: Layers(nn.Linear(4, 2)), r"axes and parameters differ in \['other.bias', 'other.weight'\]"),
        (lambda: Layers(nn.Linear(9, 2), names("flat")), "other.weight: no parameter writes the units of flat"),
        (
            lambda: Layers(nn.Linear(9, 2), names((("hidden", 4), (None, 2)))),
            "other.weight: the factors of .* do not multiply to the length 9",
        ),
        (
            lambda: Layers(nn.Linear(4, 2), names((("a", 2), ("hidden", 2)))),
            "other.weight: axis hidden has blocks .*",
        ),
        (
            lambda: Layers(nn.Linear(16, 2), names((("a", 2), (None, 2), ("b", 4)))),
            "other.weight: .* is neither an axis times positions nor blocks of units",
        ),
    ],
)
def test_modules_that_a_row_does_not_determine_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        ParameterLayout.of(make())
    assert "\n" not in str(caught.value)
