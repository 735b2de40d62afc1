"""K networks at once: a `(K, P)` tensor of rows, run through one ordinary module.

Every phenomenon in this project is the evaluation of some stack.
"""

import copy
from collections.abc import Callable
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


def one_by_one(module: nn.Module, device: torch.device | str) -> bool:
    """Whether networks run one after the other: where convolutions, which `vmap` slows down, meet a CPU."""
    return torch.device(device).type == "cpu" and is_convolutional(module)


def stack_size(module: nn.Module, layout: ParameterLayout, device: torch.device | str) -> int:
    """How many networks to work on at once. Speed depends on it, results do not."""
    if one_by_one(module, device):
        return 1
    if torch.device(device).type == "cpu":
        return max(1, min(128, STACK_BYTES // (4 * layout.size)))
    return 16 if is_convolutional(module) else 512


def run_stack(
    module: nn.Module,
    layout: ParameterLayout,
    rows: Float[Tensor, "networks parameters"],
    x: Float[Tensor, "networks batch ..."],
) -> Float[Tensor, "networks batch classes"]:
    """Run network `k` on inputs `x[k]`; derivatives of any order pass through."""
    if one_by_one(module, rows.device):
        networks = [_channels_last(layout.unflatten(row)) for row in rows.unbind()]
        outputs = [functional_call(module, network, (batch,)) for network, batch in zip(networks, x, strict=True)]
        return torch.stack(outputs)
    tensors = layout.unflatten(rows)
    return vmap(lambda network, batch: functional_call(module, network, (batch,)))(tensors, x)


def stack_gradient(
    module: nn.Module,
    layout: ParameterLayout,
    rows: Float[Tensor, "networks parameters"],
    x: Float[Tensor, "networks batch ..."],
    y: Int[Tensor, "networks batch"],
    smoothing: Float[Tensor, " networks"] | None = None,
) -> tuple[Float[Tensor, " networks"], Float[Tensor, "networks parameters"]]:
    """Return each network's mean cross-entropy and its gradient with respect to the row."""
    if not one_by_one(module, rows.device):
        rows = rows.detach().requires_grad_()
        loss = cross_entropy(run_stack(module, layout, rows, x), y, smoothing)
        return loss.detach(), torch.autograd.grad(loss.sum(), rows)[0]
    # The module's own parameters serve one network after the other: on so small networks, `functional_call` and the
    # way back through its views cost a tenth of a step.
    parameters = dict(module.named_parameters())
    losses, gradients = [], []
    for k, row in enumerate(rows.detach()):
        for parameter, values in zip(parameters.values(), layout.unflatten(row).values(), strict=True):
            parameter.data.copy_(values)
        share = 0.0 if smoothing is None else float(smoothing[k])
        loss = nn.functional.cross_entropy(module(x[k]), y[k], label_smoothing=share)
        gradient = torch.autograd.grad(loss, list(parameters.values()))
        losses.append(loss.detach())
        gradients.append(layout.flatten(dict(zip(parameters, gradient, strict=True))))
    return torch.stack(losses), torch.stack(gradients)


def _channels_last(network: dict[str, Tensor]) -> dict[str, Tensor]:
    # The kernels' format decides that of all images. `contiguous` would leave those of one channel as they are.
    return {n: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for n, t in network.items()}


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
        module: the architecture with the treatment's activations; the values of its own parameters do not matter.
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
        run, batch = self._prepared(), len(x) if getattr(self.module, "whole", False) else EVALUATION_BATCH
        correct = torch.zeros(len(self), dtype=torch.int64, device=x.device)
        loss = torch.zeros(len(self), dtype=torch.float64, device=x.device)
        for images, labels in zip(x.split(batch), y.split(batch), strict=True):
            logits = run(images)
            correct += (logits.argmax(-1) == labels).sum(-1)
            loss += len(labels) * cross_entropy(logits, labels.expand(len(self), -1)).double()
        return Evaluation(*((total.double() / len(y)).to(self.rows.dtype) for total in (correct, loss)))

    def _prepared(self) -> Callable[[Tensor], Tensor]:
        """Return `logits`, made ready to run on many batches without derivatives."""
        if not one_by_one(self.module, self.rows.device):
            return self.logits
        networks = [
            self.network(k).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for k in range(len(self))
        ]
        return lambda x: torch.stack([network(x) for network in networks])

    def permute(self, permutations: Permutations) -> "Stack":
        """Return the stack with hidden units permuted, see `ParameterLayout.permute`."""
        return replace(self, rows=self.layout.permute(self.rows, permutations))

    def network(self, k: int) -> nn.Module:
        """Return network `k` as an ordinary module of its own."""
        module = copy.deepcopy(self.module)
        tensors = self.layout.unflatten(self.rows[k])
        for name, parameter in module.named_parameters():
            parameter.data = tensors[name].detach().clone()
        return module
