"""Stacks: K networks as a `(K, P)` tensor of rows, which run through one ordinary module.

Training and all measurements in this project run on stacks. The constants below are chosen for speed, by measurements
on two cores of an AMD EPYC (AVX2) with one thread.
"""

import copy
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from zoo.networks.parameters import ParameterLayout, Permutations
from zoo.networks.roles import BATCH_NORMS

# Parameters from which MLPs train one by one on a CPU. `vmap` saves 15 % of a step at 119,000 parameters, costs nothing
# at 236,000, and costs 8 % at 455,000 and 37 % at 672,000.
LARGE = 400_000
# Networks whose logits are scored together. From 2 to 32 networks the time differs by 10 %.
SCORED_TOGETHER = 16
# Size of the rows of a stack on a CPU. A step of an MLP with 55,306 parameters takes the same time, within 4 %, from
# 4 to 16 MB, and 10 to 20 % more at 2 MB and at 27 MB.
STACK_BYTES = 8 << 20
# Most networks in a stack. A step of an MLP with 3,594 parameters gains 5 % from 256 networks.
MOST_NETWORKS = 128
# Most activations of a forward pass without gradients on a GPU, 2 GiB in float32; by choice, not measured.
GPU_ACTIVATIONS = 1 << 29
# Examples in a forward pass without gradients. CNNs take the same time from 256 to 2,048 and 60 % more at 4,096. MLPs
# with 55,306 parameters gain 15 % from 256 to 2,048, and nothing beyond.
CNN_BATCH, BATCH = 256, 2048

Index = SupportsIndex | slice | Sequence[int] | NDArray[Any] | Tensor


class Evaluation(NamedTuple):
    """Accuracy (a fraction) and mean cross-entropy (in nats) of each network, `(K,)`."""

    accuracy: Float[Tensor, " networks"]
    loss: Float[Tensor, " networks"]


def is_convolutional(module: nn.Module) -> bool:
    """Return whether a module has convolutions, which `vmap` slows down on a CPU."""
    return any(isinstance(m, nn.Conv2d) for m in module.modules())


def one_by_one(module: nn.Module, device: torch.device | str) -> bool:
    """Return whether networks run one by one and not through `vmap`.

    On a CPU this holds for networks with convolutions and for large ones, because it is faster, and for those with
    batch norm, whose gradients `vmap` would round otherwise for one network than for several (PyTorch 2.13.0). On a GPU
    it never holds, see also `zoo.networks.convolutions`.
    """
    large = sum(parameter.numel() for parameter in module.parameters()) >= LARGE
    normed = any(isinstance(m, BATCH_NORMS) for m in module.modules())
    return torch.device(device).type == "cpu" and (is_convolutional(module) or large or normed)


def stack_size(module: nn.Module, layout: ParameterLayout, device: torch.device | str) -> int:
    """Return the number of networks to work on at once, for speed; results do not depend on it."""
    if one_by_one(module, device):
        return 1
    if torch.device(device).type == "cpu":
        return max(1, min(MOST_NETWORKS, STACK_BYTES // (4 * layout.size)))
    return 16 if is_convolutional(module) else 512  # bounds the memory for activations on a GPU


def batch_size(module: nn.Module, device: torch.device | str = "cpu") -> int:
    """Return the number of examples to run a network on at once; on a CPU, its activations then stay in cache."""
    return CNN_BATCH if is_convolutional(module) and torch.device(device).type == "cpu" else BATCH


def run_stack(stack: "Stack", x: Float[Tensor, "networks batch ..."]) -> Float[Tensor, "networks batch classes"]:
    """Run network `k` on inputs `x[k]`; the output can be differentiated any number of times, also by the rows."""
    tensors = stack.tensors()
    if one_by_one(stack.module, stack.rows.device):
        memory = kernel_format(stack.module)
        networks = [{n: in_format(t[k], memory) for n, t in tensors.items()} for k in range(len(stack))]
        outputs = [functional_call(stack.module, network, (batch,)) for network, batch in zip(networks, x, strict=True)]
        return torch.stack(outputs)
    return vmap(lambda network, batch: functional_call(stack.module, network, (batch,)))(tensors, x)


def stack_gradient(
    stack: "Stack",
    x: Float[Tensor, "networks batch ..."],
    y: Int[Tensor, "networks batch"],
    smoothing: Float[Tensor, " networks"] | None = None,
) -> tuple[Float[Tensor, " networks"], Float[Tensor, "networks parameters"]]:
    """Return the mean cross-entropy of each network and its gradient with respect to the network's row.

    Arguments:
        stack: Networks; see `in_training` for batch norm.
        x: Examples of each network.
        y: Their labels.
        smoothing: Label smoothing of each network, a fraction; None for no smoothing.
    """
    if not one_by_one(stack.module, stack.rows.device):
        rows = stack.rows.detach().requires_grad_()
        logits = run_stack(replace(stack, rows=rows), x).to(rows.dtype)  # which are shorter under autocast
        loss = cross_entropy(logits, y, smoothing)
        return loss.detach(), torch.autograd.grad(loss.sum(), rows)[0]
    # The stack's own module becomes one network after the other. For such small networks, a copy of it, or
    # `functional_call` with a backward pass through its views, would take 10 % of a step or more.
    losses, gradients = [], []
    parameters = dict(stack.module.named_parameters())
    tensors = parameters | dict(stack.module.named_buffers())
    before = {name: tensor.data for name, tensor in tensors.items()}
    for k, network in enumerate(_become(stack, stack.module)):
        fraction = 0.0 if smoothing is None else float(smoothing[k])
        loss = nn.functional.cross_entropy(network(x[k]), y[k], label_smoothing=fraction)
        gradient = torch.autograd.grad(loss, list(parameters.values()))
        losses.append(loss.detach())
        statistics = {name: torch.zeros_like(before[name]) for name in stack.layout.statistics}
        gradients.append(stack.layout.flatten(dict(zip(parameters, gradient, strict=True)) | statistics))
    for name, tensor in tensors.items():
        tensor.data = before[name]  # leaves the caller's module unchanged
    return torch.stack(losses), torch.stack(gradients)


@contextmanager
def in_training(stack: "Stack") -> Iterator["Stack"]:
    """Let the batch norms of networks, if there are any, normalise by minibatches and update their running statistics.

    Yields the stack, with copies of the running statistics in `own`, which take the place of those in the rows.
    """
    if not stack.layout.statistics:
        yield stack
        return
    tensors = stack.layout.unflatten(stack.rows)
    stack.module.train()
    try:
        yield replace(stack, own={**stack.own, **{name: tensors[name].clone() for name in stack.layout.statistics}})
    finally:
        stack.module.eval()


def in_turn(stack: "Stack") -> Iterator[nn.Module]:
    """Yield the same module K times, with the weights of one network after the other.

    Run it at once and do not keep it: the next step overwrites its weights. The stack's own module stays unchanged.
    """
    return _become(stack, copy.deepcopy(stack.module))


def _become(stack: "Stack", module: nn.Module) -> Iterator[nn.Module]:
    """Put the weights of one network after the other into a module, and yield it each time."""
    tensors = stack.with_rows(stack.rows.detach()).tensors()
    buffers = {name: module.get_buffer(name) for name in (*stack.layout.statistics, *stack.own)}
    places = dict(module.named_parameters()) | buffers
    memory = kernel_format(module)
    for network in zip(*(tensors[name].unbind() for name in places), strict=True):
        for place, values in zip(places.values(), network, strict=True):
            place.data = in_format(values, memory)
        yield module


def kernel_format(module: nn.Module) -> torch.memory_format:
    """Return the memory format of a module's kernels, which decides that of the images they produce.

    Channels last is faster. But with it, the backward pass of some narrow convolutions writes beyond its memory on a
    CPU (PyTorch 2.13.0 with oneDNN 3.12.0), so networks that have such do without.
    """
    convolutions = (m for m in module.modules() if isinstance(m, nn.Conv2d))
    if any(max(m.kernel_size) == 1 < max(m.stride) and m.in_channels < 8 for m in convolutions):
        return torch.contiguous_format
    return torch.channels_last


def in_format(values: Tensor, memory: torch.memory_format) -> Tensor:
    """Return the kernels of a convolution in a memory format, and other tensors as they are."""
    # `contiguous(memory_format=...)` would not change kernels of one channel, which count as contiguous in any format.
    return values.to(memory_format=memory) if values.ndim == 4 else values


def cross_entropy(
    logits: Float[Tensor, "networks batch classes"],
    y: Int[Tensor, "networks batch"],
    smoothing: Float[Tensor, " networks"] | None = None,
) -> Float[Tensor, " networks"]:
    """Return the mean cross-entropy of each network, with its own label smoothing if `smoothing` is given."""
    # `log_softmax` is many times slower for so few classes. The classes stay the last dimension: otherwise sums would
    # be rounded differently, depending on the other networks of the stack.
    logits = logits - logits.amax(-1, keepdim=True).detach()
    log_sum = logits.exp().sum(-1).log()  # (K, B)
    loss = (log_sum - logits.gather(-1, y[..., None]).squeeze(-1)).mean(-1)
    if smoothing is None:
        return loss
    return (1 - smoothing) * loss + smoothing * (log_sum - logits.mean(-1)).mean(-1)


def score_examples(
    parts: Iterable[Float[Tensor, "some examples classes"]], y: Int[Tensor, " examples"]
) -> Iterator[tuple[Float[Tensor, "networks examples"], Float[Tensor, "networks examples"]]]:
    """Yield, for a few networks at a time, whether each example is classified correctly and its cross-entropy.

    A prediction is the class with the greatest logit, the first one if several are equal. Correct is 1, wrong is 0.

    Arguments:
        parts: Logits of one network, or of several, after the other.
        y: Labels.
    """
    parts = iter(parts)
    while together := _next_networks(parts):
        # Reductions over so few classes are many times faster if the classes come first. `argmax` is slow even then, so
        # the first class with the greatest logit is found by products and `amax`.
        logits = torch.cat([part.permute(2, 0, 1) for part in together], 1)  # (C, K, B)
        classes = len(logits)
        below = logits.sub_(logits.amax(0))  # 0 at the greatest logit, negative elsewhere
        rank = torch.arange(classes, 0, -1, dtype=below.dtype, device=below.device)[:, None, None]
        predicted = classes - below.sign().add_(1).mul_(rank).amax(0)
        label = below.gather(0, y.expand(1, *below.shape[1:]))[0]
        yield (predicted == y).to(below.dtype), functools.reduce(torch.add, below.exp_().unbind()).log() - label


def _next_networks(parts: Iterator[Tensor]) -> list[Tensor]:
    """Return the next parts, which hold `SCORED_TOGETHER` networks or more, unless there are fewer."""
    together: list[Tensor] = []
    while sum(map(len, together)) < SCORED_TOGETHER and (part := next(parts, None)) is not None:
        together.append(part)
    return together


def averaged(
    correct: Float[Tensor, "networks examples"], loss: Float[Tensor, "networks examples"], sizes: Sequence[int]
) -> list[Evaluation]:
    """Return accuracy and mean loss over each of several consecutive sets of examples.

    Arguments:
        correct: Whether each example is classified correctly, 1 or 0.
        loss: Cross-entropy of each example.
        sizes: Number of examples in each set.
    """
    return [
        Evaluation(c.mean(-1), e.mean(-1)) for c, e in zip(correct.split(sizes, 1), loss.split(sizes, 1), strict=True)
    ]


@dataclass(frozen=True)
class Stack:
    """K networks of one architecture under one treatment that run together.

        >>> stack = open_zoo("zoos/digits-mlp")["standard"].stack([0, 1, 2])
        >>> stack.logits(torch.zeros(5, 64)).shape
        torch.Size([3, 5, 10])
        >>> order = {"hidden0": torch.arange(31, -1, -1)}
        >>> bool((stack.permute(order).logits(torch.ones(1, 64)) - stack.logits(torch.ones(1, 64))).abs().max() < 1e-3)
        True

    Arguments:
        rows: Weights as the networks use them, `(K, P)`.
        module: Architecture with the activations of the treatment. The values of its parameters do not matter.
        layout: Layout of the rows.
        own: Buffers of the module that differ between the networks, `(K, *shape)` by name.

    Raises:
        ValueError: If a buffer in `own` does not have one value for each row, or the module is in training mode, in
            which batch norm would change its statistics; see `in_training`.
    """

    rows: Float[Tensor, "networks parameters"]
    module: nn.Module
    layout: ParameterLayout
    own: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that there is a buffer for every network, and that batch norm will not change what it reads."""
        if self.module.training and self.layout.statistics and self.layout.statistics[0] not in self.own:
            raise ValueError("module: is in training mode, in which batch norm changes its statistics; call .eval()")
        if wrong := [name for name, tensor in self.own.items() if len(tensor) != len(self.rows)]:
            count = len(self.own[wrong[0]])
            raise ValueError(f"{wrong[0]}: {count} values for {len(self.rows)} networks; give one for each network")

    def __len__(self) -> int:
        """Return K, the number of networks."""
        return len(self.rows)

    def tensors(self) -> dict[str, Tensor]:
        """Return parameters and buffers in `own`, `(K, *shape)` by name; running statistics have no gradient."""
        tensors = self.layout.unflatten(self.rows)
        return tensors | {name: tensors[name].detach() for name in self.layout.statistics} | dict(self.own)

    def networks(self) -> Iterator[nn.Module]:
        """Yield each network as a separate module. `in_turn` is faster if you do not keep the modules."""
        return map(self.network, range(len(self)))

    def batches(self, x: Tensor) -> Sequence[Tensor]:
        """Return the examples in batches, as large as a network runs on at once."""
        return [x] if getattr(self.module, "whole", False) else x.split(batch_size(self.module, x.device))

    @torch.no_grad()
    def logits(self, x: Float[Tensor, "examples ..."]) -> Float[Tensor, "networks examples classes"]:
        """Run every network on the same inputs, without gradients; `run_stack` gives gradients."""
        return torch.cat(list(self.logits_in_parts(x)))

    def logits_in_parts(self, x: Float[Tensor, "examples ..."]) -> Iterator[Float[Tensor, "some examples classes"]]:
        """Yield the logits of some networks after the other on the same inputs; call it under `torch.no_grad`."""
        batches = self.batches(x)
        if x.device.type == "cpu":
            # One by one, activations stay in cache and each layer is one call of a kernel.
            for network in in_turn(self):
                yield torch.cat([network(batch) for batch in batches])[None]
        else:
            # One network with convolutions fills a GPU; several would be one slow grouped convolution.
            size = 1 if is_convolutional(self.module) else stack_size(self.module, self.layout, x.device)
            units = sum(parameter.shape[0] for parameter in self.layout.parameters if len(parameter.shape) > 1)
            size = max(1, min(size, GPU_ACTIVATIONS // (units * max(1, len(batches[0])))))
            for part in (self.take(slice(begin, begin + size)) for begin in range(0, len(self), size)):
                stacked = [batch.expand(len(part), *batch.shape) for batch in batches]
                yield torch.cat([run_stack(part, batch) for batch in stacked], 1)

    def evaluate(self, x: Float[Tensor, "examples ..."], y: Int[Tensor, " examples"]) -> Evaluation:
        """Return accuracy and loss of every network on the same labelled examples, in bounded memory."""
        return self.evaluate_splits((x, y))[0]

    @torch.no_grad()
    def evaluate_splits(self, *splits: tuple[Tensor, Tensor]) -> list[Evaluation]:
        """Return accuracy and loss of every network on each of several sets `(x, y)`, in one pass over the networks."""
        x, y = (torch.cat(tensors) for tensors in zip(*splits, strict=True))
        sizes = [len(labels) for _, labels in splits]
        portions = [averaged(*scores, sizes) for scores in score_examples(self.logits_in_parts(x), y)]
        by_split = zip(*portions, strict=True)  # each portion of networks has an `Evaluation` for every split
        return [Evaluation(*map(torch.cat, zip(*portion, strict=True))) for portion in by_split]

    def permute(self, permutations: Permutations) -> "Stack":
        """Return the networks with permuted hidden units, see `ParameterLayout.permute`."""
        return replace(self, rows=self.layout.permute(self.rows, permutations))

    def network(self, k: SupportsIndex) -> nn.Module:
        """Return network `k` as an ordinary, separate module."""
        return next(in_turn(self.take(k)))  # `take` and `in_turn` copy, so the module shares nothing with the stack

    def take(self, index: Index) -> "Stack":
        """Return the networks at an index as a stack; one integer gives a stack of one network."""
        index = [int(index)] if isinstance(index, int | np.integer) else index
        return replace(self, rows=self.rows[index], own={name: tensor[index] for name, tensor in self.own.items()})

    def repeat(self, times: int) -> "Stack":
        """Return a stack in which each network occurs `times` times, one after the other."""
        own = {name: tensor.repeat_interleave(times, 0) for name, tensor in self.own.items()}
        return replace(self, rows=self.rows.repeat_interleave(times, 0), own=own)

    def with_rows(self, rows: Float[Tensor, "networks parameters"]) -> "Stack":
        """Return a stack with other rows and the same module and buffers.

        Raises:
            ValueError: If the networks have their own buffers, and the number of rows differs.
        """
        return replace(self, rows=rows)
