"""Local reparametrisation: every example meets weights of its own, drawn by what they make of it.

For an example `x`, a Gaussian layer of mean M, factors `V_1 … V_r` and diagonal S makes

    M x + sum_i z_i V_i x + sqrt(S x^2) e,    z_i ~ N(0, 1 / r), e ~ N(0, 1) for each output,

a bias being the weight of an input 1.

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
    """A layer whose weights each example draws for itself.

    Arguments:
        layer: that is made random.
        rank: r.

    Attributes:
        mean: the layer with the mean as its weights.
        variance: the layer with the diagonal as its weights; of one output if all have the same. Its bias is never 0.
        factors: the layer with those of all factors side by side as its outputs, without bias.
        factor_bias: of each factor, `(r, outputs)`.
        z: for each example, `(B, r)`.
        noise: for each output of each example, `(B, ...)`.
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
        if self.variance.bias is None:  # else not even that of an input of zeros is zero
            variance = variance + torch.finfo(x.dtype).tiny
        y = self.mean(x).addcmul(variance.sqrt(), self.noise)
        if not self.rank:
            return y
        each = self.factors(x).unflatten(1, (self.rank, -1))  # (B, r, outputs, ...)
        pixels = [1] * (each.ndim - 3)
        y = y + (each * self.z.view(*self.z.shape, 1, *pixels)).sum(1)
        return y if self.mean.bias is None else y + (self.z @ self.factor_bias).unflatten(1, (-1, *pixels))


def layers_of(treated: Treated) -> dict[str, dict[str, slice]]:
    """Return where in a row the parameters of each linear map and convolution stand, by its name and theirs."""
    layers = {name: part for name, part in treated.module.named_modules() if isinstance(part, LAYERS)}
    slices = treated.layout.slices
    return {name: {own: slices[f"{name}.{own}"] for own, _ in part.named_parameters()} for name, part in layers.items()}


def localise(treated: Treated, rank: int) -> nn.Module:
    """Return a copy of a network, all of its layers made random."""
    module = copy.deepcopy(treated.module)
    for name in layers_of(treated):
        module.set_submodule(name, Local(module.get_submodule(name), rank))
    return module


def output_shapes(treated: Treated, x: Float[Tensor, "1 ..."]) -> dict[str, torch.Size]:
    """Return the shape of what each layer makes of one example."""
    shapes: dict[str, torch.Size] = {}
    module = copy.deepcopy(treated.module)
    for name in layers_of(treated):
        keep = partial(lambda own, part, given, output: shapes.update({own: output.shape[1:]}), name)
        module.get_submodule(name).register_forward_hook(keep)
    module(x)
    return shapes


def draw_noise(
    shapes: dict[str, torch.Size], rank: int, like: Float[Tensor, "networks batch ..."], rngs: Sequence[torch.Generator]
) -> dict[str, Tensor]:
    """Draw what the layers need for a batch, `(K, B, ...)`, of each network by its own generator on the CPU."""
    wanted = {f"{name}.noise": shape for name, shape in shapes.items()}
    wanted |= {f"{name}.z": torch.Size([rank]) for name in shapes if rank}
    sizes = [like.shape[1] * prod(shape) for shape in wanted.values()]
    drawn = torch.empty(len(rngs), sum(sizes), dtype=like.dtype)
    for own, rng in zip(drawn, rngs, strict=True):
        own.normal_(generator=rng)
    parts = zip(wanted.items(), drawn.to(like.device).split(sizes, 1), strict=True)
    noise = {name: part.unflatten(1, (like.shape[1], *shape)) for (name, shape), part in parts}
    return {name: part / rank**0.5 if name.endswith(".z") else part for name, part in noise.items()}
