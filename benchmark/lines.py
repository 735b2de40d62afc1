"""Loss and accuracy along straight lines in weight space, for many lines at once."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import bootstrap
from torch import Tensor, nn

from metanets.metrics import Estimate
from zoo.data import Data
from zoo.errors import TaskError
from zoo.seeds import rng_for
from zoo.stack import Stack, averaged, score
from zoo.store import Zoo

Curves = Float[np.ndarray, "lines points"]
Change = Callable[[Stack, tuple[Stack, Stack], Float[Tensor, " networks"]], Stack]


def trained_networks(zoo: Zoo, treatment: str, least: int) -> Int[np.ndarray, " networks"]:
    """Return which networks have not diverged.

    Raises:
        TaskError: if they are fewer than `least`.
    """
    return _enough(zoo, treatment, zoo.index(treatment), "trained", least)


def good_networks(zoo: Zoo, treatment: str, least: int) -> Int[np.ndarray, " networks"]:
    """Return which networks are worth connecting or merging.

    All trained ones of replicas; where hyperparameters differ, those of at least the median train accuracy.

    Raises:
        TaskError: if they are fewer than `least`.
    """
    index = zoo.index(treatment)
    if any(np.ptp(values) > 0 for values in zoo.group(treatment, "hyperparameters").values()):
        accuracy = zoo.field(treatment, "metrics/train_accuracy")[index]
        index = index[accuracy >= np.median(accuracy)] if len(index) else index
    return _enough(zoo, treatment, index, "good", least)


def _enough(
    zoo: Zoo, treatment: str, index: Int[np.ndarray, " networks"], kind: str, least: int
) -> Int[np.ndarray, " networks"]:
    if len(index) < least:
        raise TaskError(
            f"{zoo.folder}: {treatment} has {len(index)} {kind} networks; {least} or more are needed: "
            f"asymzoo zoo generate {zoo.recipe.name} with more --pairs"
        )
    return index


def interpolate(a: Stack, b: Stack, points: int) -> Stack:
    """Return the stack of `(1 - t) a + t b`: all points of the first line, then of the next."""
    t = torch.linspace(0, 1, points).to(a.rows)[:, None]
    rows = a.rows[:, None].lerp(b.rows[:, None], t)  # (lines, points, P)
    return Stack(rows.flatten(0, 1), a.module, a.layout)


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
    """Measure lines from the networks of `a` to those of `b`.

    Arguments:
        a, b: the ends, one of each for every line.
        data: to measure on.
        points: on a line, both ends included.
        splits: of the data.
        change: what is done to the networks of the lines first, told their ends and places; it leaves the layer that
            reads the input as it is.

    Returns:
        `train_loss`, `train_accuracy`, `test_loss` and `test_accuracy`, of the splits asked for.
    """
    stack = interpolate(a, b, points)
    if change is not None:
        ends = [Stack(end.rows.repeat_interleave(points, 0), end.module, end.layout) for end in (a, b)]
        stack = change(stack, (ends[0], ends[1]), torch.linspace(0, 1, points).repeat(len(a)))
    of = {"train": (data.train_x, data.train_y), "test": (data.test_x, data.test_y)}
    x, y = (torch.cat(parts) for parts in zip(*(of[split] for split in splits), strict=True))
    batches = stack.batches(x)
    parts = []  # of each batch, what every network makes of it
    for batch, labels in zip(batches, y.split(len(batches[0])), strict=True):
        scores = score(_each_logits(stack, a, b, points, batch), labels)
        parts.append([torch.cat(part) for part in zip(*scores, strict=True)])
    right, loss = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    measured = averaged(right, loss, [len(of[split][1]) for split in splits])
    return {
        f"{split}_{name}": values.view(-1, points).numpy()
        for split, own in zip(splits, measured, strict=True)
        for name, values in own._asdict().items()
    }


def _each_logits(
    stack: Stack, a: Stack, b: Stack, points: int, x: Float[Tensor, "examples ..."]
) -> Iterator[Float[Tensor, "examples classes"]]:
    """Run the networks of lines, in the order of `interpolate`.

    The first layer is affine in its weights, so what it makes of the input lies on a line, too. It is worked out at
    both ends alone.
    """
    first = first_layer(stack)
    if first is None:
        yield from stack.each_logits(x)
        return
    given = _given_to(stack.module, first, x)
    rest = copy.deepcopy(stack.module)
    rest.set_submodule(first, nn.Identity())
    networks = Stack(stack.rows, rest, stack.layout).networks()
    for ends in zip(a.networks(), b.networks(), strict=True):
        begin, end = (network.get_submodule(first)(given) for network in ends)
        for t, network in zip(np.linspace(0, 1, points), networks, strict=False):
            yield network(begin.lerp(end, t))


def first_layer(stack: Stack) -> str | None:
    """Return the name of the linear map or convolution that alone reads the input, None if there is no such one."""
    readers = {p.name.rpartition(".")[0] for p in stack.layout.parameters if "input" in p.axes}
    name = readers.pop() if len(readers) == 1 else ""
    return name if isinstance(stack.module.get_submodule(name), nn.Linear | nn.Conv2d) else None


def _given_to(module: nn.Module, layer: str, x: Tensor) -> Tensor:
    """Return what a layer is given when the module runs on `x`."""
    given: list[Tensor] = []
    hook = module.get_submodule(layer).register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    module(x)
    hook.remove()
    return given[0]


def as_loss(name: str, curves: Curves) -> Curves:
    """Turn accuracies, so that what is lost is above the line for all curves."""
    return -curves if name.endswith("accuracy") else curves


def excess(curves: Curves) -> Curves:
    """Return what the loss has above the straight line between its ends."""
    t = np.linspace(0, 1, curves.shape[1])
    return curves - ((1 - t) * curves[:, :1] + t * curves[:, -1:])


def barrier(curves: Curves) -> Float[np.ndarray, " lines"]:
    """Return the largest excess of each line, at least 0 because the ends have none."""
    return excess(curves).max(1)


def mean_interval(values: Float[np.ndarray, " lines"]) -> Estimate:
    """Return the mean over lines with its 95 % bootstrap interval."""
    if np.ptp(values) < 1e-12:  # the same but for rounding, of which BCa makes nan
        return Estimate(*[float(values[0])] * 3)
    interval = bootstrap((values,), np.mean, method="BCa", rng=rng_for(0, "bootstrap")).confidence_interval
    return Estimate(float(values.mean()), float(interval.low), float(interval.high))
