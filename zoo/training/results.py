"""What training takes and gives for each of K networks: draws of a pair, trained weights, metrics and curves."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MEASURED = ("train_accuracy", "train_loss", "test_accuracy", "test_loss")  # metrics of every network, and its curves


@dataclass(frozen=True)
class Draws:
    """Pair and hyperparameters of K networks, each `(K,)`.

    Attributes:
        pair: Number of the pair, which seeds the order and the augmentation of the examples.
        learning_rate, weight_decay, label_smoothing, epochs: Hyperparameters of the pair.
    """

    pair: Int[Tensor, " networks"]
    learning_rate: Float[Tensor, " networks"]
    weight_decay: Float[Tensor, " networks"]
    label_smoothing: Float[Tensor, " networks"]
    epochs: Int[Tensor, " networks"]


@dataclass(frozen=True)
class Trained:
    """Result of training, on the CPU.

    Attributes:
        rows: Trained weights as the network uses them, `(K, P)`. Those of a diverged network are the weights of its
            last finite loss.
        diverged: Whether the network diverged, `(K,)`.
        seconds: Training time of the network, `(K,)`; in a stack, in every epoch, the time of the stack divided by its
            networks.
        metrics: Metrics of `rows` on the data without augmentation, `(K,)`, by the names in `MEASURED`.
        curves: Metrics after each epoch, `(K, epochs)`, NaN where they were not measured.
    """

    rows: Float[Tensor, "networks parameters"]
    diverged: Bool[Tensor, " networks"]
    seconds: Float[Tensor, " networks"]
    metrics: dict[str, Float[Tensor, " networks"]]
    curves: dict[str, Float[Tensor, "networks epochs"]]

    @classmethod
    def blank(cls, start: Tensor, epochs: int) -> "Trained":
        """Return a result to be filled, for K networks with `start` `(K, P)` and at most `epochs` epochs."""
        networks, dtype = len(start), start.dtype
        return cls(
            rows=torch.empty_like(start, device="cpu"),
            diverged=torch.zeros(networks, dtype=torch.bool),
            seconds=torch.zeros(networks),
            metrics={name: torch.full((networks,), torch.nan, dtype=dtype) for name in MEASURED},
            curves={name: torch.full((networks, epochs), torch.nan, dtype=dtype) for name in MEASURED},
        )

    def record(self, which: Tensor, metrics: dict[str, Tensor]) -> None:
        """Store the final metrics of the networks that a mask or positions select."""
        for name, values in metrics.items():
            self.metrics[name][which] = values

    def diverge(self, index: Tensor, broken: Tensor, rows: Tensor) -> None:
        """Flag networks that diverge now, and store their last finite weights.

        Arguments:
            index: Positions of the networks in training.
            broken: Whether each of them has a loss that is not finite.
            rows: Last finite weights of each of them.
        """
        broken = broken & ~self.diverged[index]
        self.rows[index[broken]] = rows[broken].cpu()
        self.diverged[index[broken]] = True
