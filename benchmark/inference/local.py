"""Local reparametrisation: every example has its own random weights, which are drawn through the outputs of layers.

For an example `x`, a layer whose weights are Gaussian with mean M, factors `V_1 … V_r` and diagonal S returns

    M x + sum_i z_i V_i x + sqrt(S x^2) e,    z_i ~ N(0, 1 / r), e ~ N(0, 1) for each output.

A bias counts as the weight of an input 1.

Source: Kingma, Salimans, Welling 2015, *Variational Dropout and the Local Reparameterization Trick*,
https://arxiv.org/abs/1506.02557; for factors Tomczak, Swaroop, Turner 2020, *Efficient Low Rank Gaussian Variational
Inference for Neural Networks*,
https://proceedings.neurips.cc/paper/2020/hash/310cc7ca5a76a446f85c1a0d641ba96d-Abstract.html.
"""

import copy
from collections.abc import Sequence
from functools import partial
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.treatments import Treated

LAYERS = (nn.Linear, nn.Conv2d)


class Local(nn.Module):
    """A linear map or convolution whose weights are drawn for each example.

    Arguments:
        layer: Layer that is made random.
        rank: Number r of factors.

    Attributes:
        mean: Layer whose weights are M.
        variance: Layer whose weights are S; it has one output if S is the same for all outputs. Its bias is never 0.
        factors: Layer without bias whose outputs are those of all factors, one after another.
        factor_bias: Bias of each factor, `(r, outputs)`.
        z: Standard normals, divided by `sqrt(r)`, for each example, `(B, r)`.
        noise: Standard normals e for each output of each example, `(B, ...)`.
    """

    noise: Tensor
    z: Tensor
    factor_bias: Tensor

    def __init__(self, layer: nn.Module, rank: int) -> None:
        super().__init__()
        self.mean, self.variance, self.rank = layer, copy.deepcopy(layer), rank
        for name in ("noise", "z", "factor_bias"):
            self.register_buffer(name, torch.zeros(()))
        if rank:
            self.factors = copy.deepcopy(layer)
            self.factors.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs `(B, ...)` to random outputs `(B, ...)`."""
        variance = self.variance(x.square())
        if self.variance.bias is None:  # so that the square root has a derivative even for an input of zeros
            variance = variance + torch.finfo(x.dtype).tiny
        y = self.mean(x).addcmul(variance.sqrt(), self.noise)
        if not self.rank:
            return y
        each = self.factors(x).unflatten(1, (self.rank, -1))  # (B, r, outputs, ...)
        pixels = [1] * (each.ndim - 3)
        y = y + (each * self.z.view(*self.z.shape, 1, *pixels)).sum(1)
        return y if self.mean.bias is None else y + (self.z @ self.factor_bias).unflatten(1, (-1, *pixels))


def layers_of(treated: Treated) -> dict[str, dict[str, slice]]:
    """Return the columns of a row that hold the weight and bias of each linear map and convolution, by layer."""
    layers = {name: part for name, part in treated.module.named_modules() if isinstance(part, LAYERS)}
    slices = treated.layout.slices
    return {
        name: {kind: slices[f"{name}.{kind}"] for kind, _ in part.named_parameters()} for name, part in layers.items()
    }


def localise(treated: Treated, rank: int) -> nn.Module:
    """Return a copy of a network in which every linear map and convolution is a `Local` of the given rank."""
    module = copy.deepcopy(treated.module)
    for name in layers_of(treated):
        module.set_submodule(name, Local(module.get_submodule(name), rank))
    return module


def output_shapes(treated: Treated, x: Float[Tensor, "1 ..."]) -> dict[str, torch.Size]:
    """Return the shape of each layer's output for one example, by the layer's name."""
    shapes: dict[str, torch.Size] = {}
    module = copy.deepcopy(treated.module)
    for name in layers_of(treated):
        keep = partial(lambda layer, part, inputs, output: shapes.update({layer: output.shape[1:]}), name)
        module.get_submodule(name).register_forward_hook(keep)
    module(x)
    return shapes


def draw_noise(
    shapes: dict[str, torch.Size], rank: int, like: Float[Tensor, "networks batch ..."], rngs: Sequence[torch.Generator]
) -> dict[str, Tensor]:
    """Draw the buffers `noise` and `z` of all layers for a batch, `(K, B, ...)` by their names.

    Arguments:
        shapes: Shape of each layer's output for one example.
        rank: Number of factors.
        like: Batch of each network, which gives size, type and device.
        rngs: Generator of each network.
    """
    wanted = {f"{name}.noise": shape for name, shape in shapes.items()}
    wanted |= {f"{name}.z": torch.Size([rank]) for name in shapes if rank}
    sizes = [like.shape[1] * prod(shape) for shape in wanted.values()]
    drawn = torch.empty(len(rngs), sum(sizes), dtype=like.dtype, device=rngs[0].device)
    for row, rng in zip(drawn, rngs, strict=True):
        row.normal_(generator=rng)
    parts = zip(wanted.items(), drawn.to(like.device).split(sizes, 1), strict=True)
    noise = {name: part.unflatten(1, (like.shape[1], *shape)) for (name, shape), part in parts}
    return {name: part / rank**0.5 if name.endswith(".z") else part for name, part in noise.items()}
