"""Loss and accuracy along straight lines in weight space, for many lines at once."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zoo.data import Data
from zoo.errors import TaskError
from zoo.networks.stack import Stack, averaged, score
from zoo.statistics import Estimate, mean_interval
from zoo.store.columns import CONSTANT
from zoo.store.zoo import Zoo

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
        TaskError: if they are fewer than `least`, or do not share their activations.
    """
    check_shared(zoo, treatment)
    index = zoo.index(treatment)
    if any(np.ptp(values) > 0 for values in zoo.group(treatment, "hyperparameter").values()):
        accuracy = zoo.field(treatment, "train_accuracy")[index]
        index = index[accuracy >= np.median(accuracy)] if len(index) else index
    return _enough(zoo, treatment, index, "good", least)


def check_shared(zoo: Zoo, treatment: str, what: Literal["activations", "constants"] = "activations") -> None:
    """Raise a `TaskError` if each network has its own activations, or anything constant of its own.

    No mean of two networks with different activations is a network of the zoo.
    """
    names = ("held_F",) if what == "activations" else CONSTANT
    if not zoo.columns(treatment).keys().isdisjoint(names):
        raise TaskError(f"{zoo.folder}: {treatment} networks have their own {what}; take a treatment that shares them")


def _enough(
    zoo: Zoo, treatment: str, index: Int[np.ndarray, " networks"], kind: str, least: int
) -> Int[np.ndarray, " networks"]:
    if len(index) < least:
        raise TaskError(
            f"{zoo.folder}: {treatment} has {len(index)} {kind} networks; {least} or more are needed: "
            f"asymzoo zoo generate {zoo.name} with more --pairs"
        )
    return index


def interpolate(a: Stack, b: Stack, points: int) -> Stack:
    """Return the stack of `(1 - t) a + t b`: all points of the first line, then of the next.

    Raises:
        TaskError: if the two ends of a line have different activations, so that no network lies between them.
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
        ends = [end.repeat(points) for end in (a, b)]
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
    networks = replace(stack, module=rest).networks()
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


def mean_distances(distance: Float[np.ndarray, " lines"], parameters: int) -> dict[str, Estimate]:
    """Return the mean distance, `whole`, and per square root of the number of trainable parameters, `per_parameter`."""
    return {"whole": mean_interval(distance), "per_parameter": mean_interval(distance / parameters**0.5)}


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
