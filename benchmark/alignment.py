"""Aligns networks: permutes the hidden units of each so that it comes as close as possible to another network.

Everything follows from the named axes of a layout, so it works for any architecture.

Source: Ainsworth, Hayase, Srinivasa 2023, *Git Re-Basin: Merging Models modulo Permutation Symmetries*,
https://arxiv.org/abs/2209.04836.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from zoo.errors import TaskError
from zoo.networks.parameters import ParameterLayout
from zoo.networks.stack import Stack, in_turn
from zoo.progress import ignore
from zoo.seeds import rng_for

Rows = Float[Tensor, "networks parameters"]
Objective = Float[Tensor, " networks"]
Orders = dict[str, Int[Tensor, "networks units"]]  # of the units of each hidden axis, see `ParameterLayout.permute`

EXAMPLES = 64  # examples run at once, so that the activations of all networks on them fit in memory
GAIN = 1e-6  # fraction of the objective below which a gain is rounding; float32 has a precision of 1e-7
SAME = 1e-3  # difference of logits, as a fraction of the largest logit, up to which two networks compute the same


def permute_checked(
    stack: Stack, orders: Mapping[str, Int[Tensor, "networks units"]], x: Float[Tensor, "examples ..."]
) -> Stack:
    """Permute the hidden units of networks, and check on data that they still compute the same.

    Arguments:
        stack: Networks to permute.
        orders: Order of the units of each hidden axis, for each network.
        x: Examples to check them on; the first 64 are used.

    Raises:
        TaskError: If they compute something else, for example because each unit has its own activation.
    """
    permuted = stack.permute(orders)
    if not _compute_the_same(stack, permuted, x):
        raise TaskError("permuting hidden units changes what these networks compute; align networks with symmetry")
    return permuted


def is_permutable(stack: Stack, x: Float[Tensor, "examples ..."]) -> bool:
    """Return whether networks compute the same when their hidden units are permuted at random.

    Arguments:
        stack: Networks to permute.
        x: Examples to check them on; the first 64 are used.
    """
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
    on_step: Callable[[Objective], object] = ignore,
) -> Orders:
    """Find the permutations that bring networks nearest to others in weight space, by coordinate descent over axes.

    The permutation of one axis that maximises the objective `<target, permuted row>`, and so minimises the distance,
    solves a linear assignment while all other axes stay unchanged. Axes take turns in random order until none of them
    raises the objective. This finds a local optimum; for each network, the best of all starts is returned. Blocks, such
    as attention heads, take their turn with the units in them. The running statistics of batch norm do not count.

    Arguments:
        layout: Layout of the rows.
        rows: Rows of the networks to permute.
        targets: Rows to bring them near to, one for each network or one for all.
        rng: Generator of the order of turns, and of all starts but the first, which is the unchanged order.
        restarts: Number of starts.
        on_step: Function that is called with the objective of each network after each step.

    Raises:
        TaskError: If a tensor has the same axis twice, because its permutation then solves no linear assignment.

    Source: Ainsworth et al. 2023, *Git Re-Basin*, algorithm 1, https://arxiv.org/abs/2209.04836.
    """
    for parameter in layout.split.parameters:
        turns = [layout.blocks.get(axis, axis) for axis in parameter.names if axis is not None]
        if twice := {axis for axis in turns if turns.count(axis) > 1}:
            raise TaskError(
                f"weight matching: {parameter.name} has the axis {min(twice)} twice; match such networks by activations"
            )
    targets = targets.expand_as(rows)
    best, highest = _descend(layout, rows, targets, _identity(layout, len(rows)), rng, on_step)
    for _ in range(restarts - 1):
        start = layout.random_permutations(rng, len(rows))
        orders, objective = _descend(layout, rows, targets, start, rng, on_step)
        better = objective > highest
        best = {axis: torch.where(better[:, None], orders[axis], best[axis]) for axis in best}
        highest = torch.where(better, objective, highest)
    return best


def activation_matching(stack: Stack, targets: Stack, x: Float[Tensor, "examples ..."]) -> Orders:
    """Find for each axis the permutation that brings its units' activations nearest to those of other networks.

    Arguments:
        stack: Networks to permute.
        targets: Networks to bring them near to, one for each network or one for all.
        x: Examples on which units are compared.

    Axes without an activation, and units in blocks, keep their order.

    Source: Ainsworth et al. 2023, *Git Re-Basin*, section 3.1, https://arxiv.org/abs/2209.04836.
    """
    sums: dict[str, Tensor] = {}
    for examples in x.split(EXAMPLES):
        target_activations = activations(targets, examples)
        for axis, values in activations(stack, examples).items():
            products = target_activations[axis].expand(len(values), -1, -1) @ values.mT  # (K, units, units)
            sums[axis] = sums[axis] + products if axis in sums else products
    kept = {*stack.layout.blocks, *stack.layout.blocks.values()}
    return {axis: assign(products) for axis, products in sums.items() if axis not in kept}


def merge_many(
    layout: ParameterLayout,
    rows: Rows,
    rng: np.random.Generator,
    *,
    restarts: int = 1,
    on_step: Callable[[Objective], object] = ignore,
) -> Orders:
    """Find one order of units for many networks: each is matched in turn to the mean of all others.

    The objective is `sum over i < j of <row_i, row_j>`. No turn lowers it, and the turns end when none raises it. Each
    network has one permutation, so the matches are consistent: matching a network to a second, that to a third, and the
    third back to the first gives the identity.

    Arguments:
        layout: Layout of the rows.
        rows: Rows of the networks.
        rng: Generator of the order of turns, and of the draws of `weight_matching`.
        restarts: Number of starts of each match.
        on_step: Function that is called with the objective, `(1,)`, after each turn.

    Source: Ainsworth et al. 2023, *Git Re-Basin*, algorithm 3, https://arxiv.org/abs/2209.04836.
    """
    orders, aligned = _identity(layout, len(rows)), rows.clone()
    objective = _inner_products(aligned[:, layout.learned])
    while True:
        before = objective
        for k in rng.permutation(len(rows)):
            others = (aligned.sum(0) - aligned[k])[None] / (len(rows) - 1)
            step = weight_matching(layout, aligned[k : k + 1], others, rng, restarts=restarts)
            aligned[k] = layout.permute(aligned[k : k + 1], step)[0]
            for axis, order in step.items():
                orders[axis][k] = orders[axis][k, order[0]]
            objective = _inner_products(aligned[:, layout.learned])
            on_step(objective)
        if not objective > before + GAIN * before.abs():
            return orders


def similarity(
    layout: ParameterLayout, axis: str, tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> Float[Tensor, "networks units units"]:
    """Return the inner products between the weights of each unit `i` of a target and of each unit `j` of a network.

    Arguments:
        layout: Layout of both networks.
        axis: Hidden axis whose units are compared.
        tensors: Parameters of the networks by name, `(networks, *shape)`, see `ParameterLayout.split`.
        targets: Parameters of the targets by name, `(networks, *shape)`.
    """
    products = []
    for parameter in layout.split.parameters:
        for dim, name in enumerate(parameter.names, start=1):
            if name == axis and parameter.name not in layout.statistics:
                a, b = (each[parameter.name].movedim(dim, 1) for each in (targets, tensors))
                products.append(a.reshape(*a.shape[:2], -1) @ b.reshape(*b.shape[:2], -1).mT)
    none = tensors[layout.parameters[0].name].new_zeros(1, layout.axes[axis], layout.axes[axis])
    return torch.stack(products).sum(0) if products else none


def assign(similarities: Float[Tensor, "networks units units"]) -> Int[Tensor, "networks units"]:
    """Return for each network the permutation p of units that maximises `sum_i s[i, p(i)]`, s its similarities."""
    matrices = similarities.cpu().double().numpy()
    columns = [torch.from_numpy(linear_sum_assignment(matrix, maximize=True)[1]) for matrix in matrices]
    return torch.stack(columns).to(similarities.device)


def activations(stack: Stack, x: Float[Tensor, "examples ..."]) -> dict[str, Float[Tensor, "networks units samples"]]:
    """Return the activations of the units of each axis, on all examples, positions and sites that share the axis."""
    sites: Mapping[str, str] = stack.module.sites  # type: ignore[assignment]
    parts: dict[str, list[Tensor]] = {}
    for site, values in outputs(stack, list(sites), x).items():
        parts.setdefault(sites[site], []).append(values)
    return {axis: torch.cat(values, 2) for axis, values in parts.items()}


@torch.no_grad()
def outputs(
    stack: Stack, sites: Sequence[str], x: Float[Tensor, "examples ..."]
) -> dict[str, Float[Tensor, "networks units samples"]]:
    """Return the outputs of submodules of every network, for each unit on all examples and positions.

    Units are dimension 1 of every activation: `(examples, units)`, `(examples, units, height, width)` and so on.

    Arguments:
        stack: Networks to run.
        sites: Names of the submodules.
        x: Examples to run them on.
    """
    kept: dict[str, list[Tensor]] = {site: [] for site in sites}

    def keep(site: str, module: nn.Module, inputs: object, output: Tensor) -> None:
        kept[site].append(output.transpose(0, 1).flatten(1))  # (units, samples)

    for network in in_turn(stack):
        hooks = [network.get_submodule(site).register_forward_hook(partial(keep, site)) for site in sites]
        network(x)
        for hook in hooks:
            hook.remove()
    return {site: torch.stack(values) for site, values in kept.items()}


def _descend(
    layout: ParameterLayout,
    rows: Rows,
    targets: Rows,
    start: Orders,
    rng: np.random.Generator,
    on_step: Callable[[Objective], object],
) -> tuple[Orders, Objective]:
    """Improve permutations until no axis raises the objective; return them and the objective of each network."""
    orders, rows = dict(start), layout.permute(rows, start)
    counted = layout.learned.to(rows.device)
    objective = (targets * rows * counted).sum(-1, dtype=torch.float64)
    tensors, wanted = layout.split.unflatten(rows), layout.split.unflatten(targets)
    improving = torch.ones(len(rows), dtype=torch.bool)
    while improving.any():
        before = objective.clone()
        for axis in rng.permutation([axis for axis in orders if axis not in layout.blocks]):
            step, gain = _turn(layout, axis, tensors, wanted, improving)
            accepted = gain > GAIN * objective.abs()
            objective = objective + gain.where(accepted, 0)
            for moved, order in step.items():
                order[~accepted] = torch.arange(order.shape[1])
                orders[moved] = orders[moved].gather(1, order)
            tensors = layout.permute_tensors(tensors, step)
            on_step(objective)
        improving = objective > before
    return orders, objective


def _turn(
    layout: ParameterLayout,
    axis: str,
    tensors: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    improving: Bool[Tensor, " networks"],
) -> tuple[Orders, Objective]:
    """Find the best permutation of one axis, and of the units in its blocks, and what it adds to the objective.

    Units in a block are assigned once for every choice of a block of the target and one of the network; what these
    assignments give is how similar two blocks are.
    """
    similarities = similarity(layout, axis, tensors, targets).expand(len(improving), -1, -1)
    within: Orders = {}  # by axis: the best order of the units of block j for block i of the target, (K, i, j, units)
    current = similarities.diagonal(dim1=1, dim2=2).sum(1)
    for inner in (inner for inner, outer in layout.blocks.items() if outer == axis):
        products = similarity(layout, inner, tensors, targets)
        current = current + products.diagonal(dim1=1, dim2=2).sum(1)
        blocks = products.unflatten(1, (layout.axes[axis], -1)).unflatten(3, (layout.axes[axis], -1)).transpose(2, 3)
        within[inner] = assign(blocks.flatten(0, 2)).unflatten(0, blocks.shape[:3])
        similarities = similarities + blocks.gather(4, within[inner][..., None]).sum((3, 4))
    order = torch.arange(similarities.shape[1]).repeat(len(similarities), 1)
    order[improving] = assign(similarities[improving])
    chosen = order[:, :, None]
    gain = similarities.gather(2, chosen).sum((1, 2)) - current
    step = {axis: order}
    for inner, units in within.items():
        length = units.shape[3]
        best = units.gather(2, chosen[..., None].expand(-1, -1, -1, length)).squeeze(2)
        step[inner] = (chosen * length + best).flatten(1)
    return step, gain


def _identity(layout: ParameterLayout, networks: int) -> Orders:
    return {axis: torch.arange(layout.axes[axis]).repeat(networks, 1) for axis in layout.hidden_axes}


def _inner_products(rows: Rows) -> Float[Tensor, "1"]:
    """Return `sum over i < j of <row_i, row_j>`, which is `(|sum_i row_i|^2 - sum_i |row_i|^2) / 2`."""
    total = rows.sum(0, dtype=torch.float64)
    return (total @ total - rows.square().sum(dtype=torch.float64))[None] / 2
