"""Message passing on the parameter graph, with updates of edges.

Source: Lim et al. 2023, *Graph Metanetworks for Processing Diverse Neural Architectures*, section 2.3,
https://arxiv.org/abs/2312.04501; Kofinas et al. 2024, *Graph Neural Networks for Learning Equivariant Representations
of Neural Networks*, NG-GNN, https://arxiv.org/abs/2403.12143.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MLP, MessagePassing

from metanets.graph import KINDS
from metanets.incidence import EdgeMean
from metanets.inputs import Reader
from metanets.models.graph import EdgeUpdate, GraphMetanetwork
from metanets.settings import Settings


class EdgeMeans(MessagePassing):
    """Averages at each node its incoming and its outgoing edges of each kind, and sums these means over kinds.

    So a node's one bias counts as much as all its weights.
    """

    def __init__(self) -> None:
        super().__init__(aggr=EdgeMean(), node_dim=0)

    def forward(self, edges: Float[Tensor, "edges *networks hidden"], graph: Data) -> Float[Tensor, "2 nodes ..."]:
        """Return the means of incoming edges at each node, then those of outgoing edges."""
        if "incidence" in graph:
            return graph.incidence(edges)
        nodes = len(graph.x)
        own = {"edges": edges, "kind": graph.edge_kind, "size": (nodes, nodes)}
        return torch.stack([self.propagate(index, **own) for index in (graph.edge_index, graph.edge_index.flip(0))])

    def message(self, edges: Tensor) -> Tensor:
        """Send an edge's state to its nodes."""
        return edges

    def aggregate(self, inputs: Tensor, index: Tensor, kind: Tensor, dim_size: int) -> Tensor:
        """Sum the means over a node's edges of each kind."""
        means = self.aggr_module(inputs, len(KINDS) * index + kind, dim_size=len(KINDS) * dim_size, dim=0)
        return means.view(dim_size, len(KINDS), *means.shape[1:]).sum(1)


class Layer(nn.Module):
    """Updates nodes by the means of their edges.

    Arguments:
        hidden: Size of node and edge states.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.node = MLP([3 * hidden, 2 * hidden, hidden], norm=None)

    def forward(
        self, nodes: Float[Tensor, "nodes *#networks hidden"], taken: Float[Tensor, "2 nodes *networks hidden"]
    ) -> Float[Tensor, "nodes *networks hidden"]:
        """Return the new states of nodes."""
        nodes = nodes.expand_as(taken[0])
        return nodes + self.node(torch.cat([nodes, *taken], -1))


class GMN(GraphMetanetwork):
    """Message passing with edge updates.

    Arguments:
        reader: Reader of the networks.
        outputs: Number of outputs.
        hidden: Size of node and edge states.
        layers: Number of rounds of message passing.
        kernel: Lengths of the largest kernel that can be read, by default of the largest in the reader's layout.
    """

    # Chosen among some forty trainings on digits-mlp, standard (2,000 networks): validation R^2 .978, tau .568.
    settings = Settings(epochs=30, steps=1600, batch_size=16)

    def __init__(
        self,
        reader: Reader,
        outputs: int = 1,
        hidden: int = 16,
        layers: int = 2,
        kernel: Sequence[int] | None = None,
    ) -> None:
        super().__init__(reader, outputs, hidden, [Layer(hidden) for _ in range(layers)], kernel)
        self.means = EdgeMeans()

    def pass_messages(
        self,
        nodes: Float[Tensor, "nodes *#networks hidden"],
        edges: Float[Tensor, "edges *networks hidden"],
        graph: Data,
    ) -> Float[Tensor, "nodes *networks hidden"]:
        """Return the final states of nodes."""
        taken = self.means(edges, graph)
        nodes = self.layers[0](nodes, taken)
        for update, layer in zip(self.edge_updates, self.layers[1:], strict=True):
            assert isinstance(update, EdgeUpdate)
            change = update(nodes, edges, graph.edge_index)
            # `out` is linear, so it is applied to the means: there are far fewer nodes than edges.
            taken = taken + update.out(self.means(change, graph))
            nodes = layer(nodes, taken)
            if layer is not self.layers[-1]:
                edges = edges + update.out(change)
        return nodes
