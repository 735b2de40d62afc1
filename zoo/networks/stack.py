"""K networks at once: a `(K, P)` tensor of rows, run through one ordinary module.

Every phenomenon in this project is the evaluation of some stack.
"""

import copy
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from zoo.networks.parameters import ParameterLayout, Permutations

LARGE = 400_000  # parameters from which networks are no faster together
MEASURED = 16  # networks at once, so that their logits stay in cache
STACK_BYTES = 8 << 20  # of rows worked on together: with gradient and moments they should stay in cache

Index = slice | Sequence[int] | Tensor


class Evaluation(NamedTuple):
    """Accuracy (a share) and mean cross-entropy (in nats) of each network, `(K,)`."""

    accuracy: Float[Tensor, " networks"]
    loss: Float[Tensor, " networks"]


def is_convolutional(module: nn.Module) -> bool:
    """Whether a module holds convolutions, which `vmap` slows down on a CPU."""
    return any(isinstance(m, nn.Conv2d) for m in module.modules())


def one_by_one(module: nn.Module, device: torch.device | str) -> bool:
    """Whether networks train one after the other: on a CPU, those that `vmap` slows down or that fill a core alone."""
    large = sum(parameter.numel() for parameter in module.parameters()) >= LARGE
    return torch.device(device).type == "cpu" and (is_convolutional(module) or large)


def stack_size(module: nn.Module, layout: ParameterLayout, device: torch.device | str) -> int:
    """How many networks to work on at once. Speed depends on it, results do not."""
    if one_by_one(module, device):
        return 1
    if torch.device(device).type == "cpu":
        return max(1, min(128, STACK_BYTES // (4 * layout.size)))
    return 16 if is_convolutional(module) else 512


def batch_size(module: nn.Module) -> int:
    """How many examples to run a network on at once, so that its activations stay in cache."""
    return 256 if is_convolutional(module) else 2048


def run_stack(stack: "Stack", x: Float[Tensor, "networks batch ..."]) -> Float[Tensor, "networks batch classes"]:
    """Run network `k` on inputs `x[k]`; derivatives of any order, of the rows too, pass through."""
    tensors = stack.layout.unflatten(stack.rows) | dict(stack.own)
    if one_by_one(stack.module, stack.rows.device):
        networks = [{n: _channels_last(t[k]) for n, t in tensors.items()} for k in range(len(stack))]
        outputs = [functional_call(stack.module, own, (batch,)) for own, batch in zip(networks, x, strict=True)]
        return torch.stack(outputs)
    return vmap(lambda network, batch: functional_call(stack.module, network, (batch,)))(tensors, x)


def stack_gradient(
    stack: "Stack",
    x: Float[Tensor, "networks batch ..."],
    y: Int[Tensor, "networks batch"],
    smoothing: Float[Tensor, " networks"] | None = None,
) -> tuple[Float[Tensor, " networks"], Float[Tensor, "networks parameters"]]:
    """Return each network's mean cross-entropy and its gradient with respect to the row."""
    if not one_by_one(stack.module, stack.rows.device):
        rows = stack.rows.detach().requires_grad_()
        loss = cross_entropy(run_stack(replace(stack, rows=rows), x), y, smoothing)
        return loss.detach(), torch.autograd.grad(loss.sum(), rows)[0]
    # The module itself serves one network after the other: on so small networks, a copy of it, or `functional_call` and
    # the backward pass through its views, cost a tenth of a step or more.
    losses, gradients = [], []
    parameters = dict(stack.module.named_parameters())
    tensors = [*stack.module.parameters(), *stack.module.buffers()]
    before = [tensor.data for tensor in tensors]
    for k, network in enumerate(_in_turn(stack, stack.module)):
        part = 0.0 if smoothing is None else float(smoothing[k])
        loss = nn.functional.cross_entropy(network(x[k]), y[k], label_smoothing=part)
        gradient = torch.autograd.grad(loss, list(parameters.values()))
        losses.append(loss.detach())
        gradients.append(stack.layout.flatten(dict(zip(parameters, gradient, strict=True))))
    for tensor, values in zip(tensors, before, strict=True):
        tensor.data = values  # the module is the caller's
    return torch.stack(losses), torch.stack(gradients)


def _in_turn(stack: "Stack", module: nn.Module) -> Iterator[nn.Module]:
    """Let a module become each network of a stack in turn."""
    tensors = stack.layout.unflatten(stack.rows.detach()) | dict(stack.own)
    places = dict(module.named_parameters()) | {name: module.get_buffer(name) for name in stack.own}
    for network in zip(*(tensors[name].unbind() for name in places), strict=True):
        for place, values in zip(places.values(), network, strict=True):
            place.data = _channels_last(values)
        yield module


def _channels_last(values: Tensor) -> Tensor:
    # The kernels' format decides that of all images. `contiguous` would leave those of one channel as they are.
    return values.to(memory_format=torch.channels_last) if values.ndim == 4 else values


def cross_entropy(
    logits: Float[Tensor, "networks batch classes"],
    y: Int[Tensor, "networks batch"],
    smoothing: Float[Tensor, " networks"] | None = None,
) -> Float[Tensor, " networks"]:
    """Return each network's mean cross-entropy, its labels smoothed by its own `smoothing`."""
    # `log_softmax` takes many times as long over so few classes, and with another dimension last sums depend on the
    # networks beside.
    logits = logits - logits.amax(-1, keepdim=True).detach()
    log_sum = logits.exp().sum(-1).log()  # (K, B)
    loss = (log_sum - logits.gather(-1, y[..., None]).squeeze(-1)).mean(-1)
    if smoothing is None:
        return loss
    return (1 - smoothing) * loss + smoothing * (log_sum - logits.mean(-1)).mean(-1)


def score(
    each: Iterable[Float[Tensor, "examples classes"]], y: Int[Tensor, " examples"]
) -> Iterator[tuple[Float[Tensor, "networks examples"], Float[Tensor, "networks examples"]]]:
    """Return which examples are classified rightly (1 or 0) and the cross-entropy of each, of a few networks at a time.

    Arguments:
        each: the logits of one network after the other.
        y: the labels.
    """
    each = iter(each)
    while some := list(itertools.islice(each, MEASURED)):
        # Reductions over so few classes are many times as fast when these come first, and `argmax` is slow even then.
        logits = torch.stack([one.T for one in some], 1)  # (C, K, B)
        classes = len(logits)
        below = logits.sub_(logits.amax(0))  # 0 at the greatest
        place = torch.arange(classes, 0, -1, dtype=below.dtype, device=below.device)[:, None, None]
        predicted = classes - below.sign().add_(1).mul_(place).amax(0)  # of equal ones the first
        label = below.gather(0, y.expand(1, *below.shape[1:]))[0]
        yield (predicted == y).to(below.dtype), functools.reduce(torch.add, below.exp_().unbind()).log() - label


def averaged(
    right: Float[Tensor, "networks examples"], loss: Float[Tensor, "networks examples"], sizes: Sequence[int]
) -> list[Evaluation]:
    """Return the means over consecutive sets of examples."""
    return [
        Evaluation(r.mean(-1), e.mean(-1)) for r, e in zip(right.split(sizes, 1), loss.split(sizes, 1), strict=True)
    ]


@dataclass(frozen=True)
class Stack:
    """K networks of one architecture under one treatment.

    Arguments:
        rows: the weights as used, `(K, P)`.
        module: the architecture with the treatment's activations; the values of its own parameters do not matter.
        layout: what the columns mean.
        own: buffers of the module that differ between the networks, `(K, *shape)` by name.

    Raises:
        ValueError: if there are not as many of `own` as of `rows`.
    """

    rows: Float[Tensor, "networks parameters"]
    module: nn.Module
    layout: ParameterLayout
    own: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that every network has its own buffers."""
        if wrong := [name for name, tensor in self.own.items() if len(tensor) != len(self.rows)]:
            raise ValueError(f"{wrong[0]}: {len(self.own[wrong[0]])} for {len(self.rows)} networks")

    def __len__(self) -> int:
        """K."""
        return len(self.rows)

    def networks(self) -> Iterator[nn.Module]:
        """Return one module, a copy of the stack's, that becomes each network in turn."""
        return _in_turn(self, copy.deepcopy(self.module))

    def batches(self, x: Tensor) -> Sequence[Tensor]:
        """Return the examples in portions on which to run a network."""
        return [x] if getattr(self.module, "whole", False) else x.split(batch_size(self.module))

    @torch.no_grad()
    def logits(self, x: Float[Tensor, "examples ..."]) -> Float[Tensor, "networks examples classes"]:
        """Run every network on the same inputs; `run_stack` is for derivatives."""
        return torch.stack(list(self.each_logits(x)))

    def each_logits(self, x: Float[Tensor, "examples ..."]) -> Iterator[Float[Tensor, "examples classes"]]:
        """Run one network after the other on the same inputs; to be called under `torch.no_grad`."""
        batches = self.batches(x)
        if x.device.type == "cpu":
            # One after the other: their activations stay in cache, and each layer is one kernel.
            for network in self.networks():
                yield torch.cat([network(batch) for batch in batches])
        else:
            size = stack_size(self.module, self.layout, x.device)
            for some in (self.take(slice(begin, begin + size)) for begin in range(0, len(self), size)):
                stacked = [batch.expand(len(some), *batch.shape) for batch in batches]
                yield from torch.cat([run_stack(some, batch) for batch in stacked], 1)

    def evaluate(self, x: Float[Tensor, "examples ..."], y: Int[Tensor, " examples"]) -> Evaluation:
        """Measure every network on the same labelled data, in bounded memory."""
        return self.evaluate_splits((x, y))[0]

    @torch.no_grad()
    def evaluate_splits(self, *splits: tuple[Tensor, Tensor]) -> list[Evaluation]:
        """Measure every network on several sets `(x, y)`, in hardly more time than on the largest."""
        x, y = (torch.cat(parts) for parts in zip(*splits, strict=True))
        sizes = [len(labels) for _, labels in splits]
        parts = [averaged(*scores, sizes) for scores in score(self.each_logits(x), y)]
        columns = zip(*parts, strict=True)
        return [Evaluation(*map(torch.cat, zip(*column, strict=True))) for column in columns]

    def permute(self, permutations: Permutations) -> "Stack":
        """Return the stack with hidden units permuted, see `ParameterLayout.permute`."""
        return replace(self, rows=self.layout.permute(self.rows, permutations))

    def network(self, k: int) -> nn.Module:
        """Return network `k` as an ordinary module of its own."""
        alone = self.take([k])  # a copy
        return next(alone.networks())

    def take(self, index: Index) -> "Stack":
        """Return some of the networks."""
        return replace(self, rows=self.rows[index], own={name: tensor[index] for name, tensor in self.own.items()})

    def repeat(self, times: int) -> "Stack":
        """Return each network `times` times in a row."""
        own = {name: tensor.repeat_interleave(times, 0) for name, tensor in self.own.items()}
        return replace(self, rows=self.rows.repeat_interleave(times, 0), own=own)

    def with_rows(self, rows: Float[Tensor, "networks parameters"]) -> "Stack":
        """Return other networks of the same kind.

        Raises:
            ValueError: if networks have buffers of their own, and there are not as many rows as before.
        """
        return replace(self, rows=rows)
