import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from torch_geometric.nn import MeanAggregation

from metanets.graph import DEPTH_CODE, KIND_CODES, KINDS, PLACES, ParameterGraph, encode_depth, largest, with_kernel
from metanets.incidence import EdgeMean
from tests.scenarios import NETWORKS, some_thetas, treat
from zoo.errors import TaskError
from zoo.networks.parameter import IDENTIFIED, Parameter
from zoo.networks.parameters import ParameterLayout

ON_EVERY_NETWORK = pytest.mark.parametrize("network", NETWORKS)
RESIDUAL = KINDS.index("residual")


def graph_of(network, setting="standard"):
    treated = treat(setting, network)
    return treated.layout, ParameterGraph(treated.layout, treated.mask)


def kinds(graph):
    return (graph.edge_code[:, None, : KIND_CODES.shape[1]] == KIND_CODES).all(2).int().argmax(1)


def first_nodes(layout):
    """The first node of each axis."""
    starts = np.cumsum([0, *layout.axes.values()])[:-1].tolist()
    return dict(zip(layout.axes, starts, strict=True))


@ON_EVERY_NETWORK
@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_a_graph_becomes_the_rows_that_it_was_made_of(network, shape):
    layout, graph = graph_of(network)
    rows = torch.randn(*shape, layout.size, dtype=torch.float64)
    made = graph(rows)
    assert made.edge_attr.shape == (len(graph.edge_tensor), *shape, graph.columns.shape[1])
    assert torch.equal(graph.rows(made), rows)


@ON_EVERY_NETWORK
def test_nodes_are_units_and_edges_are_kernels_biases_norms_and_residual_additions(network):
    layout, graph = graph_of(network)
    made = graph(torch.randn(layout.size))
    without_units = any(set(parameter.axes) <= {None} for parameter in layout.parameters)
    assert made.num_nodes == sum(layout.axes.values()) + without_units
    assert len(made.edge_index.unique()) == made.num_nodes
    counts = torch.bincount(kinds(graph), minlength=len(KINDS)).tolist()
    found, expected = dict(zip(KINDS, counts, strict=True)), dict.fromkeys(KINDS, 0)
    for parameter in layout.split.parameters:
        units = [n for axis, n in zip(parameter.axes, parameter.shape, strict=True) if axis is not None]
        expected[parameter.role] += int(np.prod(units))
    expected["block"] = sum(layout.axes[inner] for inner in layout.blocks)
    expected["residual"] = found["residual"]
    assert found == expected
    assert (found["residual"] > 0) == network.startswith(("resnet", "gnn", "vit", "skip", "unusual"))


@ON_EVERY_NETWORK
def test_the_edge_between_two_units_holds_their_kernel_in_the_middle_of_the_largest(network):
    layout, graph = graph_of(network)
    row = torch.randn(layout.size)
    made, tensors, first = graph(row), layout.split.unflatten(row), first_nodes(layout)
    for number, parameter in enumerate(layout.split.parameters):
        where = made.edge_tensor == number
        units = [(dim, axis) for dim, axis in enumerate(parameter.axes) if axis is not None]
        tensor = tensors[parameter.name].movedim([dim for dim, _ in units], list(range(len(units))))
        ends = made.edge_index[:, where]
        ends = ends if parameter.role == "embedding" else ends.flip(0)  # of others, dimension 0 is the target
        if len(units) == 2:
            entries = tensor[tuple(ends[i] - first[axis] for i, (_, axis) in enumerate(units))]
        else:
            assert torch.equal(*ends)
            entries = tensor[ends[0] - first[units[0][1]]] if units else tensor[None]
        kernels = entries.reshape(
            len(entries), *(1,) * (len(made.kernel) + len(units) - tensor.ndim), *tensor.shape[len(units) :]
        )
        values = made.edge_attr[where].view(-1, *made.kernel)
        for dim, (length, room) in enumerate(zip(kernels.shape[1:], made.kernel, strict=True), start=1):
            values = values.narrow(dim, (room - 1) // 2 - (length - 1) // 2, length)
        assert torch.equal(values, kernels)
        total = made.edge_attr[where].abs().sum()
        assert total == pytest.approx(float(kernels.abs().sum()), rel=1e-5)  # all else is zero


@pytest.mark.parametrize("network", ["resnet8", "resnet14"])
def test_a_residual_addition_is_an_edge_of_value_one_from_each_unit_of_a_stream_to_itself(network):
    layout, graph = graph_of(network)
    made = graph(torch.zeros(2, layout.size))
    residual = kinds(graph) == RESIDUAL
    assert torch.equal(made.edge_index[0, residual], made.edge_index[1, residual])
    middle = made.edge_attr.shape[-1] // 2
    values = made.edge_attr[residual]
    assert (values[..., middle] == 1).all()
    assert values.sum() == values.shape[0] * values.shape[1]
    first = first_nodes(layout)
    for axis, length in layout.axes.items():
        writers = sum(weight.axes[0] == axis for weight in layout.weights)
        units = range(first[axis], first[axis] + length)
        additions = sum(int(made.edge_index[0, residual].eq(unit).sum()) for unit in units)
        assert additions == length * max(0, writers - 1)


@ON_EVERY_NETWORK
def test_fixed_entries_are_marked_where_they_stand(network):
    treated = treat("w_asymmetric", network)
    graph = ParameterGraph(treated.layout, treated.mask)
    assert not treated.mask.all()
    marks = graph.edge_code[:, KIND_CODES.shape[1] + DEPTH_CODE :]
    as_values = graph((~treated.mask).float()[None]).edge_attr[:, 0]
    trained = (kinds(graph) != RESIDUAL) & (kinds(graph) != KINDS.index("block"))
    assert torch.equal(marks[trained], as_values[trained])
    assert not marks[~trained].any()
    assert not ParameterGraph(treated.layout).edge_code[:, KIND_CODES.shape[1] + DEPTH_CODE :].any()


@ON_EVERY_NETWORK
def test_hidden_units_of_a_layer_look_alike_and_inputs_and_outputs_do_not(network):
    layout, graph = graph_of(network)
    first, identified = first_nodes(layout), []
    for axis, length in layout.axes.items():
        units = slice(first[axis], first[axis] + length)
        assert (graph.x[units] == graph.x[first[axis]]).all()
        place = axis if axis in IDENTIFIED else "hidden"
        assert graph.x[first[axis], : len(PLACES)].argmax() == PLACES.index(place)
        if axis in IDENTIFIED:
            identified += graph.unit[units].tolist()
        else:
            assert not graph.unit[units].any()
    inputs, outputs = layout.axes["input"], layout.axes["output"]
    assert sorted(identified) == [*range(-outputs, 0), *range(1, inputs + 1)]


def test_layers_are_numbered_from_the_input():
    layout, graph = graph_of("mlp")
    first = first_nodes(layout)
    depths = [graph.x[first[axis], len(PLACES) :] for axis in ("input", "hidden0", "hidden1", "output")]
    torch.testing.assert_close(torch.stack(depths), encode_depth(torch.arange(4)))
    codes = encode_depth(torch.arange(60))
    assert torch.cdist(codes, codes).add(torch.eye(60)).min() > 0.01


def edges_relabelled(made, labels):
    """Edges with their codes and values, in the order of kind, tensor and relabelled ends."""
    source, target = labels[made.edge_index]
    order = np.lexsort((target, source, made.edge_tensor))
    table = torch.cat([torch.stack([source, target, made.edge_tensor], 1), made.edge_code, made.edge_attr], 1)
    return table[order]


@given(
    network=st.sampled_from([name for name in NETWORKS if name != "resnet14"]),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
@budget(max_examples=25, deadline=None)
def test_permuting_units_relabels_the_graph(network, seed, data):
    treated = treat("standard", network)
    layout, graph = treated.layout, ParameterGraph(treated.layout)
    rng = np.random.default_rng(seed)
    together = [layout.blocks.get(axis, axis) for axis in layout.hidden_axes]  # blocks move with what is in them
    some = data.draw(st.sets(st.sampled_from(together), min_size=1))
    drawn = layout.random_permutations(rng)
    permutations = {
        axis: drawn[axis] for axis, outer in zip(layout.hidden_axes, together, strict=True) if outer in some
    }
    row = some_thetas(treated, 1, seed=seed)[0]
    labels, first = torch.arange(len(graph.x)), first_nodes(layout)
    for axis, permutation in permutations.items():
        labels[first[axis] + torch.arange(len(permutation))] = first[axis] + permutation
    own = torch.arange(len(graph.x))
    permuted, original = graph(layout.permute(row, permutations)), graph(row)
    assert torch.equal(edges_relabelled(permuted, labels), edges_relabelled(original, own))
    assert torch.equal(permuted.x[labels], original.x)
    moved = any((permutation != torch.arange(len(permutation))).any() for permutation in permutations.values())
    assert torch.equal(edges_relabelled(permuted, own), edges_relabelled(original, own)) != moved


def test_a_graph_moves_to_another_precision_with_its_module():
    layout, graph = graph_of("cnn")
    made = graph.double()(torch.randn(2, layout.size, dtype=torch.float64))
    assert made.x.dtype == made.edge_code.dtype == made.edge_attr.dtype == torch.float64
    assert made.edge_index.dtype == made.unit.dtype == torch.int64
    assert graph.state_dict() == {}


@pytest.mark.parametrize("shape", [(), (3,), (3, 2)])
def test_edge_mean_is_the_mean_aggregation_of_pyg(shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, *shape, 4, dtype=torch.float64, generator=generator)
    index = torch.randint(6, (40,), generator=generator)  # two of eight groups are empty
    expected = MeanAggregation()(x.flatten(1), index, dim_size=8, dim=0).view(8, *shape, 4)
    torch.testing.assert_close(EdgeMean()(x, index, dim_size=8, dim=0), expected)
    assert not EdgeMean()(x, index, dim_size=8, dim=0)[6:].any()


def test_depthwise_kernels_lead_from_each_channel_to_itself():
    layout = ParameterLayout(
        (
            Parameter("first", (4, 2, 3, 3), ("hidden", "input", None, None), "weight"),
            Parameter("depthwise", (4, 1, 3, 3), ("hidden", None, None, None), "weight"),
            Parameter("last", (3, 4), ("output", "hidden"), "weight"),
        )
    )
    graph, rows = ParameterGraph(layout), torch.randn(2, layout.size)
    own = graph.edge_index[:, graph.edge_tensor == 1]
    assert torch.equal(own[0], own[1])
    assert torch.equal(graph.axis[own[0]], torch.zeros(4, dtype=torch.long))
    assert torch.equal(graph.rows(graph(rows)), rows)


@pytest.mark.parametrize("network", ["mlp", "cnn", "flat", "vit"])
def test_room_for_larger_kernels_is_the_same_from_the_start_and_later(network):
    treated = treat("w_asymmetric", network)
    graph = ParameterGraph(treated.layout, treated.mask)
    wide = ParameterGraph(treated.layout, treated.mask, kernel=largest([graph.kernel, (5, 5)]))
    row = torch.randn(treated.layout.size)
    small, large = graph(row), wide(row)
    found = with_kernel(small, wide.kernel)
    assert found.keys() == large.keys()
    assert all(torch.equal(found[name], large[name]) for name in large.keys() if name != "kernel")  # noqa: SIM118
    assert torch.equal(wide.rows(found), row)
    assert with_kernel(small, small.kernel) is small
    with pytest.raises(TaskError, match=r"graph: its kernels are .*, which do not fit in \(1, 1\); take a larger"):
        with_kernel(large, (1, 1))


def test_a_parameter_of_three_axes_has_no_graph():
    layout = ParameterLayout((Parameter("form", (2, 3, 4), ("output", "a", "b"), "weight"),))
    with pytest.raises(TaskError, match=r"form: connects units of output, a, b; an edge of a graph connects two units"):
        ParameterGraph(layout)
