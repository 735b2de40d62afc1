"""Loss and accuracy along straight lines in weight space, for many lines at once.

A line goes from a network a to a network b through the networks `(1 - t) a + t b`, t from 0 to 1.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmark.repair import reestimate
from zoo.data import Data
from zoo.errors import TaskError
from zoo.networks.stack import Stack, averaged, in_turn, score_examples

Curves = Float[np.ndarray, "lines points"]
Change = Callable[[Stack, tuple[Stack, Stack], Float[Tensor, " networks"]], Stack]


def interpolate(a: Stack, b: Stack, points: int) -> Stack:
    """Return the networks `(1 - t) a + t b` at equally spaced t: all points of the first line, then of the next.

    Arguments:
        a: Networks at which the lines begin.
        b: Networks at which they end, one for each of `a`.
        points: Number of points on a line, both ends included.

    Raises:
        TaskError: If the two ends of a line have different activations, so that no network lies between them.
    """
    if any(not torch.equal(tensor, b.own[name]) for name, tensor in a.own.items()):
        raise TaskError("line: its ends have different activations; take networks that share them")
    t = torch.linspace(0, 1, points).to(a.rows)[:, None]
    rows = a.rows[:, None].lerp(b.rows[:, None], t)  # (lines, points, P)
    return a.repeat(points).with_rows(rows.flatten(0, 1))


@torch.no_grad()
def measure_lines(
    a: Stack,
    b: Stack,
    data: Data,
    points: int,
    *,
    splits: Sequence[Literal["train", "test"]] = ("train", "test"),
    change: Change | None = None,
) -> dict[str, Curves]:
    """Measure the loss and the accuracy of networks on lines, each with statistics of batch norm of its own.

    Arguments:
        a: Networks at which the lines begin.
        b: Networks at which they end, one for each of `a`.
        data: Data to measure on.
        points: Number of points on a line, both ends included.
        splits: Splits of the data to measure on.
        change: Function that changes the networks on the lines before they are measured. Its arguments are these
            networks, the two ends of each network's line, and each network's t. It must not change the first layer.

    Returns:
        `train_loss`, `train_accuracy`, `test_loss` and `test_accuracy`, for the chosen splits.
    """
    stack = reestimate(interpolate(a, b, points), data.train_x)
    if change is not None:
        ends = [end.repeat(points) for end in (a, b)]
        stack = change(stack, (ends[0], ends[1]), torch.linspace(0, 1, points).to(a.rows).repeat(len(a)))
    examples = {"train": (data.train_x, data.train_y), "test": (data.test_x, data.test_y)}
    x, y = (torch.cat(parts) for parts in zip(*(examples[split] for split in splits), strict=True))
    batches = stack.batches(x)
    first = (
        first_layer(stack, x[:2]) if x.device.type == "cpu" else None
    )  # a GPU is faster with many networks at a time
    parts = []  # for each batch, whether each network is right and its loss, (networks, batch) each
    for batch, labels in zip(batches, y.split(len(batches[0])), strict=True):
        scores = score_examples(_logits_in_parts(stack, a, b, points, batch, first), labels)
        parts.append([torch.cat(part) for part in zip(*scores, strict=True)])
    right, loss = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    measured = averaged(right, loss, [len(examples[split][1]) for split in splits])
    return {
        f"{split}_{name}": values.view(-1, points).cpu().numpy()
        for split, evaluation in zip(splits, measured, strict=True)
        for name, values in evaluation._asdict().items()
    }


def _logits_in_parts(
    stack: Stack, a: Stack, b: Stack, points: int, x: Float[Tensor, "examples ..."], first: str | None
) -> Iterator[Float[Tensor, "some examples classes"]]:
    """Run the networks of lines, one or several at a time, in the order of `interpolate`.

    The first layer is affine in its weights, so its outputs for the same input lie on a line, too. They are computed
    only at the two ends, if it is given by its name.
    """
    if first is None:
        yield from stack.logits_in_parts(x)
        return
    first_input = _input_of(stack.module, first, x)
    networks = in_turn(replace(stack, module=_without(stack.module, first)))
    for ends in zip(in_turn(a), in_turn(b), strict=True):
        begin, end = (network.get_submodule(first)(first_input) for network in ends)
        for t, network in zip(np.linspace(0, 1, points), networks, strict=False):
            yield network(begin.lerp(end, t))[None]


def first_layer(stack: Stack, x: Float[Tensor, "examples ..."]) -> str | None:
    """Return the name of the linear map or convolution that is the only reader of the input; None if there is none.

    It is the only reader if the network computes the same without it when it is given the layer's output as input.

    Arguments:
        stack: Networks.
        x: Examples to try this on.
    """
    readers = {p.name.rpartition(".")[0] for p in stack.layout.parameters if "input" in p.names}
    name = readers.pop() if len(readers) == 1 else ""
    network = stack.network(0)
    layer = network.get_submodule(name)
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        return None
    try:
        same = torch.equal(_without(network, name)(layer(_input_of(network, name, x))), network(x))
    except (RuntimeError, ValueError):  # the output has not the shape of an input, which another part reads, too
        return None
    return name if same else None


def _without(module: nn.Module, layer: str) -> nn.Module:
    """Return a copy of a module without a layer."""
    rest = copy.deepcopy(module)
    rest.set_submodule(layer, nn.Identity())
    return rest


def _input_of(module: nn.Module, layer: str, x: Tensor) -> Tensor:
    """Return the input of a layer when the module runs on `x`."""
    inputs: list[Tensor] = []
    hook = module.get_submodule(layer).register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    module(x)
    hook.remove()
    return inputs[0]


def on_scales(distance: Float[np.ndarray, " lines"], parameters: int) -> dict[str, Float[np.ndarray, " lines"]]:
    """Return distances d (`whole`), and `d / sqrt(parameters)` (`per_parameter`).

    Arguments:
        distance: Distance between the two ends of each line.
        parameters: Number of trainable parameters of a network.
    """
    return {"whole": distance, "per_parameter": distance / parameters**0.5}


def as_loss(name: str, curves: Curves) -> Curves:
    """Return curves of which higher is worse: those of accuracy with their sign changed, others unchanged.

    Arguments:
        name: Name of the curves, as `measure_lines` returns it.
        curves: Values at each point of each line.
    """
    return -curves if name.endswith("accuracy") else curves


def excess(curves: Curves) -> Curves:
    """Return `f(t) - ((1 - t) f(0) + t f(1))`, how far each curve f lies above the straight line between its ends."""
    t = np.linspace(0, 1, curves.shape[1])
    return curves - ((1 - t) * curves[:, :1] + t * curves[:, -1:])


def barrier(curves: Curves) -> Float[np.ndarray, " lines"]:
    """Return the largest excess of each line. It is at least 0, because the excess at both ends is 0."""
    return excess(curves).max(1)
