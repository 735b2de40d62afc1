"""What graph metanetworks share: how a parameter graph is encoded, and how one number is read off it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MLP, MessagePassing

from metanets.graph import EdgeMean, ParameterGraph
from metanets.inputs import Reader
from metanets.models.base import Metanetwork

CACHE = 4 << 20  # bytes of edge states worked on at once
TINY = 1e-6  # keeps the logarithm of squares finite


class GraphMetanetwork(Metanetwork):
    """Encodes nodes and edges, lets `layers` update them, and reads off means over each tensor's edges.

    Node states are `(nodes, N, hidden)` and edge states `(E, N, hidden)`, or `(nodes, hidden)` and `(E, hidden)` for
    a disjoint union; layers act on the last dimension, so they need not know. Inputs and classes have states of their
    own to begin with, hidden units of a layer all the same. Read off are the mean and the logarithm of the root mean
    square over each tensor's edges, as encoded and as updated (Xu et al. 2018, *Representation Learning on Graphs with
    Jumping Knowledge Networks*). What a tensor gives is averaged over tensors, so that networks of any depth can be
    read.

    Arguments:
        reader: of networks whose graph is shared; those of a disjoint union have as many inputs, classes and kernel
            entries.
        hidden: size of all states.
        layers: how nodes and edges are updated: called with node states, edge states and the graph, each returns
            new node and edge states.
    """

    reads = "tensors"

    def __init__(self, reader: Reader, hidden: int, layers: list[nn.Module]) -> None:
        super().__init__(reader)
        self.graph = ParameterGraph(reader.layout, reader.trainable)
        self.at_once = max(1, CACHE // (4 * hidden * len(self.graph.columns)))
        codes, kernel = self.graph.edge_code.shape[1], self.graph.columns.shape[1]
        self.unit = nn.Embedding(int(self.graph.unit.max()) + 1, hidden)
        nn.init.normal_(self.unit.weight, std=0.1)  # at first, what a unit is drowns no weights
        self.node_code = nn.Linear(self.graph.x.shape[1], hidden, bias=False)
        self.edge_code = nn.Linear(codes, hidden)
        self.edge_value = nn.Linear(kernel, hidden, bias=False)
        self.edge = nn.Linear(hidden, hidden)
        self.layers = nn.ModuleList(layers)
        self.mean = EdgeMean()
        self.norm = RunningNorm(4 * hidden)
        self.tensor = MLP([4 * hidden + codes, 4 * hidden, 4 * hidden], norm=None)
        self.head = MLP([4 * hidden, 4 * hidden, 1], norm=None)

    def forward(self, networks: Float[Tensor, "networks parameters"] | Data) -> Float[Tensor, " networks"]:
        """Predict one number for each row, or each graph of a disjoint union."""
        graph = networks if isinstance(networks, Data) else self.graph(networks)
        nodes, code = self.node_code(graph.x) + self.unit(graph.unit), self.edge_code(graph.edge_code)
        if graph.edge_attr.ndim == 3:
            nodes, code = nodes[:, None], code[:, None]
        edges = first = self.edge((self.edge_value(graph.edge_attr) + code).relu())
        for layer in self.layers:
            nodes, edges = layer(nodes, edges, graph)
        return self.head(self._read_off([first, edges], graph)).flatten()

    def _read_off(self, states: list[Tensor], graph: Data) -> Tensor:
        """Return what all tensors of a network give together, `(1, N, 4 hidden)` or `(graphs, 4 hidden)`."""
        graphs, tensors = 1, int(graph.edge_tensor.max()) + 1
        group = graph.edge_tensor
        if graph.batch is not None:
            graphs = graph.num_graphs
            group = group + tensors * graph.batch[graph.edge_index[0]]
        size = graphs * tensors
        pooled = [self.mean(edges.relu(), group, dim_size=size) for edges in states]  # (size, *networks, hidden)
        pooled += [(self.mean(edges.square(), group, dim_size=size) + TINY).log() / 2 for edges in states]
        code = self.mean(graph.edge_code, group, dim_size=size)
        present = group.bincount(minlength=size) > 0  # a shallower network has fewer tensors
        features = self.norm(torch.cat(pooled, -1)[present])
        code = code[present].view(len(features), *[1] * (features.ndim - 2), -1).expand(*features.shape[:-1], -1)
        read = self.tensor(torch.cat([features, code], -1))
        network = torch.arange(size, device=group.device)[present] // tensors
        return self.mean(read, network, dim_size=graphs)


class EdgeUpdate(MessagePassing):
    """Adds to the state of each edge what its two ends make of it.

    Arguments:
        hidden: size of node and edge states.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__(node_dim=0)
        self.source, self.target = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.edge_in, self.edge_out = (nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        nn.init.zeros_(self.edge_out.weight)  # what ends make of an edge is added as far as it helps

    def forward(
        self,
        nodes: Float[Tensor, "nodes *#networks hidden"],
        edges: Float[Tensor, "edges *#networks hidden"],
        edge_index: Int[Tensor, "2 edges"],
    ) -> Float[Tensor, "edges *networks hidden"]:
        """Return the new states of edges."""
        # The ends are projected before they are gathered: there are far more edges than nodes.
        ends = {"source": self.source(nodes), "target": self.target(nodes)}
        return self.edge_updater(edge_index, **ends, edges=edges)

    def edge_update(self, source_j: Tensor, target_i: Tensor, edges: Tensor) -> Tensor:
        """Return an edge's new state."""
        # In place where nothing else needs the tensor, since memory is what takes the time; not in what a linear map
        # gives, which is a view, whose way back would copy it for each change.
        return edges + self.edge_out((self.edge_in(edges) + source_j).add_(target_i).relu_())


class RunningNorm(nn.Module):
    """Standardises features by their mean and variance over the networks seen so far, those of late most.

    Networks alike differ little in them, against what all have in common. Unlike batch normalisation, what a network
    gives does not depend on how many others come with it.

    Arguments:
        features: how many.
        momentum: share of each batch in the running mean and variance.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, features: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("var", torch.ones(features))

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """Return the features, of order 1."""
        if self.training:
            with torch.no_grad():
                flat = x.flatten(0, -2)
                self.mean.lerp_(flat.mean(0), self.momentum)
                self.var.lerp_(flat.var(0, correction=0), self.momentum)
        return (x - self.mean) / (self.var + 1e-5).sqrt()
