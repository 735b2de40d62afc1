"""What graph metanetworks share: how a parameter graph is encoded, and how one number is read off it."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

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
    """Encodes nodes and edges, updates nodes by their edges and edges by their nodes in turns, and reads off both.

    Node states are `(nodes, N, hidden)` and edge states `(E, N, hidden)`, or `(nodes, hidden)` and `(E, hidden)` for
    a disjoint union; all acts on the last dimension, so nothing else need know. Inputs and classes have states of
    their own to begin with, hidden units of a layer all the same. Read off are the edges of each tensor as encoded, and
    the nodes of each axis as updated in the end.

    Source: Xu et al. 2018, *Representation Learning on Graphs with Jumping Knowledge Networks*,
    https://arxiv.org/abs/1806.03536, for what is read off.

    Arguments:
        reader: of networks whose graph is shared; those of a disjoint union have as many inputs, classes and kernel
            entries.
        hidden: size of all states.
        layers: that update nodes. Edges are updated between them.
    """

    reads = "tensors"

    def __init__(self, reader: Reader, hidden: int, layers: Sequence[nn.Module]) -> None:
        super().__init__(reader)
        self.graph = ParameterGraph(reader.layout, reader.trainable)
        self.at_once = max(1, CACHE // (4 * hidden * len(self.graph.columns)))
        node_codes, edge_codes = self.graph.x.shape[1], self.graph.edge_code.shape[1]
        self.unit = nn.Embedding(int(self.graph.unit.max()) + 1, hidden)
        nn.init.normal_(self.unit.weight, std=0.1)  # at first, what a unit is drowns no weights
        self.node_code = nn.Linear(node_codes, hidden, bias=False)
        self.edge_code = nn.Linear(edge_codes, hidden)
        kernel = self.graph.columns.shape[1]
        self.edge_value = nn.Parameter(torch.empty(kernel, hidden).uniform_(-1, 1) / kernel**0.5)  # as of `nn.Linear`
        self.edge = nn.Linear(hidden, hidden)
        self.layers = nn.ModuleList(layers)
        self.edge_updates = nn.ModuleList(EdgeUpdate(hidden) for _ in layers[1:])
        self.read_edges, self.read_nodes = ReadOff(hidden, edge_codes), ReadOff(hidden, node_codes)
        self.head = MLP([8 * hidden, 4 * hidden, 1], norm=None)

    def forward(self, networks: Float[Tensor, "networks parameters"] | Data) -> Float[Tensor, " networks"]:
        """Predict one number for each row, or each graph of a disjoint union."""
        graph = networks if isinstance(networks, Data) else self.graph(networks)
        nodes, code = self.node_code(graph.x) + self.unit(graph.unit), self.edge_code(graph.edge_code)
        if graph.edge_attr.ndim == 3:
            nodes, code = nodes[:, None], code[:, None]
        edges = self.edge((graph.edge_attr @ self.edge_value).add_(code).relu_())
        of_edges = self.read_edges(edges, graph.edge_code, graph.edge_tensor, _graph_of_edges(graph))
        nodes = self.pass_messages(nodes, edges, graph)
        of_nodes = self.read_nodes(nodes, graph.x, graph.axis, graph.batch)
        return self.head(torch.cat([of_edges, of_nodes], -1)).flatten()

    @abstractmethod
    def pass_messages(
        self,
        nodes: Float[Tensor, "nodes *#networks hidden"],
        edges: Float[Tensor, "edges *networks hidden"],
        graph: Data,
    ) -> Float[Tensor, "nodes *networks hidden"]:
        """Return the states of nodes in the end, by `layers` and `edge_updates` in turns."""


def _graph_of_edges(graph: Data) -> Tensor | None:
    """Return which graph of a disjoint union each edge is in."""
    return None if graph.batch is None else graph.batch[graph.edge_index[0]]


class ReadOff(nn.Module):
    """Reads what edges or nodes of a network give together, whatever their number and order.

    Of the states in each group (the edges of a tensor, the nodes of an axis) it takes the mean of the positive part
    and the logarithm of the root mean square; what groups give is averaged, so that networks of any depth can be read.

    Arguments:
        hidden: size of a state.
        codes: size of what tells groups apart.
    """

    def __init__(self, hidden: int, codes: int) -> None:
        super().__init__()
        self.norm = RunningNorm(2 * hidden)
        self.mean = EdgeMean()
        self.group = MLP([2 * hidden + codes, 4 * hidden, 4 * hidden], norm=None)

    def forward(
        self,
        states: Float[Tensor, "states *networks hidden"],
        code: Float[Tensor, "states codes"],
        group: Int[Tensor, " states"],
        graph: Int[Tensor, " states"] | None,
    ) -> Float[Tensor, "*graphs read"]:
        """Return `(N, 4 hidden)`, or `(graphs, 4 hidden)` if `graph` says which graph of a union a state is in."""
        if graph is not None:  # a group of each graph; a shallower network has fewer
            of_graph = int(group.max()) + 1
            present, group = torch.unique(group + of_graph * graph, return_inverse=True)
        mean, square = self.moments(states, group, graph is None)
        features = self.norm(torch.cat([mean, (square + TINY).log() / 2], -1))
        code = self.mean(code, group)
        code = code.view(len(code), *[1] * (features.ndim - 2), -1).expand(*features.shape[:-1], -1)
        read = self.group(torch.cat([features, code], -1))
        return read.mean(0) if graph is None else self.mean(read, present // of_graph)

    def moments(self, states: Tensor, group: Tensor, together: bool) -> Float[Tensor, "2 groups *networks hidden"]:
        """Return means of the positive part and of the square; of a shared graph, groups lie together."""
        if together:
            return Moments.apply(states, group.bincount().tolist())
        return torch.stack([self.mean(power, group) for power in (states.relu(), states.square())])


class Moments(torch.autograd.Function):
    """Means of the positive part and of the square over runs of states.

    They take most of their time on the way back, which goes through the states once here, six times by `autograd`.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, lengths: list[int]) -> Tensor:
        """Return the means, `(2, runs, ...)`."""
        ctx.save_for_backward(states)
        ctx.lengths = lengths
        means = states.new_empty(2, len(lengths), *states.shape[1:])
        for number, run in enumerate(states.split(lengths)):
            torch.mean(run.relu(), 0, out=means[0, number])
            torch.mean(run.square(), 0, out=means[1, number])
        return means

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the states."""
        (states,) = ctx.saved_tensors
        of_states = torch.empty_like(states)
        runs = states.split(ctx.lengths), of_states.split(ctx.lengths), *grad
        for run, of_run, of_mean, of_square in zip(*runs, strict=True):
            of_mean, of_square = of_mean / len(run), of_square / len(run)
            torch.ops.aten.threshold_backward.grad_input(of_mean.expand_as(run), run, 0, grad_input=of_run)
            of_run.addcmul_(run, of_square, value=2)
        return of_states, None


class EdgeUpdate(MessagePassing):
    """What the two ends of an edge make of it: its state grows by `out` of that.

    Arguments:
        hidden: size of node and edge states.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__(node_dim=0)
        self.source, self.target = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.edge, self.out = (nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        nn.init.zeros_(self.out.weight)  # what ends make of an edge is added as far as it helps

    def forward(
        self,
        nodes: Float[Tensor, "nodes *#networks hidden"],
        edges: Float[Tensor, "edges *#networks hidden"],
        edge_index: Int[Tensor, "2 edges"],
    ) -> Float[Tensor, "edges *networks hidden"]:
        """Return what the ends make of edges."""
        # The ends are projected before they are gathered: there are far more edges than nodes.
        ends = {"source": self.source(nodes), "target": self.target(nodes)}
        return self.edge_updater(edge_index, **ends, edges=edges)

    def edge_update(self, source_j: Tensor, target_i: Tensor, edges: Tensor) -> Tensor:
        """Return what its ends make of an edge."""
        # Memory is what takes the time: sums are in place, where nothing else needs the tensor.
        return self.edge(edges).add_(source_j).add_(target_i).relu_()


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
