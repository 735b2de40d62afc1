"""Merging: one network from several, by the mean of their weights, with units unchanged or aligned.

Source: Wortsman et al. 2022, *Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time*, https://arxiv.org/abs/2203.05482; Ainsworth, Hayase, Srinivasa 2023, *Git Re-Basin: Merging
Models modulo Permutation Symmetries*, algorithm 3, https://arxiv.org/abs/2209.04836.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.alignment import is_permutable, merge_many, permute_checked
from benchmark.figures import Figure, error_bars, panels
from benchmark.predictive import Resampled, Weights, probabilities, resampled_quality
from benchmark.repair import reestimate
from benchmark.selection import good, portions
from zoo.data import Data
from zoo.networks.stack import Stack
from zoo.progress import Progress, ignore
from zoo.seeds import rng_for
from zoo.statistics import Estimate, crossed, resample
from zoo.store.networks import Networks

SIZES = (2, 4, 8, 16)  # numbers of networks in a group
VARIES = "groups and test examples"


@dataclass(frozen=True)
class Merging:
    """How well merged networks predict.

    Attributes:
        treatment: Name of the networks' treatment.
        size: Number of networks that are merged into one.
        groups: Numbers of the pairs of each group, `(groups, size)`.
        ways: What `benchmark.predictive.quality` measures on the test split for each way to merge, means over groups.
            Groups and test examples vary in the intervals. `mean`: mean of the unchanged weights (the uniform soup);
            `aligned_mean`: mean of the weights with the units of all networks in one order, see `merge_many`;
            `greedy_soup`: mean of the network with the least train loss and, in the order of train loss, of every other
            that does not raise the train loss of the mean. For comparison, `single`: mean over networks; `best`: the
            network with the least train loss; `ensemble`: mean of the probabilities of all networks.
        zoo: Name and digest of the zoo's recipe.
    """

    treatment: str
    size: int
    groups: list[list[int]]
    ways: dict[str, dict[str, Estimate]]
    zoo: dict[str, str]

    def headline(self) -> str:
        """State the accuracy of each way to merge."""
        accuracies = (f"{way} {100 * measures['accuracy'].mean:.1f}" for way, measures in self.ways.items())
        return f"{self.size:2} networks, test accuracy in %: {', '.join(accuracies)}"


def measure(
    networks: Networks, data: Data, *, sizes: Sequence[int] = SIZES, seed: int = 0, progress: Progress = ignore
) -> list[Merging]:
    """Merge good networks in groups of each size, every network in one group; see `benchmark.selection.good`.

    Arguments:
        networks: Networks of one treatment.
        data: Data whose train split chooses the greedy soup; results are measured on the test split.
        sizes: Numbers of networks in a group; those for which there are fewer than two groups are left out.
        seed: Seed of the alignment.
        progress: Function that is called with the number of networks just merged.

    Raises:
        TaskError: If there are fewer than two groups of every size.
    """
    networks, findings = good(networks, 2 * min(sizes)), []
    alignable = is_permutable(networks[:2].stack(), data.train_x)
    weights = resample(len(data.test_y))
    for size in (size for size in sizes if len(networks) >= 2 * size):
        grouped = networks[: len(networks) // size * size]
        parts = []
        for portion in portions(grouped, data.train_x.device, group=size, load=size):
            parts.append(_measure_groups(portion.stack(), size, data, weights, seed if alignable else None))
            progress(len(portion))
        ways = {
            way: {
                name: crossed(np.concatenate([part[way][name] for part in parts], 1), len(data.test_y), VARIES)
                for name in measures
            }
            for way, measures in parts[0].items()
        }
        groups = grouped.pairs.reshape(-1, size).tolist()
        findings.append(Merging(networks.treatment, size, groups, ways, networks.zoo.origin))
    return findings


def draw(findings: Sequence[Merging]) -> Figure:
    """Show the test accuracy of each way to merge against the number of networks, with intervals."""
    treatments = list(dict.fromkeys(finding.treatment for finding in findings))
    figure, axes = panels(treatments, sharex=True, sharey=True)
    for ax, treatment in zip(axes[0], treatments, strict=True):
        by_size = [finding for finding in findings if finding.treatment == treatment]
        sizes = [finding.size for finding in by_size]
        for way in by_size[0].ways:
            means, bars = error_bars([finding.ways[way]["accuracy"] for finding in by_size])
            ax.errorbar(sizes, 100 * means, 100 * bars, label=way, marker=".", linewidth=1)
        ax.set_xscale("log", base=2)
        ax.set_xlabel("networks")
    axes[0, 0].set_ylabel("test accuracy, %")
    axes[0, 0].legend(fontsize=6)
    return figure


@torch.no_grad()
def _measure_groups(
    stack: Stack, size: int, data: Data, weights: Weights, seed: int | None
) -> dict[str, dict[str, Resampled]]:
    """Return the measures of each way to merge for each group of consecutive networks; `aligned_mean` needs a seed."""
    train_loss = stack.evaluate(data.train_x, data.train_y).loss.view(-1, size)
    merged = {"mean": mean_of(stack, size), "greedy_soup": greedy_soup(stack, size, train_loss, data)}
    if seed is not None:
        merged["aligned_mean"] = mean_of(in_one_order(stack, size, data.train_x, seed), size)
    merged = {way: reestimate(networks, data.train_x) for way, networks in merged.items()}
    p = probabilities(stack, data.test_x).unflatten(0, (-1, size))  # (groups, size, examples, classes)
    predicted = {way: probabilities(network, data.test_x) for way, network in merged.items()}
    predicted["best"] = p[torch.arange(len(p)), train_loss.argmin(1)]
    predicted["ensemble"] = p.mean(1)
    measured = {way: resampled_quality(p_of_way, data.test_y, weights) for way, p_of_way in predicted.items()}
    single = resampled_quality(p.flatten(0, 1), data.test_y, weights)
    means = {name: values.reshape(len(weights), -1, size).mean(2) for name, values in single.items()}
    return measured | {"single": means}


def mean_of(stack: Stack, size: int) -> Stack:
    """Return the mean of each `size` consecutive networks."""
    return stack.with_rows(stack.rows.unflatten(0, (-1, size)).mean(1))


def in_one_order(stack: Stack, size: int, x: Float[Tensor, "examples ..."], seed: int = 0) -> Stack:
    """Return networks that compute the same, with the units of each `size` consecutive ones in one order."""
    parts = []
    for number, rows in enumerate(stack.rows.split(size)):
        orders = merge_many(stack.layout, rows, rng_for(seed, "alignment", number))
        parts.append(permute_checked(stack.with_rows(rows), orders, x).rows)
    return stack.with_rows(torch.cat(parts))


def greedy_soup(stack: Stack, size: int, train_loss: Float[Tensor, "groups size"], data: Data) -> Stack:
    """Return for each group the mean of its best network and of those that, in turn, do not raise its train loss.

    Arguments:
        stack: Networks; those of a group are consecutive.
        size: Number of networks in a group.
        train_loss: Train loss of each network, in whose order they are tried.
        data: Data whose train split decides.

    Source: Wortsman et al. 2022, *Model soups*, recipe 1, https://arxiv.org/abs/2203.05482, with the train split
    instead of a held-out one.
    """
    rows = stack.rows.unflatten(0, (-1, size))  # (groups, size, P)
    order, groups = train_loss.argsort(1), torch.arange(len(rows))
    soup, loss, count = rows[groups, order[:, 0]].clone(), train_loss.amin(1), torch.ones(len(rows), 1)
    for k in range(1, size):
        larger = soup + (rows[groups, order[:, k]] - soup) / (count + 1)
        new_loss = reestimate(stack.with_rows(larger), data.train_x).evaluate(data.train_x, data.train_y).loss
        taken = new_loss <= loss
        soup[taken], loss[taken], count[taken] = larger[taken], new_loss[taken], count[taken] + 1
    return stack.with_rows(soup)
