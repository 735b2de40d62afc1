"""How fast networks learn, and how much worse they are on new examples.

The number of epochs to an accuracy is known only for networks that reach it. A network whose training ends or diverges
earlier is censored at that epoch, in the estimator of Kaplan and Meier.

Source: Kaplan, Meier 1958, *Nonparametric Estimation from Incomplete Observations*,
https://doi.org/10.1080/01621459.1958.10501452.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import CensoredData, ecdf

from benchmark.figures import Figure, panels
from benchmark.selection import trained
from zoo.data import Data
from zoo.progress import Progress, ignore
from zoo.statistics import Estimate, mean_interval
from zoo.store.networks import Networks

GOALS = (0.5, 0.7, 0.9, 0.95)  # train accuracies
VARIES = "networks on these examples"


@dataclass(frozen=True)
class Reached:
    """How long networks take to reach a train accuracy.

    Attributes:
        goal: Accuracy to reach.
        networks: Number of networks that reach it.
        epochs: Epochs at which the estimated fraction of networks that have not reached it falls, `(steps,)`.
        left: This fraction after each of `epochs`, `(steps,)`.
        median: First epoch after which at most half of the networks have not reached it; None if there is none.
    """

    goal: float
    networks: int
    epochs: Float[np.ndarray, " steps"]
    left: Float[np.ndarray, " steps"]
    median: float | None


@dataclass(frozen=True)
class Optimisation:
    """How fast and how well a treatment's networks learn.

    Attributes:
        treatment: Name of the networks' treatment.
        networks: Number of networks of the treatment in the zoo, those that diverged included.
        diverged: Number of networks that diverged.
        reached: How long all these networks take to reach each of `GOALS`.
        final: Means over trained networks of their last accuracies and losses and of the gaps
            `accuracy_gap`, train less test accuracy, and `loss_gap`, test less train loss.
        zoo: Name and digest of the zoo's recipe.
    """

    treatment: str
    networks: int
    diverged: int
    reached: list[Reached]
    final: dict[str, Estimate]
    zoo: dict[str, str]

    def headline(self) -> str:
        """State after how many epochs half of the networks have reached each accuracy."""
        medians = ", ".join(f"{each.goal:g} after {each.median or 'never'}" for each in self.reached)
        return f"median epochs to train accuracy: {medians}; gap {self.final['accuracy_gap']}"


def measure(networks: Networks, data: Data | None = None, *, progress: Progress = ignore) -> list[Optimisation]:
    """Measure how fast networks learn, from the curves that the zoo has recorded.

    Arguments:
        networks: Networks of one treatment, over which the final values are averaged. The epochs to a goal are measured
            on all networks of the treatment, because those that diverged count as not having reached it.
        data: Data, which are not used because the zoo has the curves.
        progress: Function that is called with the number of networks just measured.

    Raises:
        TaskError: If there are fewer than two trained networks.
    """
    networks = trained(networks, 2)
    every = Networks(networks.zoo, networks.treatment, np.arange(len(networks.zoo)))
    curves = every["curve_train_accuracy"]
    metrics = networks.group("metric")
    gaps = {
        "accuracy_gap": metrics["train_accuracy"] - metrics["test_accuracy"],
        "loss_gap": metrics["test_loss"] - metrics["train_loss"],
    }
    progress(len(every))
    return [
        Optimisation(
            treatment=networks.treatment,
            networks=len(every),
            diverged=int((every["status"] != "trained").sum()),
            reached=[reached(curves, goal) for goal in GOALS],
            final={name: mean_interval(values.astype(float), VARIES) for name, values in (metrics | gaps).items()},
            zoo=networks.zoo.origin,
        )
    ]


def draw(findings: Sequence[Optimisation]) -> Figure:
    """Show for each goal the fraction of networks that have not reached it, against epochs."""
    figure, axes = panels([f"train accuracy {goal:g}" for goal in GOALS], sharey=True)
    for finding in findings:
        for ax, each in zip(axes[0], finding.reached, strict=True):
            ax.step([0, *each.epochs], [1, *each.left], where="post", label=finding.treatment)
            ax.set_xlabel("epochs")
    axes[0, 0].set_ylabel("fraction still below")
    axes[0, 0].legend(fontsize=6)
    return figure


def reached(curves: Float[np.ndarray, "networks epochs"], goal: float) -> Reached:
    """Estimate how long networks take to reach a goal.

    Arguments:
        curves: Accuracy after each epoch, NaN where it was not measured and once a network's training has ended. A goal
            counts as reached in the first epoch in which it was measured.
        goal: Accuracy to reach.
    """
    above = np.nan_to_num(curves, nan=-1.0) >= goal
    arrived = above.any(1)
    ended = ((~np.isnan(curves)) * np.arange(1, curves.shape[1] + 1)).max(1)
    epochs = np.where(arrived, above.argmax(1) + 1, ended)
    survival = ecdf(CensoredData(uncensored=epochs[arrived], right=epochs[~arrived])).sf
    half = survival.quantiles[survival.probabilities <= 0.5]
    return Reached(
        goal=goal,
        networks=int(arrived.sum()),
        epochs=survival.quantiles.astype(float),
        left=survival.probabilities,
        median=float(half[0]) if len(half) else None,
    )
