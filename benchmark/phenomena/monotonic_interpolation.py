"""Monotonic linear interpolation: does the loss fall all the way on the line from a network's start to its end?

Source: Goodfellow, Vinyals, Saxe 2015, *Qualitatively characterizing neural network optimization problems*,
https://arxiv.org/abs/1412.6544; Lucas et al. 2021, *Analyzing Monotonic Linear Interpolation in Neural Network Loss
Landscapes*, https://arxiv.org/abs/2104.11044; Lim et al. 2024, *The Empirical Impact of Neural Parameter Symmetries, or
Lack Thereof*, table 4, https://arxiv.org/abs/2405.20231.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from benchmark.figures import Figure, panels
from benchmark.lines import Curves, excess, measure_lines
from benchmark.selection import portions, trained
from metanets.metrics import kendall_tau
from zoo.data import Data
from zoo.progress import Progress, ignore
from zoo.statistics import Estimate, mean_interval, proportion
from zoo.store.networks import Networks

POINTS = 25  # on a line, as between networks in `mode_connectivity`


@dataclass(frozen=True)
class MonotonicInterpolation:
    """Train loss along the lines from initial to trained weights.

    Attributes:
        treatment: Name of the networks' treatment.
        networks: Numbers of their pairs, `(networks,)`.
        train_loss: Mean cross-entropy on each network's line, `(networks, points)`, in nats.
        measures: Mean over networks, for each of `MEASURES`; of `monotone` the number of networks.
        against: Kendall's tau between each measure and each hyperparameter that differs between the networks.
        zoo: Name and digest of the zoo's recipe.
    """

    treatment: str
    networks: list[int]
    train_loss: Curves
    measures: dict[str, Estimate]
    against: dict[str, dict[str, float]]
    zoo: dict[str, str]

    def headline(self) -> str:
        """State on how many lines the loss falls all the way."""
        return f"monotone {self.measures['monotone']}, largest increase {self.measures['largest_increase']}"


def largest_increase(curves: Curves) -> Float[np.ndarray, " lines"]:
    """Return the greatest rise from one point to the next, negative where the loss falls throughout."""
    return np.diff(curves, axis=1).max(1)


def monotone(curves: Curves) -> Bool[np.ndarray, " lines"]:
    """Return whether the loss rises nowhere."""
    return np.all(np.diff(curves, axis=1) <= 0, axis=1)


def locally_convex(curves: Curves) -> Float[np.ndarray, " lines"]:
    """Return the fraction of inner points at which the second difference is not negative."""
    return (np.diff(curves, n=2, axis=1) >= 0).mean(1)


def under_chord(curves: Curves) -> Float[np.ndarray, " lines"]:
    """Return the fraction of inner points that lie on or under the straight line between both ends."""
    return (excess(curves)[:, 1:-1] <= 0).mean(1)


MEASURES: dict[str, Callable[[Curves], Shaped[np.ndarray, " lines"]]] = {
    "largest_increase": largest_increase,
    "monotone": monotone,
    "locally_convex": locally_convex,
    "under_chord": under_chord,
}


def measure(
    networks: Networks, data: Data, *, points: int = POINTS, progress: Progress = ignore
) -> list[MonotonicInterpolation]:
    """Measure the line from the initial to the trained weights of every trained network.

    Arguments:
        networks: Networks of one treatment.
        data: Data on whose train split the loss is measured.
        points: Number of points on a line, both ends included.
        progress: Function that is called with the number of networks just measured.

    Raises:
        TaskError: If there are fewer than two trained networks.
    """
    networks = trained(networks, 2)
    parts = []
    for portion in portions(networks, data.train_x.device, load=points):
        start, end = (portion.stack(initial=initial) for initial in (True, False))
        parts.append(measure_lines(start, end, data, points, splits=("train",))["train_loss"])
        progress(len(portion))
    curves = np.concatenate(parts).astype(float)
    measured = {name: function(curves) for name, function in MEASURES.items()}
    hyperparameters = {name: values.astype(float) for name, values in networks.group("hyperparameter").items()}
    varied = {name: values for name, values in hyperparameters.items() if np.ptp(values) > 0}
    return [
        MonotonicInterpolation(
            treatment=networks.treatment,
            networks=networks.pairs.tolist(),
            train_loss=curves,
            measures={
                name: proportion(values) if values.dtype == bool else mean_interval(values)
                for name, values in measured.items()
            },
            against={
                name: {other: kendall_tau(values.astype(float), others) for other, others in varied.items()}
                for name, values in measured.items()
            },
            zoo=networks.zoo.origin,
        )
    ]


def draw(findings: Sequence[MonotonicInterpolation]) -> Figure:
    """Show the median train loss on the lines, and the ranges of the middle 50 % and 90 % of networks."""
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
