"""Linear mode connectivity: is the loss low all the way between two trained networks?

Source: Frankle, Dziugaite, Roy, Carbin 2020, *Linear Mode Connectivity and the Lottery Ticket Hypothesis*,
https://arxiv.org/abs/1912.05671; Lim et al. 2024, *The Empirical Impact of Neural Parameter Symmetries, or Lack
Thereof*, table 1, https://arxiv.org/abs/2405.20231. With units aligned and with norms set: see `benchmark.alignment`
and `benchmark.repair`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from benchmark.alignment import activation_matching, is_permutable, permute, weight_matching
from benchmark.figures import Figure, panels
from benchmark.lines import Curves, as_loss, barrier, excess, good_networks, mean_distances, measure_lines
from benchmark.repair import norms_of, repair
from zoo.data import Data
from zoo.networks.stack import Stack, stack_size
from zoo.seeds import rng_for
from zoo.statistics import Estimate, mean_interval
from zoo.store.zoo import Zoo

Variant = Literal["naive", "weights", "activations", "repaired"]
VARIANTS: tuple[Variant, ...] = ("naive", "weights", "activations", "repaired")
COUPLES = 50
POINTS = 25
EXAMPLES = 512  # of the train split, on which units are compared and norms are set
RESTARTS = 3


@dataclass(frozen=True)
class ModeConnectivity:
    """Loss and accuracy along the lines between couples of networks.

    Attributes:
        treatment: whose networks.
        variant: `naive`: as they are; `weights`, `activations`: the second of each couple with its units in the order
            that matches those of the first; `repaired`: matched by weights, and the norms set on the way.
        couples: `(couples, 2)`, which.
        curves: `train_loss`, `test_accuracy` and so on, each `(couples, points)`.
        barriers: for each curve, mean over couples with its 95 % interval, see `benchmark.lines.barrier`.
        midpoints: the same in the middle of the line.
        distance: between the networks of a couple, and per square root of the number of trainable parameters.
        zoo: name and digest of the zoo's recipe.
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
        """Say how high the loss rises on the way."""
        return f"{self.variant:12}test-loss barrier {self.barriers['test_loss']}"


def mode_connectivity(
    zoo: Zoo,
    treatment: str,
    data: Data,
    *,
    variant: Variant = "naive",
    most: int = COUPLES,
    points: int = POINTS,
    seed: int = 0,
    progress: Callable[[int], None] = lambda couples: None,
) -> ModeConnectivity:
    """Measure the lines between networks: the first and the second, the third and the fourth, and so on.

    Arguments:
        zoo, treatment: whose networks: replicas all, of varied networks the good half, see `good_networks`.
        data: to measure on, both splits.
        variant: what is done to the second network of each couple and on the way, see `ModeConnectivity`.
        most: couples, the first.
        points: on a line, both ends included; odd, so that the middle is one.
        seed: of the starts of weight matching.
        progress: called with the number of couples just done.

    Raises:
        TaskError: if there are fewer than two couples of trained networks, permuting units changes what they compute,
            or they have no norms to set.
    """
    index = good_networks(zoo, treatment, 4)
    couples = index[: len(index) // 2 * 2].reshape(-1, 2)[:most]
    treated, x = zoo.treated(treatment), data.train_x[:EXAMPLES]
    parts: list[dict[str, Curves]] = []
    distances = []
    portion = max(1, stack_size(treated.module, treated.layout, data.train_x.device) // points)
    for some in np.split(couples, range(portion, len(couples), portion)):
        a, b = (zoo.stack(treatment, some[:, end]) for end in (0, 1))
        b = _matched(b, a, x, variant, seed)
        change = partial(repair, x=x) if variant == "repaired" else None
        parts.append(measure_lines(a, b, data, points, change=change))
        distances.append((b.rows - a.rows).norm(dim=1))
        progress(len(some))
    curves = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return ModeConnectivity(
        treatment=treatment,
        variant=variant,
        couples=[(int(a), int(b)) for a, b in couples],
        curves=curves,
        barriers={name: mean_interval(barrier(as_loss(name, c))) for name, c in curves.items()},
        midpoints={name: mean_interval(excess(as_loss(name, c))[:, points // 2]) for name, c in curves.items()},
        distance=mean_distances(torch.cat(distances).numpy(), int(treated.trainable.sum())),
        zoo=zoo.origin,
    )


def all_variants(zoo: Zoo, treatment: str, data: Data, **options: Any) -> list[ModeConnectivity]:
    """Measure the lines in every variant that such networks allow."""
    return [mode_connectivity(zoo, treatment, data, variant=v, **options) for v in _possible(zoo, treatment, data)]


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


def _possible(zoo: Zoo, treatment: str, data: Data) -> Sequence[Variant]:
    stack = zoo.stack(treatment, zoo.index(treatment)[:2])
    if not is_permutable(stack, data.train_x):
        return VARIANTS[:1]
    return VARIANTS if norms_of(stack.module) else VARIANTS[:3]


def _matched(stack: Stack, targets: Stack, x: torch.Tensor, variant: Variant, seed: int) -> Stack:
    """Return the networks with their units in the order of the variant."""
    if variant == "naive":
        return stack
    if variant == "activations":
        return permute(stack, activation_matching(stack, targets, x), x)
    rng = rng_for(seed, "alignment")
    return permute(stack, weight_matching(stack.layout, stack.rows, targets.rows, rng, restarts=RESTARTS), x)
