"""Measures the predictive distributions of networks, of ensembles and of posteriors."""

import math
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.metrics import roc_auc_score
from torch import Tensor

from zoo.networks.stack import Stack
from zoo.treatments import Treated

BINS = 15  # bins of confidence, as in Guo et al. 2017

Probabilities = Float[Tensor, "networks examples classes"]
Values = Float[np.ndarray, " networks"]


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
    """Return how well predictions p match the labels y.

    Returns:
        accuracy: Fraction of examples whose most probable class is the label.
        loss: Mean negative log-likelihood `-log p(y)`, in nats.
        calibration_error: Expected calibration error `sum_b |sum_(n in b) (confidence_n - correct_n)| / N`, with 15
            bins b of confidence and `correct_n` 1 or 0.
        brier: Mean of `sum over classes c of (p_c - [c = y])^2`, between 0 and 2.

    Source: Guo, Pleiss, Sun, Weinberger 2017, *On Calibration of Modern Neural Networks*,
    https://arxiv.org/abs/1706.04599; Brier 1950, *Verification of Forecasts Expressed in Terms of Probability*,
    https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
    """
    confidence, predicted = p.max(-1)
    correct = (predicted == y).to(p.dtype)
    p_label = p.gather(-1, y.expand(len(p), -1)[..., None]).squeeze(-1)
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = p.new_zeros(len(p), BINS).scatter_add(1, bins, confidence - correct)
    values = {
        "accuracy": correct.mean(1),
        "loss": -p_label.clamp(min=torch.finfo(p.dtype).tiny).log().mean(1),
        "calibration_error": gaps.abs().sum(1) / len(y),
        "brier": (p.square().sum(-1) - 2 * p_label + 1).mean(1),
    }
    return {name: value.cpu().numpy() for name, value in values.items()}


def detection(inside: Probabilities, outside: Float[Tensor, "networks others classes"]) -> Values:
    """Return the area under the ROC curve of separating examples of the data from others by confidence; .5 is chance.

    Arguments:
        inside: Predictions on examples of the data.
        outside: Predictions on other examples.

    Source: Hendrycks, Gimpel 2017, *A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural
    Networks*, https://arxiv.org/abs/1610.02136.
    """
    which = np.repeat([1, 0], [inside.shape[1], outside.shape[1]])
    confidence = torch.cat([inside.amax(-1), outside.amax(-1)], 1).double().cpu().numpy()
    return np.array([roc_auc_score(which, values) for values in confidence])


def predictive_divergence(p: Probabilities, q: Probabilities) -> Values:
    """Return the mean over examples of `(KL(p || q) + KL(q || p)) / 2`, in nats."""
    tiny = torch.finfo(p.dtype).tiny
    gap = (p - q) * (p.clamp(min=tiny).log() - q.clamp(min=tiny).log())
    return (gap.sum(-1).mean(-1) / 2).cpu().numpy()


def disagreement(p: Probabilities) -> float:
    """Return the fraction of examples on which two networks predict different classes, mean over all choices of two.

    Source: Fort, Hu, Lakshminarayanan 2019, *Deep Ensembles: A Loss Landscape Perspective*,
    https://arxiv.org/abs/1912.02757.
    """
    predicted = p.argmax(-1)
    choices = math.comb(len(p), 2)
    votes = torch.stack([(predicted == c).sum(0) for c in range(p.shape[-1])])
    agreeing = (votes * (votes - 1) // 2).sum(0)
    return float(1 - agreeing.double().mean() / choices)
