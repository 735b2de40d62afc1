"""Message passing on the parameter graph, with edges that are updated, too.

Source: Lim et al. 2023, *Graph Metanetworks for Processing Diverse Neural Architectures*, section 2.3, and NG-GNN of
Kofinas et al. 2024.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import MLP, MessagePassing

from metanets.graph import KINDS, EdgeMean
from metanets.inputs import Reader
from metanets.models.graph import GraphMetanetwork


class Layer(MessagePassing):
    """A node takes in the means of its incoming and outgoing edges of each kind.

    Arguments:
        hidden: size of node and edge states.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__(aggr=EdgeMean(), node_dim=0)
        self.node = MLP([3 * hidden, 2 * hidden, hidden], norm=None)

    def forward(
        self,
        nodes: Float[Tensor, "nodes *#networks hidden"],
        edges: Float[Tensor, "edges *#networks hidden"],
        graph: Data,
    ) -> Float[Tensor, "nodes *networks hidden"]:
        """Return the new states of nodes."""
        own = {"edges": edges, "kind": graph.edge_kind, "size": (len(nodes), len(nodes))}
        incoming = self.propagate(graph.edge_index, **own)
        outgoing = self.propagate(graph.edge_index.flip(0), **own)
        nodes = nodes.expand_as(incoming)
        return nodes + self.node(torch.cat([nodes, incoming, outgoing], -1))

    def message(self, edges: Tensor) -> Tensor:
        """Send an edge's state to its nodes."""
        return edges

    def aggregate(self, inputs: Tensor, index: Tensor, kind: Tensor, dim_size: int) -> Tensor:
        """Sum the means over a node's edges of each kind, so that its one bias counts as much as all its weights."""
        means = self.aggr_module(inputs, len(KINDS) * index + kind, dim_size=len(KINDS) * dim_size, dim=0)
        return means.view(dim_size, len(KINDS), *means.shape[1:]).sum(1)


class GMN(GraphMetanetwork):
    """Message passing with edge updates.

    Arguments:
        reader: of the networks.
        hidden: size of node and edge states.
        layers: rounds of message passing.
    """

    def __init__(self, reader: Reader, hidden: int = 16, layers: int = 2) -> None:
        super().__init__(reader, hidden, [Layer(hidden) for _ in range(layers)])
