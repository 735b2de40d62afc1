"""Graph networks that classify the nodes of one graph, with layers of mean aggregation (GraphSAGE).

Source: Hamilton, Ying, Leskovec 2017, *Inductive Representation Learning on Large Graphs*,
https://arxiv.org/abs/1706.02216. Three layers with a norm, as in Lim et al. 2024, section 5.1,
https://arxiv.org/abs/2405.20231.
"""

import itertools
from functools import lru_cache
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from zoo.data.graphs import Graph, graph_of
from zoo.networks.architectures.base import ACTIVATIONS, Activation, Architecture, norm_axes


@lru_cache(maxsize=4)
def _graph_on(graph: Graph, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return features and edges of a graph on a device, where they stay."""
    return graph.x.to(device, dtype), graph.edge_index.to(device)


class GNN(Architecture):
    """Layers of mean aggregation on a graph of `zoo.data.graphs.GRAPHS`.

    An example is the number of a node. Every forward pass computes all nodes of the graph.

    Arguments:
        graph: Name of the graph whose nodes are classified.
        features: Number of features of a node.
        classes: Number of outputs.
        hidden: Number of units of every hidden layer.
        layers: Number of layers, including the output layer.
        activation: Activation after each hidden layer.
        norm: Norm of each hidden layer: `layer` is LayerNorm, `batch` is batch norm over all nodes, as in that paper.

    Example:
        >>> sum(p.numel() for p in GNN().parameters())
        11269
    """

    whole = True
    later = frozenset({"norm"})

    def __init__(
        self,
        graph: Literal["sbm", "ogbn-arxiv"] = "sbm",
        features: PositiveInt = 16,
        classes: PositiveInt = 5,
        hidden: PositiveInt = 64,
        layers: Annotated[int, Field(ge=2)] = 3,
        activation: Activation = "relu",
        norm: Literal["layer", "batch"] = "layer",
    ) -> None:
        from torch_geometric.nn import SAGEConv

        super().__init__()
        self.graph = graph
        widths = [features, *[hidden] * (layers - 1), classes]
        self.convs = nn.ModuleList(SAGEConv(i, o) for i, o in itertools.pairwise(widths))
        kind = nn.LayerNorm if norm == "layer" else nn.BatchNorm1d
        self.norms = nn.ModuleList(kind(hidden) for _ in range(layers - 1))
        self.activations = nn.ModuleList(ACTIVATIONS[activation]() for _ in range(layers - 1))

        axes = ["input", *(f"hidden{i}" for i in range(layers - 1)), "output"]
        self.axes, self.roles = {}, {}
        for i, (before, units) in enumerate(itertools.pairwise(axes)):
            self.axes[f"convs.{i}.lin_l.weight"] = (units, before)
            self.axes[f"convs.{i}.lin_l.bias"] = (units,)
            self.axes[f"convs.{i}.lin_r.weight"] = (units, before)
            self.roles |= {f"convs.{i}.{part}.weight": "weight" for part in ("lin_l", "lin_r")}
            self.roles[f"convs.{i}.lin_l.bias"] = "bias"
            if units != "output":
                self.axes |= norm_axes(self.norms[i], f"norms.{i}", units)
        self.sites = {f"activations.{i}": f"hidden{i}" for i in range(layers - 1)}

    def forward(self, nodes: Tensor) -> Tensor:
        """Map node numbers `(B, 1)` to logits `(B, classes)`."""
        weight = next(self.parameters())
        x, edge_index = _graph_on(graph_of(self.graph, self.data_dir), weight.device, weight.dtype)
        for conv, norm, activation in zip(self.convs, self.norms, self.activations, strict=False):
            x = activation(norm(conv(x, edge_index)))
        return self.convs[-1](x, edge_index)[nodes[:, 0].long()]

    @classmethod
    def narrow(cls, arguments: dict[str, Any], width: float) -> dict[str, Any]:
        """Multiply the units of the hidden layers by `width`, rounded to the nearest integer."""
        return arguments | {"hidden": max(1, round(width * arguments["hidden"]))}
