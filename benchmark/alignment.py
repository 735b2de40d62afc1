"""Brings networks into one order of units: permutes the hidden ones so that networks come as near as they can.

All follows from the axes of a layout; nothing here knows of layers, whatever the architecture.

Source: Ainsworth, Hayase, Srinivasa 2023, *Git Re-Basin: Merging Models modulo Permutation Symmetries*,
https://arxiv.org/abs/2209.04836.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from zoo.errors import TaskError
from zoo.networks.parameters import ParameterLayout
from zoo.networks.stack import Stack
from zoo.seeds import rng_for

Rows = Float[Tensor, "networks parameters"]
Objective = Float[Tensor, " networks"]
Found = dict[str, Int[Tensor, "networks units"]]  # of each hidden axis, as `ParameterLayout.permute` takes it

EXAMPLES = 64  # run at once
GAIN = 1e-6  # share of the objective below which a step is rounding
SAME = 1e-3  # greatest difference of logits, as a share of the greatest logit, that is rounding


def permute(
    stack: Stack, found: Mapping[str, Int[Tensor, "networks units"]], x: Float[Tensor, "examples ..."]
) -> Stack:
    """Permute networks and see to it, on data, that they still compute the same.

    Raises:
        TaskError: if they do not, as where units have activations of their own.
    """
    permuted = stack.permute(found)
    if not _compute_the_same(stack, permuted, x):
        raise TaskError("permuting hidden units changes what these networks compute; align networks with symmetry")
    return permuted


def is_permutable(stack: Stack, x: Float[Tensor, "examples ..."]) -> bool:
    """Whether networks compute the same when their hidden units are permuted."""
    order = stack.layout.random_permutations(rng_for(0, "permutation"), len(stack))
    return _compute_the_same(stack, stack.permute(order), x)


@torch.no_grad()
def _compute_the_same(stack: Stack, other: Stack, x: Float[Tensor, "examples ..."]) -> bool:
    before, after = stack.logits(x[:EXAMPLES]), other.logits(x[:EXAMPLES])
    return bool(((after - before).abs().amax((1, 2)) <= SAME * before.abs().amax((1, 2))).all())


def weight_matching(
    layout: ParameterLayout,
    rows: Rows,
    targets: Float[Tensor, "#networks parameters"],
    rng: np.random.Generator,
    *,
    restarts: int = 1,
    progress: Callable[[Objective], object] = lambda objective: None,
) -> Found:
    """Find the permutations that bring networks nearest to others in weight space, by coordinate descent over axes.

    While all other axes stand still, the permutation of one that makes `<target, permuted row>` greatest, and so the
    distance least, solves a linear assignment. Axes take turns in random order until none gains any more. What is
    found is the best within reach of the start only; of several starts the best counts, for each network by itself.

    Arguments:
        layout: of the rows.
        rows: to be permuted.
        targets: one for each row, or one for all.
        rng: of the orders, and of the starts after the first, which is the order as it is.
        restarts: how many starts.
        progress: called with the objective of each network after each step.

    Raises:
        TaskError: if a tensor has an axis twice, which makes the best permutation of that axis no linear assignment.

    Source: Ainsworth et al. 2023, *Git Re-Basin*, algorithm 1, https://arxiv.org/abs/2209.04836.
    """
    if twice := [p.name for p in layout.parameters if len({*p.axes} - {None}) < sum(a is not None for a in p.axes)]:
        raise TaskError(f"weight matching: {twice[0]} has an axis twice; match such networks by activations")
    targets = targets.expand_as(rows)
    best, reached = _descend(layout, rows, targets, _identity(layout, len(rows)), rng, progress)
    for _ in range(restarts - 1):
        start = layout.random_permutations(rng, len(rows))
        found, objective = _descend(layout, rows, targets, start, rng, progress)
        better = objective > reached
        best = {axis: torch.where(better[:, None], found[axis], best[axis]) for axis in best}
        reached = torch.where(better, objective, reached)
    return best


def activation_matching(stack: Stack, targets: Stack, x: Float[Tensor, "examples ..."]) -> Found:
    """Find for each axis the permutation that brings its units' activations nearest to those of other networks.

    Arguments:
        stack: to be permuted.
        targets: one for each network, or one for all.
        x: examples on which units are compared.

    Source: Ainsworth et al. 2023, *Git Re-Basin*, section 3.1, https://arxiv.org/abs/2209.04836.
    """
    sums: dict[str, Tensor] = {}
    for examples in x.split(EXAMPLES):
        of_targets = activations(targets, examples)
        for axis, own in activations(stack, examples).items():
            alike = of_targets[axis].expand(len(own), -1, -1) @ own.mT  # (K, units, units)
            sums[axis] = sums[axis] + alike if axis in sums else alike
    return {axis: assign(alike) for axis, alike in sums.items()}


def merge_many(
    layout: ParameterLayout,
    rows: Rows,
    rng: np.random.Generator,
    *,
    restarts: int = 1,
    progress: Callable[[Objective], object] = lambda objective: None,
) -> Found:
    """Find one order of units for many networks: each is matched in turn to the mean of all others.

    Every network has one permutation, so going round any cycle of networks changes nothing. No turn worsens the sum of
    the inner products of all couples, and they end when none betters it.

    Arguments:
        layout, rows: the networks.
        rng: of the turns, and of orders and starts within, see `weight_matching`.
        restarts: of each match.
        progress: called with that sum, `(1,)`, after each turn.

    Source: Ainsworth et al. 2023, *Git Re-Basin*, algorithm 3, https://arxiv.org/abs/2209.04836.
    """
    found, aligned = _identity(layout, len(rows)), rows.clone()
    objective = _couples(aligned)
    while True:
        before = objective
        for k in rng.permutation(len(rows)):
            others = (aligned.sum(0) - aligned[k])[None] / (len(rows) - 1)
            step = weight_matching(layout, aligned[k : k + 1], others, rng, restarts=restarts)
            aligned[k] = layout.permute(aligned[k : k + 1], step)[0]
            for axis, own in step.items():
                found[axis][k] = found[axis][k, own[0]]
            objective = _couples(aligned)
            progress(objective)
        if not objective > before + GAIN * before.abs():
            return found


def similarity(
    layout: ParameterLayout, axis: str, tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> Float[Tensor, "networks units units"]:
    """Return the inner product of all that belongs to unit `i` of a target and to unit `j` of a network.

    Both are given by their named tensors, `(networks, *shape)`.
    """
    alike = []
    for parameter in layout.parameters:
        for dim, name in enumerate(parameter.axes, start=1):
            if name == axis:
                a, b = (each[parameter.name].movedim(dim, 1) for each in (targets, tensors))
                alike.append(a.reshape(*a.shape[:2], -1) @ b.reshape(*b.shape[:2], -1).mT)
    return torch.stack(alike).sum(0)


def assign(alike: Float[Tensor, "networks units units"]) -> Int[Tensor, "networks units"]:
    """Return for each unit `i` the unit `j` that takes its place, so that what they have in common is the most."""
    return torch.stack(
        [torch.from_numpy(linear_sum_assignment(each, maximize=True)[1]) for each in alike.cpu().double().numpy()]
    ).to(alike.device)


def activations(stack: Stack, x: Float[Tensor, "examples ..."]) -> dict[str, Float[Tensor, "networks units samples"]]:
    """Return what the units of each axis give on examples, at all positions, and at all sites that share an axis."""
    sites: Mapping[str, str] = stack.module.sites  # type: ignore[assignment]
    parts: dict[str, list[Tensor]] = {}
    for site, given in outputs(stack, list(sites), x).items():
        parts.setdefault(sites[site], []).append(given)
    return {axis: torch.cat(given, 2) for axis, given in parts.items()}


@torch.no_grad()
def outputs(
    stack: Stack, sites: Sequence[str], x: Float[Tensor, "examples ..."]
) -> dict[str, Float[Tensor, "networks units samples"]]:
    """Return what some submodules of every network give on examples, for each unit at all positions."""
    given: dict[str, list[Tensor]] = {site: [] for site in sites}

    def keep(site: str, module: nn.Module, inputs: object, output: Tensor) -> None:
        given[site].append(output.transpose(0, 1).flatten(1))  # (units, samples)

    for network in stack.networks():
        hooks = [network.get_submodule(site).register_forward_hook(partial(keep, site)) for site in sites]
        network(x)
        for hook in hooks:
            hook.remove()
    return {site: torch.stack(each) for site, each in given.items()}


def _descend(
    layout: ParameterLayout,
    rows: Rows,
    targets: Rows,
    found: Found,
    rng: np.random.Generator,
    progress: Callable[[Objective], object],
) -> tuple[Found, Objective]:
    """Better permutations until no axis gains; return them and what each network has reached."""
    found, rows = dict(found), layout.permute(rows, found)
    objective = (targets * rows).sum(-1, dtype=torch.float64)
    tensors, wanted = layout.unflatten(rows), layout.unflatten(targets)
    live = torch.ones(len(rows), dtype=torch.bool)
    while live.any():
        before = objective.clone()
        for axis in rng.permutation(list(found)):
            alike = similarity(layout, axis, tensors, wanted)
            step = torch.arange(alike.shape[1]).repeat(len(rows), 1)
            step[live] = assign(alike[live])
            gain = (alike.gather(2, step[:, :, None]).squeeze(2) - alike.diagonal(dim1=1, dim2=2)).sum(1)
            worth = gain > GAIN * objective.abs()
            step[~worth] = torch.arange(alike.shape[1])
            objective = objective + gain.where(worth, 0)
            tensors = layout.permute_tensors(tensors, {axis: step})
            found[axis] = found[axis].gather(1, step)
            progress(objective)
        live = objective > before
    return found, objective


def _identity(layout: ParameterLayout, networks: int) -> Found:
    return {axis: torch.arange(layout.axes[axis]).repeat(networks, 1) for axis in layout.hidden_axes}


def _couples(rows: Rows) -> Float[Tensor, "1"]:
    """Return the sum of the inner products of all couples."""
    total = rows.sum(0, dtype=torch.float64)
    return (total @ total - rows.square().sum(dtype=torch.float64))[None] / 2
