"""Attention on the parameter graph: how much a unit takes from a weight depends on it and on both its ends.

Source: Kofinas et al. 2024, *Graph Neural Networks for Learning Equivariant Representations of Neural Networks*, NG-T,
https://arxiv.org/abs/2403.12143, after the relational transformer of Diao, Loynd 2023, *Relational Attention:
Generalizing Transformers for Graph-Structured Tasks*, https://arxiv.org/abs/2210.05062.

Here one projection of an edge modulates keys and values alike, queries are the node's alone, and half of the heads look
at incoming edges, half at outgoing ones.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MLP, MessagePassing
from torch_geometric.utils import softmax

from metanets.inputs import Reader
from metanets.models.graph import EdgeUpdate, GraphMetanetwork
from metanets.settings import Settings


class Attention(MessagePassing):
    """A node's mean over its incoming edges, weighted by attention.

    Along the edge from j to i, with the states n of nodes and e of the edge:

        query = Q n_i,   key = (K n_j) * (E e),   value = (V n_j) * (E e)

    Arguments:
        hidden: Size of node and edge states.
        width: Length of queries, keys and values.
        heads: Number of heads that they are split into.
    """

    def __init__(self, hidden: int, width: int, heads: int) -> None:
        super().__init__(node_dim=0)
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.query, self.key, self.value = (nn.Linear(hidden, width) for _ in range(3))
        self.edge = nn.Linear(hidden, width)

    def forward(
        self,
        nodes: Float[Tensor, "nodes *#networks hidden"],
        edges: Float[Tensor, "edges *#networks hidden"],
        edge_index: Int[Tensor, "2 edges"],
    ) -> Float[Tensor, "nodes *#networks width"]:
        """Return the weighted mean of incoming values at each node."""
        ends = {"query": self.scale * self.query(nodes), "key": self.key(nodes), "value": self.value(nodes)}
        return self.propagate(edge_index, **ends, edges=self.edge(edges), size=(len(nodes), len(nodes)))

    def message(
        self, query_i: Tensor, key_j: Tensor, value_j: Tensor, edges: Tensor, index: Tensor, size_i: int
    ) -> Tensor:
        """Weigh an edge's value by its attention weight at the node."""
        agreement = (query_i * key_j * edges).unflatten(-1, (self.heads, -1)).sum(-1)
        share = softmax(agreement, index, num_nodes=size_i, dim=0)
        return ((value_j * edges).unflatten(-1, (self.heads, -1)) * share[..., None]).flatten(-2)

    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int) -> Tensor:
        """Sum by `index_add`, whose backward pass is many times faster than that of PyG's scatter."""
        return inputs.new_zeros(dim_size, *inputs.shape[1:]).index_add(0, index, inputs)


class Layer(nn.Module):
    """Attention and a feed-forward block update a node.

    Arguments:
        hidden: Size of node and edge states.
        heads: Number of attention heads.
    """

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.incoming, self.outgoing = (Attention(hidden, hidden // 2, heads // 2) for _ in range(2))
        self.attended = nn.Linear(hidden, hidden)
        self.feed_forward = MLP([hidden, 2 * hidden, hidden], norm=None, act="gelu")
        self.attended_norm, self.node_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)

    def forward(
        self,
        nodes: Float[Tensor, "nodes *#networks hidden"],
        edges: Float[Tensor, "edges *#networks hidden"],
        graph: Data,
    ) -> Float[Tensor, "nodes *networks hidden"]:
        """Return the new states of nodes."""
        incoming = self.incoming(nodes, edges, graph.edge_index)
        outgoing = self.outgoing(nodes, edges, graph.edge_index.flip(0))
        nodes = self.attended_norm(nodes + self.attended(torch.cat([incoming, outgoing], -1)))
        return self.node_norm(nodes + self.feed_forward(nodes))


class NeuralGraphTransformer(GraphMetanetwork):
    """Layers of attention over the edges of each node, with edge updates.

    Arguments:
        reader: Reader of the networks.
        outputs: Number of outputs.
        hidden: Size of node and edge states.
        heads: Number of attention heads, an even one.
        layers: Number of layers of attention.
        kernel: Lengths of the largest kernel that can be read, by default of the largest in the reader's layout.
    """

    settings = Settings(epochs=15, steps=1600, batch_size=16)  # those of gmn, with fewer epochs since each takes longer

    def __init__(
        self,
        reader: Reader,
        outputs: int = 1,
        hidden: int = 16,
        heads: int = 2,
        layers: int = 2,
        kernel: Sequence[int] | None = None,
    ) -> None:
        super().__init__(reader, outputs, hidden, [Layer(hidden, heads) for _ in range(layers)], kernel)

    def pass_messages(
        self,
        nodes: Float[Tensor, "nodes *#networks hidden"],
        edges: Float[Tensor, "edges *networks hidden"],
        graph: Data,
    ) -> Float[Tensor, "nodes *networks hidden"]:
        """Return the final states of nodes."""
        nodes = self.layers[0](nodes, edges, graph)
        for update, layer in zip(self.edge_updates, self.layers[1:], strict=True):
            assert isinstance(update, EdgeUpdate)
            edges = edges + update.out(update(nodes, edges, graph.edge_index))
            nodes = layer(nodes, edges, graph)
        return nodes
