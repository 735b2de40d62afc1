"""Attention over the units of a network as a set, each described by its weights.

Source: Lee et al. 2019, *Set Transformer: A Framework for Attention-based Permutation-Invariant Neural Networks*,
https://arxiv.org/abs/1810.00825; for a token for each unit Schürholt et al. 2021, *Self-Supervised Representation
Learning on Neural Network Weights for Model Characteristic Prediction*, https://arxiv.org/abs/2110.15288, whose tokens
are not invariant.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.nn import MLP, SetTransformerAggregation

from metanets.inputs import QUANTILES, Reader
from metanets.models.base import Metanetwork
from metanets.settings import Settings
from zoo.networks.parameter import IDENTIFIED, Parameter

KEPT = 256  # entries of a unit beyond which statistics replace them: 64 inputs fit, the 3,072 of CIFAR-10 do not


class SetTransformer(Metanetwork):
    """Self-attention among units, then attention of learnt queries to them.

    A token describes one unit of a hidden axis or of the output: its bias, norm scale, norm shift, and its incoming and
    outgoing weights. Weights from inputs or to outputs, whose order has a meaning, are given as they are, up to 256
    of them; other weights by their mean, standard deviation, minimum, quartiles and maximum. So no permutation of
    hidden units changes the set of tokens. Entries that are not read count as 0. Each axis has its own linear map and
    code, and each output unit its own code.

    Arguments:
        reader: Reader of the networks.
        outputs: Number of outputs.
        hidden: Length of a token's embedding.
        heads: Number of attention heads, each of `hidden / heads` numbers.
        layers: Number of layers of self-attention.
        queries: Number of learnt vectors that attend to the units in the end.
    """

    reads = "tensors"
    settings = Settings(epochs=30, steps=1600, batch_size=16)  # those of deepsets
    read: Tensor
    code: Tensor

    def __init__(
        self, reader: Reader, outputs: int = 1, hidden: int = 64, heads: int = 4, layers: int = 2, queries: int = 4
    ) -> None:
        super().__init__(reader)
        self.layout = reader.layout.split
        self.axes = {axis: length for axis, length in self.layout.axes.items() if axis != "input"}
        code, codes = [], 0
        for axis, length in self.axes.items():
            own = length if axis in IDENTIFIED else 1
            code.append(codes + torch.arange(own).expand(length))
            codes += own
        self.register_buffer("code", torch.cat(code), persistent=False)
        self.register_buffer("read", reader.read.clone(), persistent=False)
        units = self._units(torch.zeros(1, self.layout.size))
        self.unit = nn.ModuleList(nn.Linear(each.shape[2], hidden, bias=False) for each in units)
        self.place = nn.Embedding(codes, hidden)
        self.attention = SetTransformerAggregation(hidden, queries, layers, heads=heads)
        self.head = MLP([queries * hidden, hidden, outputs], norm=None)

    def forward(self, x: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks outputs"]:
        """Return the outputs for each network."""
        units = self._units(x.where(self.read, 0))
        tokens = torch.cat([embed(each) for embed, each in zip(self.unit, units, strict=True)], 1)
        tokens = tokens + self.place(self.code)
        index = torch.arange(len(x), device=x.device).repeat_interleave(len(self.code))
        pooled = self.attention(tokens.flatten(0, 1), index, dim_size=len(x), max_num_elements=len(self.code))
        return self.head(pooled)

    def _units(self, x: Float[Tensor, "networks parameters"]) -> list[Float[Tensor, "networks units _"]]:
        """Return the description of the units of each axis; its width differs between axes."""
        tensors = self.layout.unflatten(x)
        described: dict[str, list[Tensor]] = {axis: [] for axis in self.axes}
        for parameter in self.layout.parameters:
            for dim, axis in enumerate(parameter.names):
                if axis in described:
                    described[axis].append(_describe(tensors[parameter.name], parameter, dim))
        return [torch.cat(parts, 2) for parts in described.values()]


def _describe(tensor: Tensor, parameter: Parameter, dim: int) -> Float[Tensor, "networks units _"]:
    """Return the entries of each unit along a dimension, or statistics of them where their order has no meaning."""
    entries = tensor.movedim(dim + 1, 1).reshape(len(tensor), parameter.shape[dim], -1)
    others = parameter.names[:dim] + parameter.names[dim + 1 :]
    if all(axis is None or axis in IDENTIFIED for axis in others) and entries.shape[2] <= KEPT:
        return entries
    entries = entries.sort(2).values
    last = entries.shape[2] - 1
    moments = torch.stack([entries.mean(2), entries.std(2, correction=0)], 2)
    return torch.cat([moments, entries[..., [round(q * last) for q in QUANTILES]]], 2)
