"""Means of edges at nodes, for a graph that many networks share and for disjoint unions."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.nn import Aggregation


class Incidence(nn.Module):
    """Averages edge states at nodes: a sparse matrix `(2 nodes, E)` and, for the backward pass, its transpose.

    The first half of its rows is for incoming edges, the second for outgoing ones. A node takes the mean over its edges
    of each kind, and the sum of these means, so that its one bias counts as much as all its weights.

    Arguments:
        edge_index: Source and target node of each edge, `(2, E)`.
        edge_kind: Number of each edge's kind, `(E,)`.
        nodes: Number of nodes.
    """

    def __init__(self, edge_index: Int[Tensor, "2 edges"], edge_kind: Int[Tensor, " edges"], nodes: int) -> None:
        super().__init__()
        edge = torch.arange(len(edge_kind)).repeat(2)
        node = torch.cat([edge_index[1], nodes + edge_index[0]])
        of_kind = (int(edge_kind.max()) + 1) * node + edge_kind.repeat(2)
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
