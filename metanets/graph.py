"""The parameter graph: a node for each unit, an edge for each weight, derived from the axes of a layout.

Networks of one architecture share the graph and differ only in the values on its edges. The values of N networks stand
side by side, `(E, N, kernel)`, so one list of edges serves them all. Networks of several architectures go through
PyG's disjoint union, `(E, kernel)`. Every graph metanetwork takes either form.

Source: Lim et al. 2023, *Graph Metanetworks for Processing Diverse Neural Architectures*,
https://arxiv.org/abs/2312.04501; Kofinas et al. 2024, *Graph Neural Networks for Learning Equivariant Representations
of Neural Networks*, https://arxiv.org/abs/2403.12143.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from math import prod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch_geometric.data import Data

from metanets.incidence import Incidence
from zoo.errors import TaskError
from zoo.networks.parameter import IDENTIFIED, Parameter
from zoo.networks.parameters import ParameterLayout

FIRST_KINDS = ("weight", "bias", "norm_scale", "norm_shift", "residual")
KINDS = (*FIRST_KINDS, "norm_mean", "norm_variance", "scale", "shift", "embedding", "block")
# The code of one of the first kinds has a single 1, that of another two, so that all graphs have codes of one length.
ONES = [*((i,) for i in range(len(FIRST_KINDS))), *combinations(range(len(FIRST_KINDS)), 2)]
KIND_CODES = torch.tensor([[float(i in ones) for i in range(len(FIRST_KINDS))] for ones in ONES[: len(KINDS)]])
PLACES = ("input", "hidden", "output")
FREQUENCIES = 4
DEPTH_CODE = 2 * FREQUENCIES
NETWORK = "network"  # axis of the node of parameters without units


class ParameterGraph(nn.Module):
    """Turns rows into graphs, and graphs back into rows.

    There is a node for each unit of each axis. There is an edge from an input unit to an output unit for each weight or
    kernel; the entries of the kernel, or of all positions that the two units share, are the edge's values, with zeros
    around kernels smaller than the largest. Edges from a unit to itself stand for its depthwise kernel, bias, norm
    scale and so on, and, with value 1, for each further weight that writes the unit, as in a residual addition. An edge
    with value 1 leads from each block, such as an attention head, to the units in it. Parameters without units are
    edges from one further node to itself.

    Arguments:
        layout: Layout of the rows.
        mask: True unless entries are held constant, `(P,)`; those are marked as fixed on the edges. By default none is.
        kernel: Lengths of the largest kernel that edges have room for, by default of the largest in the layout.

    Attributes:
        x: Whether a node is input, hidden or output, and the depth of its layer, `(nodes, codes)`.
        unit: Number of a node among inputs, 1, 2, ..., or among outputs, -1, -2, ...; 0 for all others, `(nodes,)`.
        axis: Number of the axis of the layout that a node is a unit of, `(nodes,)`.
        kernel: Lengths of the largest kernel, such as `(3, 3)`.
        edge_index: Source and target node of each edge, `(2, E)`.
        edge_kind: Position of an edge's kind in `KINDS`, `(E,)`.
        edge_code: Kind, depth of the layer, and which entries are fixed, `(E, codes)`.
        edge_tensor: Number of the tensor of the layout that an edge is from, `(E,)`; residual additions come last.
        columns: Positions in a row of each edge's values, `(E, kernel)`; P stands for 0 and P + 1 for 1.
        incidence: Means of edges at nodes.
        runs: Numbers of edges of each tensor, and of nodes of each axis, on the host.

    Raises:
        TaskError: If a parameter connects more than two units, or its kernel is too large.
    """

    x: Tensor
    unit: Tensor
    axis: Tensor
    edge_index: Tensor
    edge_kind: Tensor
    edge_code: Tensor
    edge_tensor: Tensor
    columns: Tensor

    def __init__(
        self,
        layout: ParameterLayout,
        mask: Bool[Tensor, " parameters"] | None = None,
        kernel: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        tensors = layout.split
        self.layout = layout
        self.kernel = largest(filter(None, map(_positions, tensors.parameters))) if kernel is None else tuple(kernel)
        lengths = layout.axes | ({} if all(map(_units, tensors.parameters)) else {NETWORK: 1})
        nodes = dict(zip(lengths, torch.arange(sum(lengths.values())).split(list(lengths.values())), strict=True))
        depth, writers = _depths(tensors)
        groups = [*_parameter_edges(tensors, nodes, self.kernel), *_constant_edges(layout, nodes, depth, writers)]

        sizes = torch.tensor([group.ends.shape[1] for group in groups])
        fixed = torch.zeros(layout.size + 2)
        fixed[: layout.size] = 0 if mask is None else ~mask.cpu()
        columns = [_pad(group.columns, group.positions, self.kernel, layout.size) for group in groups]
        index, ends = torch.cat(columns), torch.cat([group.ends for group in groups], 1)
        kind = torch.tensor([KINDS.index(group.kind) for group in groups]).repeat_interleave(sizes)
        layer = encode_depth(torch.tensor([group.layer for group in groups])).repeat_interleave(sizes, 0)
        self.register_buffer("edge_index", ends, persistent=False)
        self.register_buffer("edge_kind", kind, persistent=False)
        self.register_buffer("edge_code", torch.cat([KIND_CODES[kind], layer, fixed[index]], 1), persistent=False)
        self.register_buffer("edge_tensor", torch.arange(len(sizes)).repeat_interleave(sizes), persistent=False)
        self.register_buffer("columns", index, persistent=False)
        self.incidence = Incidence(ends, kind, sum(lengths.values()))
        self.runs = sizes.tolist(), list(lengths.values())
        self._describe_nodes(lengths, depth)

    def _describe_nodes(self, lengths: dict[str, int], depth: dict[str, int]) -> None:
        """Set the features of nodes, given the numbers of nodes and the layer that writes each axis."""
        places = [PLACES.index(axis if axis in IDENTIFIED else "hidden") for axis in lengths]
        place = nn.functional.one_hot(torch.tensor(places), len(PLACES))
        depths = encode_depth(torch.tensor([depth.get(axis, 0) for axis in lengths]))
        sign = {"input": 1, "output": -1}
        unit = [sign.get(axis, 0) * torch.arange(1, length + 1) for axis, length in lengths.items()]
        counts = torch.tensor(list(lengths.values()))
        self.register_buffer("x", torch.cat([place, depths], 1).repeat_interleave(counts, 0), persistent=False)
        self.register_buffer("unit", torch.cat(unit), persistent=False)
        self.register_buffer("axis", torch.arange(len(counts)).repeat_interleave(counts), persistent=False)

    def forward(self, rows: Float[Tensor, "networks parameters"] | Float[Tensor, " parameters"]) -> Data:
        """Return one graph with the values of all rows, `edge_attr (E, N, kernel)`, or of a single row, `(E, kernel)`.

        Only the former has the `incidence` and the `runs`: PyG cannot join those of a disjoint union.
        """
        constants = rows.new_zeros(*rows.shape[:-1], 1), rows.new_ones(*rows.shape[:-1], 1)
        values = torch.cat([rows, *constants], -1).index_select(-1, self.columns.flatten())
        values = values.unflatten(-1, self.columns.shape)  # (N, E, kernel)
        shared = {} if rows.ndim == 1 else {"incidence": self.incidence, "runs": self.runs}
        return Data(
            x=self.x.to(rows.dtype),
            unit=self.unit,
            axis=self.axis,
            edge_index=self.edge_index,
            edge_attr=values.movedim(-2, 0).contiguous(),
            edge_kind=self.edge_kind,
            edge_code=self.edge_code.to(rows.dtype),
            edge_tensor=self.edge_tensor,
            kernel=self.kernel,
            **shared,
        )

    def rows(self, graph: Data) -> Float[Tensor, "networks parameters"] | Float[Tensor, " parameters"]:
        """Return the rows of a graph that `forward` made."""
        values = graph.edge_attr.movedim(-1, 1)  # (E, kernel, N)
        rows = values.new_empty(self.layout.size + 2, *values.shape[2:])
        rows[self.columns] = values
        return rows[: self.layout.size].movedim(0, -1).contiguous()


class _EdgeGroup(NamedTuple):
    """Edges of one parameter, or of value 1, that have one kind and one layer.

    Attributes:
        kind: Name of the kind.
        layer: Number of the layer.
        ends: Source and target of each edge, `(2, edges)`.
        columns: Positions of its values in a row, `(edges, *positions)`.
        positions: Lengths of the dimensions that index no units.
    """

    kind: str
    layer: int
    ends: Tensor
    columns: Tensor
    positions: tuple[int, ...]


def encode_depth(depth: Tensor) -> Float[Tensor, "... codes"]:
    """Return sines and cosines of a layer's number, at wavelengths of 2 pi to 200 pi."""
    frequency = 100.0 ** -torch.linspace(0, 1, FREQUENCIES)
    angle = depth[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1)


def with_kernel(graph: Data, kernel: Sequence[int]) -> Data:
    """Return a graph whose edges have room for larger kernels, so that it can be joined with graphs of other networks.

    As a transform of `ZooGraphs` it makes the graphs of several architectures alike for PyG's loaders; `fit` and
    `predict` call it themselves.

    Arguments:
        graph: Graph of one network, or a disjoint union of graphs with the same kernel.
        kernel: Lengths of the largest kernel, such as `(3, 3)`.

    Raises:
        TaskError: If the graph has a larger kernel.
    """
    if "kernel" not in graph:
        return graph  # one of the user's own
    own = tuple(graph.kernel if graph.batch is None else graph.kernel[0])
    if own == tuple(kernel):
        return graph
    if not _fits(own, kernel):
        raise TaskError(f"graph: its kernels are {own}, which do not fit in {tuple(kernel)}; take a larger `kernel`")
    place = _pad(torch.arange(prod(own)), own, tuple(kernel), prod(own))[0].to(graph.edge_attr.device)
    graph, codes = graph.clone(), graph.edge_code.shape[1] - prod(own)
    for name, before in (("edge_attr", 0), ("edge_code", codes)):
        values = nn.functional.pad(graph[name], (0, 1))  # a zero to be put where the smaller kernel has nothing
        kept = torch.arange(before, device=place.device)
        graph[name] = values.index_select(-1, torch.cat([kept, before + place]))
    graph.kernel = tuple(kernel) if graph.batch is None else [tuple(kernel)] * len(graph.kernel)
    return graph


def largest(kernels: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the lengths of a kernel in which all fit, those of fewer dimensions along the last ones; 1 x 1 if none."""
    kernels = list(kernels) or [(1, 1)]
    dims = max(map(len, kernels))
    return tuple(map(max, zip(*((1,) * (dims - len(lengths)) + lengths for lengths in kernels), strict=True)))


def _fits(small: Sequence[int], kernel: Sequence[int]) -> bool:
    """Return whether a kernel, of as many dimensions or fewer, fits in another."""
    return len(small) <= len(kernel) and largest([tuple(small), tuple(kernel)]) == tuple(kernel)


def _units(parameter: Parameter) -> tuple[str, ...]:
    """Return the axes of the units that a parameter belongs to."""
    return tuple(axis for axis in parameter.names if axis is not None)


def _positions(parameter: Parameter) -> tuple[int, ...]:
    """Return the lengths of the dimensions that index no units, such as those of a kernel."""
    return tuple(length for axis, length in zip(parameter.names, parameter.shape, strict=True) if axis is None)


def _depths(layout: ParameterLayout) -> tuple[dict[str, int], dict[str, int]]:
    """Return for each axis the first layer that writes it, 0 for inputs, and the number of weights that write it."""
    depth, writers = {"input": 0}, dict.fromkeys(layout.axes, 0)
    for parameter in layout.parameters:
        units = _units(parameter)
        if parameter.role in ("weight", "embedding") and len(units) == 2:
            out, into = units if parameter.role == "weight" else units[::-1]
            depth.setdefault(out, depth.get(into, 0) + 1)
            writers[out] += 1
    return depth, writers


def _parameter_edges(
    layout: ParameterLayout, nodes: dict[str, Tensor], kernel: tuple[int, ...]
) -> Iterator["_EdgeGroup"]:
    """Yield the edges of each parameter: from units that are read to units that are written, or within a unit."""
    layer = 0
    for parameter in layout.parameters:
        layer += parameter.role in ("weight", "embedding")
        where, units, positions = layout.slices[parameter.name], _units(parameter), _positions(parameter)
        if len(units) > 2:
            fact = f"connects units of {', '.join(units)}"
            raise TaskError(f"{parameter.name}: {fact}; an edge of a graph connects two units")
        if not _fits(positions, kernel):
            raise TaskError(f"{parameter.name}: its kernel {positions} does not fit in {kernel}; take a larger one")
        if len(units) < 2:  # all but weights and embeddings, and of these depthwise kernels
            own = nodes[units[0] if units else NETWORK]
            ends = torch.stack([own, own])
        else:
            pairs = torch.cartesian_prod(*(nodes[axis] for axis in units)).T
            ends = pairs if parameter.role == "embedding" else pairs.flip(0)
        dims = [dim for dim, axis in enumerate(parameter.names) if axis is not None]
        index = torch.arange(where.start, where.stop).view(parameter.shape).movedim(dims, list(range(len(dims))))
        yield _EdgeGroup(parameter.role, layer, ends, index.reshape(-1, *positions), positions)


def _constant_edges(
    layout: ParameterLayout, nodes: dict[str, Tensor], depth: dict[str, int], writers: dict[str, int]
) -> Iterator["_EdgeGroup"]:
    """Yield the edges of value 1: of every further weight that writes a unit, and from blocks to the units in them."""
    sources = [("residual", axis, nodes[axis]) for axis, count in writers.items() for _ in range(count - 1)]
    for inner, outer in layout.blocks.items():
        sources.append(("block", inner, nodes[outer].repeat_interleave(len(nodes[inner]) // len(nodes[outer]))))
    for kind, axis, source in sources:
        ones = torch.full((len(source),), layout.size + 1)
        yield _EdgeGroup(kind, depth.get(axis, 0), torch.stack([source, nodes[axis]]), ones, ())


def _pad(columns: Tensor, own: tuple[int, ...], kernel: tuple[int, ...], nothing: int) -> Tensor:
    """Put kernels `(edges, *own)` in the middle of the largest, flattened.

    The middle of a length is `(length - 1) // 2`, so a kernel padded twice is where it is when padded once.
    """
    own = (1,) * (len(kernel) - len(own)) + own
    columns = columns.reshape(-1, *own)
    padded = torch.full((len(columns), *kernel), nothing)
    first = [(room - 1) // 2 - (length - 1) // 2 for room, length in zip(kernel, own, strict=True)]
    padded[(slice(None), *(slice(i, i + length) for i, length in zip(first, own, strict=True)))] = columns
    return padded.view(len(columns), prod(kernel))
