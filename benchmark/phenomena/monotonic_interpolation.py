"""Monotonic linear interpolation: does the loss fall all the way on the line from a network's start to its end?

Source: Goodfellow, Vinyals, Saxe 2015, *Qualitatively characterizing neural network optimization problems*,
https://arxiv.org/abs/1412.6544; Lucas et al. 2021, *Analyzing Monotonic Linear Interpolation in Neural Network Loss
Landscapes*, https://arxiv.org/abs/2104.11044; Lim et al. 2024, *The Empirical Impact of Neural Parameter Symmetries, or
Lack Thereof*, table 4, https://arxiv.org/abs/2405.20231.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from benchmark.figures import Figure, panels
from benchmark.lines import Curves, excess, measure_lines, trained_networks
from metanets.metrics import kendall_tau
from zoo.data import Data
from zoo.networks.stack import stack_size
from zoo.statistics import Estimate, mean_interval
from zoo.store.zoo import Zoo

POINTS = 25


@dataclass(frozen=True)
class MonotonicInterpolation:
    """Train loss along the lines from initial to trained weights.

    Attributes:
        treatment: whose networks.
        networks: which, `(networks,)`.
        train_loss: `(networks, points)`.
        measures: mean over networks with its 95 % interval of each of `MEASURES`.
        against: of each measure and each hyperparameter that differs, Kendall's tau between the two.
        zoo: name and digest of the zoo's recipe.
    """

    treatment: str
    networks: list[int]
    train_loss: Curves
    measures: dict[str, Estimate]
    against: dict[str, dict[str, float]]
    zoo: dict[str, str]

    def headline(self) -> str:
        """Say how many lines fall all the way."""
        increase, share = self.measures["largest_increase"], self.measures["monotone"]
        return (
            f"monotone {100 * share.mean:.1f} %, largest increase {increase.mean:.4f} of {len(self.networks)} networks"
        )


def largest_increase(curves: Curves) -> Float[np.ndarray, " lines"]:
    """Return the greatest rise from one point to the next, negative where the loss falls throughout."""
    return np.diff(curves, axis=1).max(1)


def monotone(curves: Curves) -> Float[np.ndarray, " lines"]:
    """Return 1 where the loss rises nowhere, else 0."""
    return (np.diff(curves, axis=1) <= 0).all(1).astype(float)


def locally_convex(curves: Curves) -> Float[np.ndarray, " lines"]:
    """Return the share of inner points where the second difference is not negative."""
    return (np.diff(curves, n=2, axis=1) >= 0).mean(1)


def under_chord(curves: Curves) -> Float[np.ndarray, " lines"]:
    """Return the share of inner points on or under the straight line between both ends."""
    return (excess(curves)[:, 1:-1] <= 0).mean(1)


MEASURES: dict[str, Callable[[Curves], Float[np.ndarray, " lines"]]] = {
    "largest_increase": largest_increase,
    "monotone": monotone,
    "locally_convex": locally_convex,
    "under_chord": under_chord,
}


def monotonic_interpolation(
    zoo: Zoo,
    treatment: str,
    data: Data,
    *,
    points: int = POINTS,
    progress: Callable[[int], None] = lambda networks: None,
) -> list[MonotonicInterpolation]:
    """Measure the lines from the start of every trained network to its end.

    Arguments:
        zoo, treatment: the networks; those that diverged are left out.
        data: to measure the train loss on.
        points: on a line, both ends included.
        progress: called with the number of networks just done.

    Raises:
        TaskError: if there are fewer than two trained networks.
    """
    index = trained_networks(zoo, treatment, 2)
    treated = zoo.treated(treatment, index)
    portion = max(1, stack_size(treated.module, treated.layout, data.train_x.device) // points)
    parts = []
    for some in np.split(index, range(portion, len(index), portion)):
        start, end = (zoo.stack(treatment, some, initial=initial) for initial in (True, False))
        parts.append(measure_lines(start, end, data, points, splits=("train",))["train_loss"])
        progress(len(some))
    curves = np.concatenate(parts).astype(float)
    measured = {name: measure(curves) for name, measure in MEASURES.items()}
    drawn = {name: values[index].astype(float) for name, values in zoo.group(treatment, "hyperparameter").items()}
    return [
        MonotonicInterpolation(
            treatment=treatment,
            networks=index.tolist(),
            train_loss=curves,
            measures={name: mean_interval(values) for name, values in measured.items()},
            against={
                name: {
                    drawn_name: kendall_tau(values, given) for drawn_name, given in drawn.items() if np.ptp(given) > 0
                }
                for name, values in measured.items()
            },
            zoo=zoo.origin,
        )
    ]


def draw(findings: Sequence[MonotonicInterpolation]) -> Figure:
    """Show the train loss on the way: the median, and where the middle half and nine tenths of networks are."""
    figure, axes = panels([finding.treatment for finding in findings], sharex=True, sharey=True)
    for ax, finding in zip(axes[0], findings, strict=True):
        t = np.linspace(0, 1, finding.train_loss.shape[1])
        for low, high in ((0.05, 0.95), (0.25, 0.75)):
            ax.fill_between(
                t, *np.quantile(finding.train_loss, [low, high], axis=0), color="C0", alpha=0.2, linewidth=0
            )
        ax.plot(t, np.median(finding.train_loss, 0), color="C0")
        ax.set_xlabel("from start to end")
    axes[0, 0].set_ylabel("train loss, nats")
    axes[0, 0].set_yscale("log")
    return figure
