"""How fast networks learn, and how much of it holds on new examples.

How many epochs it takes to reach an accuracy is known only of those that reach it; the others, whose training ended or
diverged before, count as not having reached it until then.

Source: Kaplan, Meier 1958, *Nonparametric Estimation from Incomplete Observations*,
https://doi.org/10.1080/01621459.1958.10501452.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import CensoredData, ecdf

from benchmark.figures import Figure, panels
from benchmark.lines import trained_networks
from zoo.data import Data
from zoo.statistics import Estimate, mean_interval
from zoo.store.zoo import Zoo

GOALS = (0.5, 0.7, 0.9, 0.95)  # train accuracies


@dataclass(frozen=True)
class Reached:
    """How long networks take to reach a train accuracy.

    Attributes:
        goal: the accuracy.
        networks: how many reach it.
        epochs: at which the share of networks that have not reached it falls, `(steps,)`.
        left: that share from then on, `(steps,)`.
        median: the epoch until which half of the networks have reached it; None if they never have.
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
        treatment: whose networks.
        networks: how many, those that diverged included.
        diverged: how many of them did.
        reached: for each of `GOALS`.
        final: mean over those trained, with 95 % intervals, of their last accuracies and losses and of the gap: train
            less test accuracy, test less train loss.
        zoo: name and digest of the zoo's recipe.
    """

    treatment: str
    networks: int
    diverged: int
    reached: list[Reached]
    final: dict[str, Estimate]
    zoo: dict[str, str]

    def headline(self) -> str:
        """Say when half of the networks reach each accuracy."""
        medians = ", ".join(f"{each.goal:g} after {each.median or 'never'}" for each in self.reached)
        return f"median epochs to train accuracy: {medians}; gap {self.final['accuracy_gap']}"


def optimisation(
    zoo: Zoo, treatment: str, data: Data | None = None, *, progress: Callable[[int], None] = lambda networks: None
) -> list[Optimisation]:
    """Measure what a zoo's curves tell.

    Arguments:
        zoo, treatment: the networks.
        data: is not needed; curves stand in the zoo.
        progress: called with the number of networks.

    Raises:
        TaskError: if there are fewer than two trained networks.
    """
    index = trained_networks(zoo, treatment, 2)
    curves = zoo.field(treatment, "curve_train_accuracy")
    metrics = {name: values[index] for name, values in zoo.group(treatment, "metric").items()}
    gaps = {
        "accuracy_gap": metrics["train_accuracy"] - metrics["test_accuracy"],
        "loss_gap": metrics["test_loss"] - metrics["train_loss"],
    }
    progress(len(curves))
    return [
        Optimisation(
            treatment=treatment,
            networks=len(curves),
            diverged=len(curves) - len(index),
            reached=[reached(curves, goal) for goal in GOALS],
            final={name: mean_interval(values.astype(float)) for name, values in (metrics | gaps).items()},
            zoo=zoo.origin,
        )
    ]


def draw(findings: Sequence[Optimisation]) -> Figure:
    """Show for each goal the share of networks that have not reached it, against epochs."""
    figure, axes = panels([f"train accuracy {goal:g}" for goal in GOALS], sharey=True)
    for finding in findings:
        for ax, each in zip(axes[0], finding.reached, strict=True):
            ax.step([0, *each.epochs], [1, *each.left], where="post", label=finding.treatment)
            ax.set_xlabel("epochs")
    axes[0, 0].set_ylabel("share still below")
    axes[0, 0].legend(fontsize=6)
    return figure


def reached(curves: Float[np.ndarray, "networks epochs"], goal: float) -> Reached:
    """Estimate how long it takes to reach a goal.

    Arguments:
        curves: accuracy after each epoch, NaN after a network's end.
        goal: the accuracy.
    """
    there = np.nan_to_num(curves, nan=-1.0) >= goal
    arrived = there.any(1)
    ended = (~np.isnan(curves)).sum(1)
    epochs = np.where(arrived, there.argmax(1) + 1, ended)
    survival = ecdf(CensoredData(uncensored=epochs[arrived], right=epochs[~arrived])).sf
    half = survival.quantiles[survival.probabilities <= 0.5]
    return Reached(
        goal=goal,
        networks=int(arrived.sum()),
        epochs=survival.quantiles.astype(float),
        left=survival.probabilities,
        median=float(half[0]) if len(half) else None,
    )
