"""The parameter graph: a node for each unit, an edge for each weight, derived from the axes of a layout.

Networks of one architecture share the graph and differ only in the values on its edges. The values of N networks stand
side by side, `(E, N, kernel)`, so one list of edges serves them all. Networks of several architectures go through
PyG's disjoint union, `(E, kernel)`. Every graph metanetwork takes either form.

Source: Lim et al. 2023, *Graph Metanetworks for Processing Diverse Neural Architectures*,
https://arxiv.org/abs/2312.04501; Kofinas et al. 2024, *Graph Neural Networks for Learning Equivariant Representations
of Neural Networks*, https://arxiv.org/abs/2403.12143.
"""

from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import Aggregation

from zoo.networks.parameters import IDENTIFIED, Parameter, ParameterLayout

KINDS = ("weight", "bias", "norm_scale", "norm_shift", "residual")
PLACES = ("input", "hidden", "output")
FREQUENCIES = 4
DEPTH_CODE = 2 * FREQUENCIES


class ParameterGraph(nn.Module):
    """Turns rows into graphs, and graphs back into rows.

    There is a node for each unit of each axis. There is an edge from an input unit to an output unit for each weight or
    kernel; the kernel's entries are the edge's values, with zeros around kernels smaller than the largest. Edges from a
    unit to itself stand for its depthwise kernel, bias, norm scale and norm shift, and, with value 1, for each residual
    addition.

    Arguments:
        layout: Layout of the rows.
        mask: True where entries train, `(P,)`; the others are marked as fixed on the edges. All train by default.

    Attributes:
        x: Whether a node is input, hidden or output, and the depth of its layer, `(nodes, codes)`.
        unit: Number of an input or output node, from 1; 0 for all hidden units, `(nodes,)`.
        axis: Number of the axis of the layout that a node is a unit of, `(nodes,)`.
        edge_index: Source and target node of each edge, `(2, E)`.
        edge_kind: Position of an edge's kind in `KINDS`, `(E,)`.
        edge_code: Kind, depth of the layer, and which entries are fixed, `(E, codes)`.
        edge_tensor: Number of the tensor of the layout that an edge is from, `(E,)`; residual additions come last.
        columns: Positions in a row of each edge's values, `(E, kernel)`; P stands for 0 and P + 1 for 1.
        incidence: Means of edges at nodes.
        runs: Numbers of edges of each tensor, and of nodes of each axis, on the host.
    """

    x: Tensor
    unit: Tensor
    axis: Tensor
    edge_index: Tensor
    edge_kind: Tensor
    edge_code: Tensor
    edge_tensor: Tensor
    columns: Tensor

    def __init__(self, layout: ParameterLayout, mask: Bool[Tensor, " parameters"] | None = None) -> None:
        super().__init__()
        self.layout = layout
        first, start = {}, 0
        for axis, length in layout.axes.items():
            first[axis], start = start, start + length
        depth, writers = _depths(layout)
        kernel = _largest_kernel(layout)

        edges, columns, kinds, layers = [], [], [], []
        layer = 0
        for parameter in layout.parameters:
            layer += parameter.role == "weight"
            edges.append(_edges(parameter, first))
            columns.append(_columns(layout, parameter, kernel))
            kinds.append(KINDS.index(parameter.role))
            layers.append(layer)
        for axis, count in writers.items():
            for _ in range(count - 1):
                node = torch.arange(first[axis], first[axis] + layout.axes[axis])
                edges.append(torch.stack([node, node]))
                columns.append(_pad(torch.full((len(node), 1, 1), layout.size + 1), kernel, layout.size))
                kinds.append(KINDS.index("residual"))
                layers.append(depth[axis])
        sizes = torch.tensor([block.shape[1] for block in edges])
        fixed = torch.zeros(layout.size + 2)
        fixed[: layout.size] = 0 if mask is None else ~mask.cpu()
        index, kind = torch.cat(columns), torch.tensor(kinds).repeat_interleave(sizes)
        code = [
            nn.functional.one_hot(kind, len(KINDS)),
            encode_depth(torch.tensor(layers)).repeat_interleave(sizes, 0),
            fixed[index],
        ]
        self.register_buffer("edge_index", torch.cat(edges, 1), persistent=False)
        self.register_buffer("edge_kind", kind, persistent=False)
        self.register_buffer("edge_code", torch.cat(code, 1), persistent=False)
        self.register_buffer("edge_tensor", torch.arange(len(sizes)).repeat_interleave(sizes), persistent=False)
        self.register_buffer("columns", index, persistent=False)
        self.incidence = Incidence(self.edge_index, kind, start)
        self.runs = sizes.tolist(), list(layout.axes.values())
        self._describe_nodes(first, depth)

    def _describe_nodes(self, first: dict[str, int], depth: dict[str, int]) -> None:
        """Set the features of nodes, given the first node of each axis and the layer that writes it."""
        layout = self.layout
        lengths = torch.tensor(list(layout.axes.values()))
        places = [PLACES.index(axis) if axis in IDENTIFIED else PLACES.index("hidden") for axis in layout.axes]
        place = nn.functional.one_hot(torch.tensor(places), len(PLACES))
        depths = encode_depth(torch.tensor([depth[axis] for axis in layout.axes]))
        unit = torch.zeros(int(lengths.sum()), dtype=torch.long)
        known = 1
        for axis in sorted(IDENTIFIED & layout.axes.keys()):
            unit[first[axis] : first[axis] + layout.axes[axis]] = torch.arange(known, known + layout.axes[axis])
            known += layout.axes[axis]
        self.register_buffer("x", torch.cat([place, depths], 1).repeat_interleave(lengths, 0), persistent=False)
        self.register_buffer("unit", unit, persistent=False)
        self.register_buffer("axis", torch.arange(len(lengths)).repeat_interleave(lengths), persistent=False)

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
            **shared,
        )

    def rows(self, graph: Data) -> Float[Tensor, "networks parameters"] | Float[Tensor, " parameters"]:
        """Return the rows of a graph that `forward` made."""
        values = graph.edge_attr.movedim(-1, 1)  # (E, kernel, N)
        rows = values.new_empty(self.layout.size + 2, *values.shape[2:])
        rows[self.columns] = values
        return rows[: self.layout.size].movedim(0, -1).contiguous()


class Incidence(nn.Module):
    """Averages edge states at nodes: a sparse matrix `(2 nodes, E)` and, for the backward pass, its transpose.

    The first half of its rows is for incoming edges, the second for outgoing ones. A node takes the mean over its edges
    of each kind, and the sum of these means, so that its one bias counts as much as all its weights.

    Arguments:
        edge_index: Source and target node of each edge, `(2, E)`.
        edge_kind: Position of each edge's kind in `KINDS`, `(E,)`.
        nodes: Number of nodes.
    """

    def __init__(self, edge_index: Int[Tensor, "2 edges"], edge_kind: Int[Tensor, " edges"], nodes: int) -> None:
        super().__init__()
        edge = torch.arange(len(edge_kind)).repeat(2)
        node = torch.cat([edge_index[1], nodes + edge_index[0]])
        of_kind = len(KINDS) * node + edge_kind.repeat(2)
        share = 1 / of_kind.bincount()[of_kind].double()
        self.matrix = _CompressedRows(node, edge, share, 2 * nodes)
        self.transpose = _CompressedRows(edge, node, share, len(edge_kind))

    def forward(self, edges: Float[Tensor, "edges ..."]) -> Float[Tensor, "2 nodes ..."]:
        """Return the means of incoming edges at each node, then those of outgoing edges."""
        return _SparseProduct.apply(edges.flatten(1), self.matrix, self.transpose).view(2, -1, *edges.shape[1:])


class _CompressedRows(nn.Module):
    """A sparse matrix, its entries sorted by row; `start` holds the first entry of each row, and the number of all."""

    column: Tensor
    start: Tensor
    value: Tensor

    def __init__(
        self,
        row: Int[Tensor, " entries"],
        column: Int[Tensor, " entries"],
        value: Float[Tensor, " entries"],
        rows: int,
    ) -> None:
        super().__init__()
        order = row.argsort(stable=True)
        start = nn.functional.pad(row.bincount(minlength=rows).cumsum(0), (1, 0))
        for name, tensor in {"column": column[order], "start": start, "value": value[order]}.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, dense: Float[Tensor, "columns width"]) -> Float[Tensor, "rows width"]:
        """Return the product of the matrix with a dense one."""
        return nn.functional.embedding_bag(
            self.column,
            dense.contiguous(),
            self.start,
            mode="sum",
            per_sample_weights=self.value.to(dense.dtype),
            include_last_offset=True,
        )


class _SparseProduct(torch.autograd.Function):
    """`torch.sparse.mm` of a matrix in compressed rows, faster in both passes since each row is written once."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: _CompressedRows, transpose: _CompressedRows) -> Tensor:
        """Return matrix @ dense."""
        ctx.transpose = transpose
        return matrix(dense)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return transpose @ grad."""
        return ctx.transpose(grad), None, None


def encode_depth(depth: Tensor) -> Float[Tensor, "... codes"]:
    """Return sines and cosines of a layer's number, at wavelengths of 2 pi to 200 pi."""
    frequency = 100.0 ** -torch.linspace(0, 1, FREQUENCIES)
    angle = depth[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1)


def _depths(layout: ParameterLayout) -> tuple[dict[str, int], dict[str, int]]:
    """Return for each axis the first layer that writes it, 0 for inputs, and the number of weights that write it."""
    depth, writers = {"input": 0}, dict.fromkeys(layout.axes, 0)
    for weight in layout.weights:
        out, into = weight.axes[:2]
        if out is not None and into is not None:
            depth.setdefault(out, depth.get(into, 0) + 1)
            writers[out] += 1
    return depth, writers


def _largest_kernel(layout: ParameterLayout) -> tuple[int, ...]:
    kernels = [weight.shape[2:] for weight in layout.weights if len(weight.shape) > 2] or [(1, 1)]
    return tuple(max(lengths) for lengths in zip(*kernels, strict=True))


def _edges(parameter: Parameter, first: dict[str, int]) -> Tensor:
    """Return `(2, edges)`, from inputs to outputs or from a unit to itself, in the order of the row."""
    nodes = [
        torch.arange(first[axis], first[axis] + length)
        for axis, length in zip(parameter.axes, parameter.shape, strict=True)
        if axis is not None
    ]
    if len(nodes) == 1:  # all but weights, and of these depthwise kernels
        return torch.stack([nodes[0], nodes[0]])
    target, source = torch.meshgrid(*nodes, indexing="ij")
    return torch.stack([source.flatten(), target.flatten()])


def _columns(layout: ParameterLayout, parameter: Parameter, kernel: tuple[int, ...]) -> Tensor:
    """Return the columns of a parameter's edges, `(edges, kernel)`."""
    where = layout.slices[parameter.name]
    own = parameter.shape[2:] or (1,) * len(kernel)
    return _pad(torch.arange(where.start, where.stop).view(-1, *own), kernel, layout.size)


def _pad(columns: Tensor, kernel: tuple[int, ...], nothing: int) -> Tensor:
    """Put kernels `(edges, ...)` in the middle of the largest, flattened."""
    padded = torch.full((len(columns), *kernel), nothing)
    middle = [
        slice((all_ - own) // 2, (all_ - own) // 2 + own) for all_, own in zip(kernel, columns.shape[1:], strict=True)
    ]
    padded[(slice(None), *middle)] = columns
    return padded.view(len(columns), prod(kernel))


class EdgeMean(Aggregation):
    """The mean over the first dimension within each group.

    It equals `torch_geometric.nn.MeanAggregation`; the backward pass of `index_add` is much faster than of a scatter.
    """

    def forward(
        self,
        x: Float[Tensor, "edges ..."],
        index: Int[Tensor, " edges"] | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = 0,
        max_num_elements: int | None = None,
    ) -> Float[Tensor, "groups ..."]:
        """Return the means; zero for an empty group."""
        assert index is not None
        size = int(index.max()) + 1 if dim_size is None else dim_size
        # `bincount` would make the host wait for a GPU.
        count = x.new_zeros(size).index_add_(0, index, x.new_ones(len(index))).clamp_(min=1)
        return x.new_zeros(size, *x.shape[1:]).index_add(0, index, x) / count.view(-1, *[1] * (x.ndim - 1))
