"""Merging: one network from several, by the mean of their weights, with and without their units in one order.

Source: Wortsman et al. 2022, *Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time*, https://arxiv.org/abs/2203.05482; Ainsworth, Hayase, Srinivasa 2023, *Git Re-Basin: Merging
Models modulo Permutation Symmetries*, algorithm 3, https://arxiv.org/abs/2209.04836.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.alignment import is_permutable, merge_many, permute
from benchmark.figures import Figure, panels
from benchmark.lines import good_networks
from benchmark.predictive import measure, probabilities
from zoo.data import Data
from zoo.networks.stack import Stack, stack_size
from zoo.seeds import rng_for
from zoo.statistics import Estimate, mean_interval
from zoo.store.zoo import Zoo

SIZES = (2, 4, 8, 16)


@dataclass(frozen=True)
class Merging:
    """How well networks do that are made of several.

    Attributes:
        treatment: whose networks.
        size: how many become one.
        groups: `(groups, size)`, which.
        ways: of each way to merge, what `benchmark.predictive.measure` tells on the test split, means over groups with
            95 % intervals. `mean`: of weights as they are (the uniform soup); `aligned_mean`: with units in one order,
            see `merge_many`; `greedy_soup`: the best on the train split, and of the others, from good to bad, those
            that do not raise the train loss of the mean. Compared with `single`: the mean over networks; `best`: that
            of the least train loss; `ensemble`: the mean of all networks' probabilities.
        zoo: name and digest of the zoo's recipe.
    """

    treatment: str
    size: int
    groups: list[list[int]]
    ways: dict[str, dict[str, Estimate]]
    zoo: dict[str, str]

    def headline(self) -> str:
        """Say how accurate each way is."""
        shares = (f"{way} {100 * measures['accuracy'].mean:.1f}" for way, measures in self.ways.items())
        return f"{self.size:2} networks, test accuracy in %: {', '.join(shares)}"


def merging(
    zoo: Zoo,
    treatment: str,
    data: Data,
    *,
    sizes: Sequence[int] = SIZES,
    seed: int = 0,
    progress: Callable[[int], None] = lambda networks: None,
) -> list[Merging]:
    """Merge networks in groups of each size, every network in one group.

    Arguments:
        zoo, treatment: whose networks: replicas all, of varied networks the good half, see `good_networks`.
        data: the train split decides in a greedy soup, the test split measures.
        sizes: of groups; those of which there are fewer than two are left out.
        seed: of the turns in which units are brought into one order.
        progress: called with the number of networks just merged.

    Raises:
        TaskError: if there are fewer than two groups of every size.
    """
    index = good_networks(zoo, treatment, 2 * min(sizes))
    possible = [size for size in sizes if len(index) >= 2 * size]
    treated, found = zoo.treated(treatment), []
    alignable = is_permutable(zoo.stack(treatment, index[:2]), data.train_x)
    for size in possible:
        groups = index[: len(index) // size * size].reshape(-1, size)
        portion = max(1, stack_size(treated.module, treated.layout, data.train_x.device) // size)
        parts = []
        for some in np.split(groups, range(portion, len(groups), portion)):
            parts.append(_measure_groups(zoo.stack(treatment, some.flatten()), size, data, seed if alignable else None))
            progress(some.size)
        ways = {
            way: {name: mean_interval(np.concatenate([part[way][name] for part in parts])) for name in parts[0][way]}
            for way in parts[0]
        }
        found.append(Merging(treatment, size, groups.tolist(), ways, zoo.origin))
    return found


def draw(findings: Sequence[Merging]) -> Figure:
    """Show the test accuracy of each way against the number of networks, with intervals."""
    treatments = list(dict.fromkeys(finding.treatment for finding in findings))
    figure, axes = panels(treatments, sharex=True, sharey=True)
    for ax, treatment in zip(axes[0], treatments, strict=True):
        own = [finding for finding in findings if finding.treatment == treatment]
        sizes = [finding.size for finding in own]
        for way in own[0].ways:
            mean, low, high = (100 * np.array([f.ways[way]["accuracy"][part] for f in own]) for part in range(3))
            ax.errorbar(sizes, mean, [mean - low, high - mean], label=way, marker=".", linewidth=1)
        ax.set_xscale("log", base=2)
        ax.set_xlabel("networks")
    axes[0, 0].set_ylabel("test accuracy, %")
    axes[0, 0].legend(fontsize=6)
    return figure


@torch.no_grad()
def _measure_groups(
    stack: Stack, size: int, data: Data, seed: int | None
) -> dict[str, dict[str, Float[np.ndarray, " groups"]]]:
    """Return the measures of each way, for each group of consecutive networks; aligned ones only with a seed."""
    train_loss = stack.evaluate(data.train_x, data.train_y).loss.view(-1, size)
    merged = {"mean": mean_of(stack, size), "greedy_soup": greedy_soup(stack, size, train_loss, data)}
    if seed is not None:
        merged["aligned_mean"] = mean_of(in_one_order(stack, size, data.train_x, seed), size)
    own = probabilities(stack, data.test_x).unflatten(0, (-1, size))  # (groups, size, examples, classes)
    predicted = {way: probabilities(network, data.test_x) for way, network in merged.items()}
    predicted["best"] = own[torch.arange(len(own)), train_loss.argmin(1)]
    predicted["ensemble"] = own.mean(1)
    measured = {way: measure(p, data.test_y) for way, p in predicted.items()}
    single = measure(own.flatten(0, 1), data.test_y)
    return measured | {"single": {name: values.reshape(-1, size).mean(1) for name, values in single.items()}}


def mean_of(stack: Stack, size: int) -> Stack:
    """Return the mean of each `size` consecutive networks."""
    return stack.with_rows(stack.rows.unflatten(0, (-1, size)).mean(1))


def in_one_order(stack: Stack, size: int, x: Float[Tensor, "examples ..."], seed: int = 0) -> Stack:
    """Return the networks with the units of each `size` consecutive ones in one order."""
    parts = []
    for number, rows in enumerate(stack.rows.split(size)):
        some = stack.with_rows(rows)
        parts.append(permute(some, merge_many(stack.layout, rows, rng_for(seed, "alignment", number)), x).rows)
    return stack.with_rows(torch.cat(parts))


def greedy_soup(stack: Stack, size: int, train_loss: Float[Tensor, "groups size"], data: Data) -> Stack:
    """Return for each group the mean of its best network and all that do not raise its train loss, in turn.

    Source: Wortsman et al. 2022, *Model soups*, recipe 1, https://arxiv.org/abs/2203.05482, with the train split in the
    place of one held out.
    """
    rows = stack.rows.unflatten(0, (-1, size))  # (groups, size, P)
    order, every = train_loss.argsort(1), torch.arange(len(rows))
    soup, loss, count = rows[every, order[:, 0]].clone(), train_loss.amin(1), torch.ones(len(rows), 1)
    for k in range(1, size):
        larger = soup + (rows[every, order[:, k]] - soup) / (count + 1)
        now = stack.with_rows(larger).evaluate(data.train_x, data.train_y).loss
        taken = now <= loss
        soup[taken], loss[taken], count[taken] = larger[taken], now[taken], count[taken] + 1
    return stack.with_rows(soup)
