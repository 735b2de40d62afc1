"""What graph metanetworks share: how a parameter graph is encoded, and how outputs are read off it."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MLP, MessagePassing

from metanets.graph import ParameterGraph, with_kernel
from metanets.incidence import EdgeMean
from metanets.inputs import Reader
from metanets.models.base import Metanetwork

CACHE = 4 << 20  # bytes of edge states worked on at once
TINY = 1e-6  # keeps the logarithm of squares finite


class GraphMetanetwork(Metanetwork):
    """Encodes nodes and edges, updates each by the other in turns, and reads outputs off both.

    Node states are `(nodes, N, hidden)` and edge states `(E, N, hidden)`, or `(nodes, hidden)` and `(E, hidden)` for a
    disjoint union; every operation acts on the last dimension, so the same code serves both. Each input and each class
    has an initial state of its own; all hidden units of a layer have the same. Outputs are read off the edges of each
    tensor as first encoded, and off the nodes of each axis after the last update.

    Source: Xu et al. 2018, *Representation Learning on Graphs with Jumping Knowledge Networks*,
    https://arxiv.org/abs/1806.03536, for what is read off.

    Arguments:
        reader: Reader of the networks whose graph is shared. Networks of a disjoint union have kernels no larger than
            `kernel`; inputs and classes beyond the number of these have no state of their own.
        outputs: Number of outputs.
        hidden: Size of all states.
        layers: Layers that update nodes; edges are updated between them.
        kernel: Lengths of the largest kernel that can be read, by default of the largest in the reader's layout.
    """

    reads = "tensors"

    def __init__(
        self,
        reader: Reader,
        outputs: int,
        hidden: int,
        layers: Sequence[nn.Module],
        kernel: Sequence[int] | None = None,
    ) -> None:
        super().__init__(reader)
        self.graph = ParameterGraph(reader.layout, reader.mask, kernel)
        self.at_once = max(1, CACHE // (4 * hidden * len(self.graph.columns)))
        node_codes, edge_codes = self.graph.x.shape[1], self.graph.edge_code.shape[1]
        self.inputs, self.classes = int(self.graph.unit.max()), -int(self.graph.unit.min())
        self.unit = nn.Embedding(1 + self.inputs + self.classes, hidden)
        nn.init.normal_(self.unit.weight, std=0.1)  # at first, what a unit is drowns no weights
        self.node_code = nn.Linear(node_codes, hidden, bias=False)
        self.edge_code = nn.Linear(edge_codes, hidden)
        values = self.graph.columns.shape[1]
        self.edge_value = nn.Parameter(torch.empty(values, hidden).uniform_(-1, 1) / values**0.5)  # as of `nn.Linear`
        self.edge = nn.Linear(hidden, hidden)
        self.layers = nn.ModuleList(layers)
        self.edge_updates = nn.ModuleList(EdgeUpdate(hidden) for _ in layers[1:])
        self.read_edges, self.read_nodes = ReadOff(hidden, edge_codes), ReadOff(hidden, node_codes)
        self.head = MLP([8 * hidden, 4 * hidden, outputs], norm=None)

    def forward(self, networks: Float[Tensor, "networks parameters"] | Data) -> Float[Tensor, "networks outputs"]:
        """Return the outputs for each row, or each graph of a disjoint union."""
        graph = with_kernel(networks, self.graph.kernel) if isinstance(networks, Data) else self.graph(networks)
        nodes, code = self.node_code(graph.x) + self.unit(self._own(graph.unit)), self.edge_code(graph.edge_code)
        if graph.edge_attr.ndim == 3:
            nodes, code = nodes[:, None], code[:, None]
        edges = self.edge((graph.edge_attr @ self.edge_value).add_(code).relu_())
        edge_runs, node_runs = graph.runs if "runs" in graph else (None, None)
        of_edges = self.read_edges(edges, graph.edge_code, graph.edge_tensor, _graph_of_edges(graph), edge_runs)
        nodes = self.pass_messages(nodes, edges, graph)
        of_nodes = self.read_nodes(nodes, graph.x, graph.axis, graph.batch, node_runs)
        return self.head(torch.cat([of_edges, of_nodes], -1))

    def _own(self, unit: Int[Tensor, " nodes"]) -> Int[Tensor, " nodes"]:
        """Return the number of each node's state: inputs come first, then classes; 0 is that of hidden units."""
        known = (unit <= self.inputs) & (unit >= -self.classes)
        return torch.where(unit < 0, self.inputs - unit, unit).where(known, 0)

    @abstractmethod
    def pass_messages(
        self,
        nodes: Float[Tensor, "nodes *#networks hidden"],
        edges: Float[Tensor, "edges *networks hidden"],
        graph: Data,
    ) -> Float[Tensor, "nodes *networks hidden"]:
        """Return the final states of nodes, by `layers` and `edge_updates` in turns."""


def _graph_of_edges(graph: Data) -> Tensor | None:
    """Return the number of the graph of a disjoint union that each edge is in."""
    return None if graph.batch is None else graph.batch[graph.edge_index[0]]


class ReadOff(nn.Module):
    """Summarises the edges or the nodes of a network, whatever their number and order.

    Of the states in each group (the edges of a tensor, the nodes of an axis) it takes the mean of the positive part
    and the logarithm of the root mean square. Groups are then averaged, so that networks of any depth can be read.

    Arguments:
        hidden: Size of a state.
        codes: Size of the code that distinguishes groups.
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
        runs: Sequence[int] | None = None,
    ) -> Float[Tensor, "*graphs read"]:
        """Return `(N, 4 hidden)`, or `(graphs, 4 hidden)` where `graph` numbers the graph of a union of each state.

        In a shared graph the states of a group are adjacent, and `runs` are their numbers.
        """
        if graph is not None:  # a group of each graph; a shallower network has fewer
            of_graph = int(group.max()) + 1
            present, group = torch.unique(group + of_graph * graph, return_inverse=True)
        elif runs is None:
            runs = group.bincount().tolist()
        mean, square = self.moments(states, group, runs)
        features = self.norm(torch.cat([mean, (square + TINY).log() / 2], -1))
        code = self.mean(code, group, dim_size=len(mean))
        code = code.view(len(code), *[1] * (features.ndim - 2), -1).expand(*features.shape[:-1], -1)
        read = self.group(torch.cat([features, code], -1))
        return read.mean(0) if graph is None else self.mean(read, present // of_graph)

    def moments(
        self, states: Tensor, group: Tensor, runs: Sequence[int] | None
    ) -> Float[Tensor, "2 groups *networks hidden"]:
        """Return means of the positive part and of the square, of runs of states or of groups."""
        if runs is not None:
            return Moments.apply(states, list(runs))
        return torch.stack([self.mean(power, group) for power in (states.relu(), states.square())])


class Moments(torch.autograd.Function):
    """Means of the positive part and of the square over runs of states.

    The backward pass takes most of the time: it goes through the states once here, and six times by `autograd`.
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
    """Updates edges by the nodes at their ends: `out` of what this returns is added to an edge's state.

    Arguments:
        hidden: Size of node and edge states.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__(node_dim=0)
        self.source, self.target = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.edge, self.out = (nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        nn.init.zeros_(self.out.weight)  # updates begin at zero and grow as far as they help

    def forward(
        self,
        nodes: Float[Tensor, "nodes *#networks hidden"],
        edges: Float[Tensor, "edges *#networks hidden"],
        edge_index: Int[Tensor, "2 edges"],
    ) -> Float[Tensor, "edges *networks hidden"]:
        """Return the change of edges before `out`."""
        # Nodes are projected before they are gathered, since there are far more edges than nodes.
        ends = {"source": self.source(nodes), "target": self.target(nodes)}
        return self.edge_updater(edge_index, **ends, edges=edges)

    def edge_update(self, source_j: Tensor, target_i: Tensor, edges: Tensor) -> Tensor:
        """Return the change of one edge before `out`."""
        # Memory traffic takes the time, so sums are in place where nothing else needs the tensor.
        return self.edge(edges).add_(source_j).add_(target_i).relu_()


class RunningNorm(nn.Module):
    """Standardises features by a running mean and variance over the networks seen so far.

    Similar networks differ little in these features relative to their common part. Unlike with batch normalisation, the
    output for a network does not depend on the others in its batch.

    Arguments:
        features: Number of features.
        momentum: Fraction of each batch in the running mean and variance.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, features: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("var", torch.ones(features))

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """Return standardised features."""
        if self.training:
            with torch.no_grad():
                flat = x.flatten(0, -2)
                self.mean.lerp_(flat.mean(0), self.momentum)
                self.var.lerp_(flat.var(0, correction=0), self.momentum)
        return (x - self.mean) / (self.var + 1e-5).sqrt()
