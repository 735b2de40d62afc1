"""Sets the norms of networks between others, whose activations are not those of the ends.

Batch norm holds a mean and a variance of the activations of one network. Between networks these are measured again
(`reestimate`), as in Lim et al. 2024, section 5.1, https://arxiv.org/abs/2405.20231.

`repair` gives the units of interpolated networks the mean and the spread that they have at the ends of the line.

Between two networks whose units match only roughly, activations shrink from layer to layer, which causes most of the
loss on the line. Norms can undo this: at `(1 - t) a + t b` their scales and shifts are set so that each unit has the
mean `(1 - t) mean_a + t mean_b` and the standard deviation `(1 - t) std_a + t std_b`.

Source: Jordan, Sedghi, Saukh, Entezari, Neyshabur 2023, *REPAIR: REnormalizing Permuted Activations for Interpolation
Repair*, https://arxiv.org/abs/2211.08403, here with norms of any kind.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from benchmark.alignment import outputs
from zoo.errors import TaskError
from zoo.networks.roles import NORMS
from zoo.networks.stack import Stack, batch_size, in_turn


def norms_of(module: nn.Module) -> list[str]:
    """Return the names of the norms in a module, in the order in which they act."""
    return [name for name, part in module.named_modules() if isinstance(part, NORMS)]


def is_repairable(stack: Stack) -> bool:
    """Return whether networks have norms, and each norm a scale and a shift to set."""
    names, norms = {parameter.name for parameter in stack.layout.parameters}, norms_of(stack.module)
    return bool(norms) and all(f"{norm}.{kind}" in names for norm in norms for kind in ("weight", "bias"))


@torch.no_grad()
def reestimate(stack: Stack, x: Float[Tensor, "examples ..."]) -> Stack:
    """Measure the running statistics of batch norm anew; networks without batch norm are returned as they are.

    The statistics of each network become means over batches of nearly equal size, which it sees as in training.

    Arguments:
        stack: Networks.
        x: Training examples.
    """
    if not stack.layout.statistics:
        return stack
    whole = getattr(stack.module, "whole", False)
    batches = x.tensor_split(1 if whole else -(-len(x) // batch_size(stack.module)))
    measured = stack.with_rows(stack.rows.clone())  # which `in_turn` lets a module share
    for network in in_turn(measured):
        update_bn(batches, network)
    return measured


def repair(
    stack: Stack, ends: tuple[Stack, Stack], t: Float[Tensor, " networks"], x: Float[Tensor, "examples ..."]
) -> Stack:
    """Set the norms of networks on lines.

    Arguments:
        stack: Networks `(1 - t) a + t b`.
        ends: Networks a and b at the ends of each network's line.
        t: Place of each network on its line.
        x: Training examples on which means and standard deviations are measured.

    Raises:
        TaskError: If the architecture has no norms, or one without scale or shift.
    """
    norms = norms_of(stack.module)
    if not is_repairable(stack):
        raise TaskError("repair: the architecture has no norms, or one without scale or shift; choose another variant")
    (mean_a, std_a), (mean_b, std_b) = (_statistics(end, norms, x) for end in ends)
    t = t[:, None]
    tensors = stack.layout.unflatten(stack.rows)
    for norm in norms:  # each changes the input of the next
        now = stack.with_rows(stack.layout.flatten(tensors))
        mean, std = (each[norm] for each in _statistics(now, [norm], x))
        wanted = (1 - t) * mean_a[norm] + t * mean_b[norm]
        factor = ((1 - t) * std_a[norm] + t * std_b[norm]) / std.clamp(min=torch.finfo(std.dtype).tiny)
        factor = factor.where(std > 0, 1)  # a unit whose output is constant has no spread to scale
        tensors[f"{norm}.weight"] = tensors[f"{norm}.weight"] * factor
        tensors[f"{norm}.bias"] = wanted + (tensors[f"{norm}.bias"] - mean) * factor
    return stack.with_rows(stack.layout.flatten(tensors))


def _statistics(stack: Stack, norms: list[str], x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return mean and standard deviation of each unit of norms' outputs, `(K, units)`, by the names of the norms."""
    values = outputs(stack, norms, x)
    return {n: v.mean(2) for n, v in values.items()}, {n: v.std(2, correction=0) for n, v in values.items()}
