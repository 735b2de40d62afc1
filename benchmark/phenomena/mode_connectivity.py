"""Linear mode connectivity: is the loss low all the way between two trained networks?

Source: Frankle, Dziugaite, Roy, Carbin 2020, *Linear Mode Connectivity and the Lottery Ticket Hypothesis*,
https://arxiv.org/abs/1912.05671; Lim et al. 2024, *The Empirical Impact of Neural Parameter Symmetries, or Lack
Thereof*, table 1, https://arxiv.org/abs/2405.20231; for networks that are aligned or repaired see
`benchmark.alignment` and `benchmark.repair`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch

from benchmark.alignment import activation_matching, is_permutable, permute_checked, weight_matching
from benchmark.figures import Figure, panels
from benchmark.lines import Curves, as_loss, barrier, excess, measure_lines, on_scales
from benchmark.repair import is_repairable, repair
from benchmark.selection import good, portions
from zoo.data import Data
from zoo.networks.stack import Stack
from zoo.progress import Progress, ignore
from zoo.seeds import rng_for
from zoo.statistics import Estimate, mean_interval
from zoo.store.networks import Networks

Variant = Literal["naive", "weights", "activations", "repaired"]
VARIANTS: tuple[Variant, ...] = ("naive", "weights", "activations", "repaired")
LINES = 50  # lines per treatment, at most
VARIES = "lines on these examples"
POINTS = 25  # on a line; odd, so that the middle is one of them
EXAMPLES = 512  # training examples on which units are compared and norms are set
RESTARTS = 3  # starts of weight matching, of which the best is used


@dataclass(frozen=True)
class ModeConnectivity:
    """Loss and accuracy along the lines between networks.

    Attributes:
        treatment: Name of the networks' treatment.
        variant: What is done to the networks. `naive`: nothing; `weights`, `activations`: the units of the second
            network of each line are matched to those of the first, by weights or by activations; `repaired`: they are
            matched by weights, and the norms of the networks on the line are set.
        couples: Numbers of the pairs of the networks at both ends of each line, `(lines, 2)`.
        curves: `train_loss`, `train_accuracy`, `test_loss` and `test_accuracy`, each `(lines, points)`.
        barriers: Mean barrier of each of these curves over lines with its 95 % interval, see `benchmark.lines.barrier`.
        midpoints: Mean excess in the middle of the line, see `benchmark.lines.excess`.
        distance: Mean distance between the ends of a line: `whole`, and `per_parameter`, divided by the square root of
            the number of trainable parameters.
        zoo: Name and digest of the zoo's recipe.
    """

    treatment: str
    variant: Variant
    couples: list[tuple[int, int]]
    curves: dict[str, Curves]
    barriers: dict[str, Estimate]
    midpoints: dict[str, Estimate]
    distance: dict[str, Estimate]
    zoo: dict[str, str]

    def headline(self) -> str:
        """State the barrier of the test loss."""
        return f"{self.variant:12}test-loss barrier {self.barriers['test_loss']}"


def measure(
    networks: Networks,
    data: Data,
    *,
    lines: int = LINES,
    points: int = POINTS,
    seed: int = 0,
    progress: Progress = ignore,
) -> list[ModeConnectivity]:
    """Measure the lines between networks in every variant that is possible.

    Arguments:
        networks: Networks of one treatment; see `measure_variant`.
        data: Data to measure on, both splits.
        lines: Largest number of lines.
        points: Number of points on a line, both ends included; odd, so that the middle is one of them.
        seed: Seed of the starts of weight matching.
        progress: Function that is called with the number of lines just measured.

    Raises:
        TaskError: If there are fewer than four good networks.
    """
    options = {"lines": lines, "points": points, "seed": seed}
    possible = _possible(good(networks, 4), data)
    return [measure_variant(networks, data, variant, **options, progress=progress) for variant in possible]


def measure_variant(
    networks: Networks,
    data: Data,
    variant: Variant = "naive",
    *,
    lines: int = LINES,
    points: int = POINTS,
    seed: int = 0,
    progress: Progress = ignore,
) -> ModeConnectivity:
    """Measure the lines from the first good network to the second, from the third to the fourth, and so on.

    Arguments:
        networks: Networks of one treatment, of which the good ones are connected; see `benchmark.selection.good`.
        data: Data to measure on, both splits.
        variant: What is done to the networks, see `ModeConnectivity`.
        lines: Largest number of lines.
        points: Number of points on a line, both ends included; odd, so that the middle is one of them.
        seed: Seed of the starts of weight matching.
        progress: Function that is called with the number of lines just measured.

    Raises:
        TaskError: If there are fewer than four good networks, or the variant is impossible because permuting units
            changes what networks compute or there are no norms to set.
    """
    networks = good(networks, 4)
    networks, x = networks[: 2 * min(lines, len(networks) // 2)], data.train_x[:EXAMPLES]
    parts, distances = [], []
    for portion in portions(networks, x.device, group=2, load=points):
        a, b = portion[::2].stack(), portion[1::2].stack()
        b = _matched(b, a, x, variant, seed)
        change = partial(repair, x=x) if variant == "repaired" else None
        parts.append(measure_lines(a, b, data, points, change=change))
        distances.append((b.rows - a.rows)[:, a.layout.learned].norm(dim=1))
        progress(len(a))
    curves = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    costs = {name: as_loss(name, values) for name, values in curves.items()}
    distance = torch.cat(distances).double().numpy()
    return ModeConnectivity(
        treatment=networks.treatment,
        variant=variant,
        couples=list(zip(networks.pairs[::2].tolist(), networks.pairs[1::2].tolist(), strict=True)),
        curves=curves,
        barriers={name: mean_interval(barrier(c), VARIES) for name, c in costs.items()},
        midpoints={name: mean_interval(excess(c)[:, points // 2], VARIES) for name, c in costs.items()},
        distance={
            name: mean_interval(d, "lines") for name, d in on_scales(distance, int(networks.trainable.sum())).items()
        },
        zoo=networks.zoo.origin,
    )


def draw(findings: Sequence[ModeConnectivity]) -> Figure:
    """Show the test loss along every line and its mean: a column for each treatment, a row for each variant."""
    treatments = list(dict.fromkeys(finding.treatment for finding in findings))
    variants = list(dict.fromkeys(finding.variant for finding in findings))
    figure, axes = panels(treatments, len(variants), sharex=True, sharey=True)
    for finding in findings:
        ax = axes[variants.index(finding.variant), treatments.index(finding.treatment)]
        curves = finding.curves["test_loss"]
        t = np.linspace(0, 1, curves.shape[1])
        ax.plot(t, curves.T, color="C0", alpha=0.25, linewidth=0.7)
        ax.plot(t, curves.mean(0), color="C3", linewidth=2)
    for ax, variant in zip(axes[:, 0], variants, strict=True):
        ax.set_ylabel("test loss, nats" if len(variants) == 1 else f"{variant}: test loss, nats")
    for ax in axes[-1]:
        ax.set_xlabel("from one network to another")
    return figure


def _possible(networks: Networks, data: Data) -> Sequence[Variant]:
    """Return the variants that are possible."""
    stack = networks[:2].stack()
    if not is_permutable(stack, data.train_x):
        return VARIANTS[:1]
    return VARIANTS if is_repairable(stack) else VARIANTS[:3]


def _matched(stack: Stack, targets: Stack, x: torch.Tensor, variant: Variant, seed: int) -> Stack:
    """Return networks with their units matched to those of the targets by the method of the variant."""
    if variant == "naive":
        return stack
    if variant == "activations":
        return permute_checked(stack, activation_matching(stack, targets, x), x)
    rng = rng_for(seed, "alignment")
    return permute_checked(stack, weight_matching(stack.layout, stack.rows, targets.rows, rng, restarts=RESTARTS), x)
