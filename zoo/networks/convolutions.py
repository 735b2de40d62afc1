"""Other ways to train the convolutions of a stack, for GPUs.

By default `vmap` makes one grouped convolution of the K convolutions of a stack, and cuDNN has no fast kernels for
many groups (https://github.com/pytorch/pytorch/issues/70954). Which way is the fastest depends on the shapes.
"""

import copy
from contextlib import nullcontext
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from zoo.networks.stack import Stack, cross_entropy, in_format, kernel_format

STREAMS = 8  # networks that a GPU works on at once


class UnfoldedConv2d(nn.Conv2d):
    """A convolution as a product of its kernels with unfolded images, which `vmap` makes a batched product of."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, inputs, H, W)` to `(B, outputs, H', W')`."""
        assert not isinstance(self.padding, str)
        columns = functional.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)
        y = self.weight.flatten(1) @ columns
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        shape = [(x.shape[i - 2] + 2 * self.padding[i] - reach[i]) // self.stride[i] + 1 for i in range(2)]
        return (y if self.bias is None else y + self.bias[:, None]).unflatten(-1, shape)


def unfold_convolutions(module: nn.Module) -> nn.Module:
    """Return a copy of a module with `UnfoldedConv2d` where it has ordinary convolutions."""
    module = copy.deepcopy(module)
    for layer in module.modules():
        ordinary = type(layer) is nn.Conv2d and layer.groups == 1 and layer.padding_mode == "zeros"
        if ordinary and not isinstance(layer.padding, str):
            layer.__class__ = UnfoldedConv2d  # which has the same parameters and attributes
    return module


@cache
def _streams(device: torch.device) -> list[torch.cuda.Stream]:
    """Return the streams of a GPU, always the same ones, since libraries keep memory for each."""
    return [torch.cuda.Stream(device) for _ in range(STREAMS)]


def stream_gradient(
    stack: Stack,
    x: Float[Tensor, "networks batch ..."],
    y: Int[Tensor, "networks batch"],
    smoothing: Float[Tensor, " networks"],
) -> tuple[Float[Tensor, " networks"], Float[Tensor, "networks parameters"]]:
    """Return the same as `stack_gradient`, from one network after the other, on a GPU in several streams at once."""
    streams = _streams(stack.rows.device) if stack.rows.is_cuda else []
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
    memory = kernel_format(stack.module)
    losses: list[Tensor] = []
    gradients: list[Tensor] = []
    for k, row in enumerate(stack.rows.detach().unbind()):
        with torch.cuda.stream(streams[k % STREAMS]) if streams else nullcontext():
            row = row.requires_grad_()
            tensors = stack.take(slice(k, k + 1)).with_rows(row[None]).tensors()
            network = {name: in_format(tensor[0], memory) for name, tensor in tensors.items()}
            logits = functional_call(stack.module, network, (x[k],))
            (loss,) = cross_entropy(logits[None].to(row.dtype), y[k : k + 1], smoothing[k : k + 1])
            losses.append(loss.detach())
            gradients += torch.autograd.grad(loss, row)
    for stream in streams:
        torch.cuda.current_stream().wait_stream(stream)
    return torch.stack(losses), torch.stack(gradients)
