"""Measures the predictive distributions of networks, of ensembles and of posteriors."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from zoo.networks.stack import Stack
from zoo.treatments import Treated

BINS = 15  # bins of confidence, as in Guo et al. 2017

Probabilities = Float[Tensor, "networks examples classes"]
Values = Float[np.ndarray, " networks"]
Weights = Float[np.ndarray, "resamples examples"]
Resampled = Float[np.ndarray, "resamples networks"]


@runtime_checkable
class Posterior(Protocol):
    """K posteriors, from which networks can be drawn."""

    def draw(self, samples: int, generator: torch.Generator) -> Float[Tensor, "networks samples parameters"]:
        """Draw `samples` rows from each posterior."""
        ...


def probabilities(stack: Stack, x: Float[Tensor, "examples ..."]) -> Probabilities:
    """Return the probability of each class by every network, for every example."""
    return stack.logits(x).softmax(-1)


def predict(
    posterior: Posterior, treated: Treated, x: Float[Tensor, "examples ..."], samples: int, generator: torch.Generator
) -> Probabilities:
    """Return the predictive distribution of K posteriors: the mean of the probabilities of networks drawn from each.

    Arguments:
        posterior: K posteriors.
        treated: Architecture and treatment of their networks.
        x: Examples to predict.
        samples: Number of networks drawn from each posterior.
        generator: Generator of the draws.
    """
    total = torch.zeros(())
    for _ in range(samples):
        rows = posterior.draw(1, generator).squeeze(1)
        total = total + probabilities(treated.stack(rows), x)
    return total / samples


def quality(p: Probabilities, y: Int[Tensor, " examples"]) -> dict[str, Values]:
    """Return how well predictions p match the labels y; see `resampled_quality`."""
    every = np.full((1, len(y)), 1 / len(y))
    return {name: values[0] for name, values in resampled_quality(p, y, every).items()}


def resampled_quality(p: Probabilities, y: Int[Tensor, " examples"], weights: Weights) -> dict[str, Resampled]:
    """Return how well predictions p match the labels y, in each resample of the examples.

    Arguments:
        p: Predictions.
        y: Labels.
        weights: Weight of each example in each resample, such as `zoo.statistics.resample` returns.

    Returns:
        accuracy: Fraction of examples whose most probable class is the label.
        loss: Mean negative log-likelihood `-log p(y)`, in nats.
        calibration_error: Expected calibration error `sum_b |sum_(n in b) (confidence_n - correct_n)| / N`, with 15
            bins b of confidence and `correct_n` 1 or 0. Finite bins make it larger than 0 even for calibrated
            predictions, which an interval of it does not show. In a resample each bin keeps the sign of its sum, as the
            noise of resampling would make all errors larger still.
        brier: Mean of `sum over classes c of (p_c - [c = y])^2`, between 0 and 2.

    Source: Guo, Pleiss, Sun, Weinberger 2017, *On Calibration of Modern Neural Networks*,
    https://arxiv.org/abs/1706.04599; Brier 1950, *Verification of Forecasts Expressed in Terms of Probability*,
    https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
    """
    confidence, predicted = p.max(-1)
    correct = (predicted == y).to(p.dtype)
    p_label = p.gather(-1, y.expand(len(p), -1)[..., None]).squeeze(-1)
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = confidence - correct
    of_bins = p.new_zeros(len(p), BINS).scatter_add(1, bins, gaps)
    each = {
        "accuracy": correct,
        "loss": -p_label.clamp(min=torch.finfo(p.dtype).tiny).log(),
        "calibration_error": gaps * of_bins.sign().gather(1, bins),
        "brier": p.square().sum(-1) - 2 * p_label + 1,
    }
    return {name: weights @ values.double().cpu().numpy().T for name, values in each.items()}


def detection(
    inside: Probabilities,
    outside: Float[Tensor, "networks others classes"],
    weights: Weights,
    other_weights: Float[np.ndarray, "resamples others"],
) -> Resampled:
    """Return the area under the ROC curve of separating examples of the data from others by confidence; .5 is chance.

    It is the probability that an example of the data has more confidence than another one, plus half of the probability
    that both have the same.

    Arguments:
        inside: Predictions on examples of the data.
        outside: Predictions on other examples.
        weights: Weight of each example of the data in each resample, such as `zoo.statistics.resample` returns.
        other_weights: Weight of each other example.

    Source: Hendrycks, Gimpel 2017, *A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural
    Networks*, https://arxiv.org/abs/1610.02136.
    """
    areas = []
    for here, elsewhere in zip(inside.amax(-1).cpu().numpy(), outside.amax(-1).cpu().numpy(), strict=True):
        above = (np.sign(here[:, None] - elsewhere) + 1) / 2  # (examples, others)
        areas.append((weights @ above * other_weights).sum(1))
    return np.stack(areas, 1)


def predictive_divergence(p: Probabilities, q: Probabilities) -> Values:
    """Return the mean over examples of `(KL(p || q) + KL(q || p)) / 2`, in nats."""
    tiny = torch.finfo(p.dtype).tiny
    gap = (p - q) * (p.clamp(min=tiny).log() - q.clamp(min=tiny).log())
    return (gap.sum(-1).mean(-1) / 2).cpu().numpy()


def disagreement(p: Probabilities) -> Float[np.ndarray, " couples"]:
    """Return the fraction of examples on which two networks predict different classes, for all choices of two.

    The choices i < j are in the order of `numpy.triu_indices(networks, 1)`.

    Source: Fort, Hu, Lakshminarayanan 2019, *Deep Ensembles: A Loss Landscape Perspective*,
    https://arxiv.org/abs/1912.02757.
    """
    first, second = of_couples(p.argmax(-1))
    return (first != second).double().mean(1).cpu().numpy()


def of_couples(values: Shaped[Tensor, "networks ..."]) -> tuple[Tensor, Tensor]:
    """Return what belongs to the first, and to the second, of all choices of two networks i < j."""
    first, second = torch.triu_indices(len(values), len(values), 1)
    return values[first], values[second]
