from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.nn import MeanAggregation

from metanets.graph import ParameterGraph
from metanets.inputs import Tensors
from metanets.models.gmn import GMN, EdgeMeans
from metanets.models.graph import Moments, RunningNorm
from metanets.models.neural_graph_transformer import NeuralGraphTransformer
from metanets.models.scale_gmn import Rescaling, ScaleGMN
from tests.scenarios import NETWORKS, Network, some_thetas, treat
from zoo.errors import TaskError

READ = [(model, name, None) for model in (GMN, NeuralGraphTransformer) for name in NETWORKS]
HOMOGENEOUS = [
    (ScaleGMN, name, activation)
    for name in NETWORKS
    for activation in ("relu", "tanh")
    if name not in ("vit", "unusual", "skip")  # which have units without activation, lone scales, depthwise kernels
]
FEW = ("mlp_plain", "cnn_norm", "resnet8")
CASE = pytest.mark.parametrize(("model", "name", "activation"), READ + HOMOGENEOUS)
HOMOGENEOUS_CASE = pytest.mark.parametrize(("model", "name", "activation"), HOMOGENEOUS)
FEW_CASES = pytest.mark.parametrize(
    ("model", "name", "activation"), [case for case in READ + HOMOGENEOUS if case[1] in FEW]
)
AFFINE = ("norm_scale", "norm_shift")  # of a norm, which scale what it gives
SMALL_CASE = pytest.mark.parametrize("model", [GMN, NeuralGraphTransformer, ScaleGMN])


def some_networks(network, activation=None, networks=3, seed=0):
    """Treated networks in general position, their reader, and their rows, in float64."""
    network = NETWORKS[network] if isinstance(network, str) else network
    if activation is not None:
        network = replace(network, arguments=network.arguments | {"activation": activation})
    treated = treat("standard", network, dtype=torch.float64)
    rows = treated.to_rows(some_thetas(treated, networks, seed))
    return treated, Tensors.of(treated).double().fit(rows), rows


def build(model, reader, **options):
    """A metanetwork that nobody trained, no weight of it zero."""
    torch.manual_seed(0)
    network = model(reader, **options).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def graph_of(model, x):
    return model.graph(model.canonical(x) if isinstance(model, ScaleGMN) else x)


def scaling_of(layout, activation, seed=0):
    """What multiplies each entry when hidden units choose another scale, or sign for tanh, entry by entry."""
    rng = np.random.default_rng(seed)
    drawn = {
        axis: np.exp(rng.normal(size=layout.axes[axis]))
        if activation == "relu"
        else rng.choice([-1.0, 1.0], layout.axes[axis])
        for axis in layout.hidden_axes
    }
    normed = {p.axes[0] for p in layout.parameters if p.role == "norm_scale"}
    factors = []
    for parameter in layout.split.parameters:
        factor = np.ones(parameter.shape)
        for place in np.ndindex(*parameter.shape):
            for dim, axis in enumerate(parameter.axes):
                if axis in drawn and dim > 0:
                    factor[place] /= drawn[axis][place[dim]]
                elif axis in drawn and (axis not in normed or parameter.role in AFFINE):
                    factor[place] *= drawn[axis][place[0]]
        factors.append(factor.ravel())
    return torch.from_numpy(np.concatenate(factors))


@CASE
def test_predictions_do_not_depend_on_the_order_of_hidden_units(model, name, activation):
    treated, reader, rows = some_networks(name, activation)
    network = build(model, reader)
    permuted = treated.layout.permute(rows, treated.layout.random_permutations(np.random.default_rng(0)))
    predicted = network(reader(rows))
    assert predicted.std() > 1e-6
    torch.testing.assert_close(network(reader(permuted)), predicted, rtol=0, atol=1e-11)


@FEW_CASES
@pytest.mark.parametrize("axis", ["input", "output"])
def test_predictions_depend_on_the_order_of_inputs_and_classes(model, name, activation, axis):
    treated, reader, rows = some_networks(name, activation)
    units = treated.layout.axes[axis]
    if units == 1:
        pytest.skip("one input has one order")
    network = build(model, reader)
    flipped = rows[:, treated.layout.permutation_index({axis: torch.arange(units).flip(0)})]
    assert (network(reader(flipped)) - network(reader(rows))).abs().max() > 1e-7


@FEW_CASES
def test_predictions_depend_on_every_tensor(model, name, activation):
    treated, reader, rows = some_networks(name, activation)
    x = reader(rows).requires_grad_()
    (gradient,) = torch.autograd.grad(build(model, reader)(x).sum(), x)
    assert gradient.isfinite().all()
    for tensor, where in treated.layout.slices.items():
        assert (gradient[:, where].abs().amax(1) > 1e-9).all(), tensor


@HOMOGENEOUS_CASE
def test_scaling_hidden_units_changes_neither_logits_nor_predictions_of_scale_gmn(model, name, activation):
    treated, reader, rows = some_networks(name, activation)
    scaled = rows * scaling_of(treated.layout, activation)
    examples = NETWORKS[name].examples()
    before, after = (treated.stack(r).logits(examples) for r in (rows, scaled))
    torch.testing.assert_close(after, before)
    network, other = build(model, reader), build(GMN, reader)
    torch.testing.assert_close(network(reader(scaled)), network(reader(rows)), rtol=0, atol=1e-11)
    assert (other(reader(scaled)) - other(reader(rows))).abs().max() > 1e-7


@HOMOGENEOUS_CASE
def test_scale_gmn_sees_outgoing_weights_that_nothing_makes_up_for(model, name, activation):
    treated, reader, rows = some_networks(name, activation)
    layout, scaled = treated.layout, rows.clone()
    outgoing = next(p for p in layout.split.parameters if set(p.axes[1:]) & set(layout.hidden_axes))
    where = layout.slices[outgoing.name]
    scaled[:, where] *= scaling_of(layout, activation)[where]
    network = build(model, reader)
    assert (network(reader(scaled)) - network(reader(rows))).abs().max() > 1e-7


@pytest.mark.parametrize("name", [name for _, name, activation in HOMOGENEOUS if activation == "relu"])
def test_rescaled_relu_networks_compute_the_same_with_incoming_weights_of_norm_one(name):
    treated, reader, rows = some_networks(name, "relu")
    rescaled = Rescaling(treated.layout, reader.activations)(rows)
    examples = NETWORKS[name].examples()
    before, after = (treated.stack(r).logits(examples) for r in (rows, rescaled))
    torch.testing.assert_close(after, before)
    tensors = treated.layout.unflatten(rescaled)
    for axis in treated.layout.hidden_axes:
        own = [p for p in treated.layout.parameters if p.axes[0] == axis]
        own = [p for p in own if p.role in AFFINE] or own
        entries = torch.cat(
            [tensors[p.name].flatten(2) if len(p.shape) > 1 else tensors[p.name][..., None] for p in own], -1
        )
        torch.testing.assert_close(entries.square().mean(-1), torch.ones_like(entries[..., 0]))


def test_a_unit_without_incoming_weights_is_the_same_whatever_its_outgoing_ones():
    treated, reader, rows = some_networks("mlp_plain", "relu")
    tensors = treated.layout.unflatten(rows)
    tensors["hidden.0.linear.weight"][:, 3] = tensors["hidden.0.linear.bias"][:, 3] = 0
    silent = treated.layout.flatten(tensors)
    treated.layout.unflatten(rows)["hidden.1.linear.weight"][:, :, 3] *= -2
    other = treated.layout.flatten(treated.layout.unflatten(rows))
    assert not torch.equal(silent, other)
    network = build(ScaleGMN, reader)
    x = reader(silent).requires_grad_()
    predicted = network(x)
    torch.testing.assert_close(network(reader(other)), predicted, rtol=0, atol=1e-11)
    assert torch.autograd.grad(predicted.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize(("setting", "activation"), [("standard", "GELU"), ("sigma_asymmetric", "FiGLU")])
def test_scale_gmn_says_which_activations_it_reads(setting, activation):
    with pytest.raises(TaskError, match=f"^scale_gmn reads networks with ReLU or tanh throughout, not {activation}$"):
        ScaleGMN(Tensors.of(treat(setting, "mlp")))


@FEW_CASES
def test_a_disjoint_union_gives_what_the_shared_graph_gives(model, name, activation):
    _, reader, rows = some_networks(name, activation)
    network, x = build(model, reader), reader(rows)
    union = Batch.from_data_list([graph_of(network, one) for one in x])
    torch.testing.assert_close(network(union), network(x), rtol=0, atol=1e-11)


@SMALL_CASE
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_networks_of_two_architectures_go_together(model, activation):
    networks, graphs = [], []
    for widths in ([8, 6, 4], [8, 5, 7, 4]):
        _, reader, rows = some_networks(Network("mlp", {"widths": widths}, (8,)), activation, networks=2)
        networks.append(build(model, reader))
        graphs += [graph_of(networks[-1], one) for one in reader(rows)]
    together = networks[0](Batch.from_data_list(graphs))
    alone = torch.cat([networks[0](Batch.from_data_list([graph])) for graph in graphs])
    assert alone.std() > 1e-6
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("model", "activation"), [(NeuralGraphTransformer, "relu"), (ScaleGMN, "relu"), (ScaleGMN, "tanh")]
)
def test_the_sum_over_paths_of_absolute_products_is_learned(model, activation):
    network = Network("mlp", {"widths": [2, 4, 2], "norm": "none"}, (2,))
    treated, reader, rows = some_networks(network, activation, networks=384)
    tensors = treated.layout.unflatten(rows)
    y = (tensors["output.weight"].abs() @ tensors["hidden.0.linear.weight"].abs()).sum((1, 2)).log()
    x, y = reader(rows).float(), ((y - y.mean()) / y.std()).float()
    learner = build(model, reader, layers=2).float().train()
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        (learner(x[:256])[:, 0] - y[:256]).square().mean().backward()
        optimizer.step()
    errors = (learner.eval()(x[256:])[:, 0] - y[256:]).detach()
    assert 1 - errors.square().mean() / y[256:].var() > 0.6


def test_running_norm_is_batch_normalisation_by_the_statistics_of_batches_before():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = RunningNorm(3).double(), torch.nn.BatchNorm1d(3, affine=False).double()
    for _ in range(5):
        x = 2 + 3 * torch.randn(4, 50, 3, dtype=torch.float64, generator=generator)
        theirs.train()(x.flatten(0, 1))
        ours.train()(x)
    torch.testing.assert_close(ours.eval()(x).flatten(0, 1), theirs.eval()(x.flatten(0, 1)), rtol=1e-2, atol=1e-2)
    assert torch.equal(ours(x), ours(x))


def assert_same_gradients(ours, plain, states, generator):
    torch.testing.assert_close(ours, plain)
    weight = torch.randn(ours.shape, dtype=torch.float64, generator=generator)
    own, other = (torch.autograd.grad((weight * x).sum(), states)[0] for x in (ours, plain))
    torch.testing.assert_close(own, other)


def test_moments_and_their_gradients_are_those_of_plain_means():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(30, 2, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    lengths = [4, 1, 20, 5]
    group = torch.arange(4).repeat_interleave(torch.tensor(lengths))
    plain = [MeanAggregation()(x.flatten(1), group).view(4, 2, 3) for x in (states.relu(), states.square())]
    assert_same_gradients(Moments.apply(states, lengths), torch.stack(plain), states, generator)


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_means_of_edges_at_nodes_and_their_gradients_are_those_of_message_passing(name):
    generator = torch.Generator().manual_seed(0)
    treated, _, rows = some_networks(name, networks=2)
    shared, alone = (ParameterGraph(treated.layout)(some) for some in (rows, rows[0]))
    edges = torch.randn(len(shared.edge_kind), 2, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    means = EdgeMeans()
    plain = torch.stack([means(edges[:, n], alone) for n in range(2)], 2)
    assert_same_gradients(means(edges, shared), plain, edges, generator)
