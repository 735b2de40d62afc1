"""K networks at once: a `(K, P)` tensor of rows, run through one ordinary module.

Every phenomenon in this project is the evaluation of some stack.
"""

import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from zoo.parameters import ParameterLayout, Permutations

EVALUATION_BATCH = 256  # examples run at once: larger batches leave the cache
STACK_BYTES = 8 << 20  # of rows worked on together: with gradient and moments they should stay in cache


class Evaluation(NamedTuple):
    """Accuracy (a share) and mean cross-entropy (in nats) of each network, `(K,)`."""

    accuracy: Float[Tensor, " networks"]
    loss: Float[Tensor, " networks"]


def is_convolutional(module: nn.Module) -> bool:
    """Whether a module holds convolutions, which `vmap` slows down on a CPU."""
    return any(isinstance(m, nn.Conv2d) for m in module.modules())


def stack_size(module: nn.Module, layout: ParameterLayout, device: torch.device | str) -> int:
    """How many networks to work on at once. Speed depends on it, results do not."""
    convolutional = is_convolutional(module)
    if torch.device(device).type == "cpu":
        return 1 if convolutional else max(1, min(128, STACK_BYTES // (4 * layout.size)))
    return 16 if convolutional else 512


def run_stack(
    module: nn.Module,
    layout: ParameterLayout,
    rows: Float[Tensor, "networks parameters"],
    x: Float[Tensor, "networks batch ..."],
) -> Float[Tensor, "networks batch classes"]:
    """Run network `k` on inputs `x[k]`: by `vmap`, or one by one where convolutions meet a CPU."""
    tensors = layout.unflatten(rows)
    if rows.device.type == "cpu" and is_convolutional(module):
        networks = [{name: _channels_last(tensor[k]) for name, tensor in tensors.items()} for k in range(len(rows))]
        inputs = [_channels_last(images) for images in x]
        return torch.stack([functional_call(module, n, (i,)) for n, i in zip(networks, inputs, strict=True)])
    return vmap(lambda network, batch: functional_call(module, network, (batch,)))(tensors, x)


def _channels_last(tensor: Tensor) -> Tensor:
    # Kernels too: images of one channel do not say which format they are in.
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def cross_entropy(
    logits: Float[Tensor, "networks batch classes"],
    y: Int[Tensor, "networks batch"],
    smoothing: Float[Tensor, " networks"] | None = None,
) -> Float[Tensor, " networks"]:
    """Return each network's mean cross-entropy, its labels smoothed by its own `smoothing`."""
    log_p = logits.log_softmax(-1)
    loss = -log_p.gather(-1, y[..., None]).squeeze(-1).mean(-1)
    if smoothing is None:
        return loss
    return (1 - smoothing) * loss - smoothing * log_p.mean((-2, -1))


@dataclass(frozen=True)
class Stack:
    """K networks of one architecture under one treatment.

    Arguments:
        rows: the weights as used, `(K, P)`.
        module: the architecture with the treatment's activations; its own parameters are not used.
        layout: what the columns mean.
    """

    rows: Float[Tensor, "networks parameters"]
    module: nn.Module
    layout: ParameterLayout

    def __len__(self) -> int:
        """K."""
        return len(self.rows)

    def logits(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "networks batch classes"]:
        """Run every network on the same inputs."""
        return run_stack(self.module, self.layout, self.rows, x.expand(len(self), *x.shape))

    def evaluate(self, x: Float[Tensor, "examples ..."], y: Int[Tensor, " examples"]) -> Evaluation:
        """Measure every network on the same labelled data, in bounded memory."""
        portions = self.rows.split(stack_size(self.module, self.layout, self.rows.device))
        parts = [replace(self, rows=rows)._measure(x, y) for rows in portions]
        return Evaluation(*(torch.cat(values) for values in zip(*parts, strict=True)))

    @torch.no_grad()
    def _measure(self, x: Tensor, y: Tensor) -> Evaluation:
        correct = torch.zeros(len(self), dtype=torch.int64, device=x.device)
        loss = torch.zeros(len(self), dtype=torch.float64, device=x.device)
        for images, labels in zip(x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH), strict=True):
            logits = self.logits(images)
            correct += (logits.argmax(-1) == labels).sum(-1)
            loss += len(labels) * cross_entropy(logits, labels.expand(len(self), -1)).double()
        return Evaluation(*((total.double() / len(y)).to(self.rows.dtype) for total in (correct, loss)))

    def permute(self, permutations: Permutations) -> "Stack":
        """Return the stack with hidden units permuted, see `ParameterLayout.permute`."""
        return replace(self, rows=self.layout.permute(self.rows, permutations))

    def network(self, k: int) -> nn.Module:
        """Return network `k` as an ordinary module of its own."""
        module = copy.deepcopy(self.module)
        tensors = self.layout.unflatten(self.rows[k])
        for name, parameter in module.named_parameters():
            parameter.data = tensors[name].detach().clone()
        return module.requires_grad_(True)
