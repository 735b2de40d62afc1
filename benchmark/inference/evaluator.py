"""Measures posteriors: what they predict, and how far apart they are."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.inference import langevin
from benchmark.inference.laplace import Laplace
from benchmark.lines import barrier, measure_lines
from benchmark.predictive import (
    Posterior,
    Probabilities,
    detection,
    disagreement,
    of_couples,
    predict,
    predictive_divergence,
    probabilities,
    quality,
    resampled_quality,
)
from zoo.data import Data
from zoo.seeds import rng_for, seed_for
from zoo.statistics import Estimate, Times, crossed, mean_interval, over_couples, resample
from zoo.store.networks import Networks

Method = Literal["single", "ensemble", "low_rank", "quiet", "mean_field", "swag", "laplace", "langevin"]

EXAMPLES = 2000  # test examples, at most
SAMPLES = 25  # networks drawn from each posterior for its predictions
HERE = " on these test examples"
FEW = 5  # networks drawn from each posterior for its predictions at a checkpoint
POINTS = 25  # points on the line between means, as between networks in `mode_connectivity`


@dataclass(frozen=True)
class Bayesian:
    """Posteriors of one treatment, by one method.

    Attributes:
        treatment: Name of the networks' treatment.
        method: How posteriors are found. `single`: trained networks one by one; `ensemble`: five of them together;
            `low_rank`, `mean_field`: variational, from initial networks; `quiet`: `low_rank` without variance at the
            entries that W-Asymmetric networks of the zoo fix, which are trained as numbers; `swag`; `laplace`:
            linearised; `langevin`: a chain from each trained network, which comes nearest to the true posterior.
        networks: Numbers of the pairs that posteriors start from.
        final: Means over posteriors on the test split: what `benchmark.predictive.quality` measures, and `detection` of
            test examples against those of another data set, or against the same examples with their pixels permuted.
            Posteriors and test examples vary in the intervals.
        apart: How far apart posteriors are, means over all choices of two: `barrier` of the test loss between their
            means, and `predictive_divergence`. For `single` networks it is their `disagreement`. Chains also have their
            `temperature`, and the median `rhat` of the log probabilities of test labels; both are close to 1 if the
            chains can be trusted.
        steps: Steps of training after which there is a checkpoint, `(checkpoints,)`.
        curves: Values at checkpoints, `(networks, checkpoints)`: `expected_loss`, `divergence` and `bound`, means since
            the last checkpoint in nats per example; `test_loss` and `test_accuracy` from few draws.
        steps_needed: Number of steps to the goal: ELBO + initial divergence >= -`GOAL` nats per example, where the ELBO
            is a running mean over the steps from one checkpoint to the next.
        zoo: Name and digest of the zoo's recipe.
    """

    treatment: str
    method: Method
    networks: list[int]
    final: dict[str, Estimate]
    apart: dict[str, Estimate]
    zoo: dict[str, str]
    steps: list[int] = field(default_factory=list)
    curves: dict[str, Float[np.ndarray, "networks checkpoints"]] = field(default_factory=dict)
    steps_needed: Times | None = None

    def headline(self) -> str:
        """State test loss and accuracy."""
        return f"{self.method:12}test loss {self.final['loss']}, accuracy {self.final['accuracy']}"


@dataclass(frozen=True)
class Evaluator:
    """Measures posteriors of one treatment.

    Arguments:
        networks: Networks that posteriors start from.
        data: Data whose test split the posteriors are measured on.
        seed: Seed of draws from posteriors, and of the order of permuted pixels.
    """

    networks: Networks
    data: Data
    seed: int = 0

    @cached_property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """Test examples, and others: those of another data set if there is one, else the same with permuted pixels."""
        x = self.data.test_x[:EXAMPLES]
        if self.data.outside is not None:
            return x, self.data.outside[:EXAMPLES]
        order = torch.from_numpy(rng_for(self.seed, "permuted pixels").permutation(x[0].numel()))
        return x, x.flatten(1)[:, order].view_as(x)

    @property
    def labels(self) -> Tensor:
        """Labels of the test examples."""
        return self.data.test_y[:EXAMPLES]

    @cached_property
    def weights(self) -> tuple[Float[np.ndarray, "resamples examples"], Float[np.ndarray, "resamples others"]]:
        """Weights of the test examples and of the others in each resample; the same examples are resampled together."""
        inside, outside = map(len, self.inputs)
        weights = resample(inside)
        return weights, weights if self.data.outside is None else resample(outside, 1)

    def generator(self) -> torch.Generator:
        """Return a generator of draws in its initial state, the same at every call."""
        return torch.Generator().manual_seed(seed_for(self.seed, "posterior"))

    def at_checkpoint(self, posterior: Posterior) -> dict[str, Float[np.ndarray, " networks"]]:
        """Return the test loss and the test accuracy of posteriors, estimated from few draws."""
        p = predict(posterior, self.networks.treated, self.inputs[0], FEW, self.generator())
        measured = quality(p, self.labels)
        return {f"test_{name}": measured[name] for name in ("loss", "accuracy")}

    def predict(self, posterior: Posterior) -> tuple[Probabilities, Probabilities]:
        """Return the predictions of posteriors for the test examples, and for the others."""
        treated = self.networks.treated
        inside, outside = (predict(posterior, treated, x, SAMPLES, self.generator()) for x in self.inputs)
        return inside, outside

    def evaluate(self, method: Method, posterior: Posterior, means: Float[Tensor, "networks parameters"]) -> Bayesian:
        """Measure the predictions of posteriors, and how far apart they are.

        Arguments:
            method: Name of the method in the finding.
            posterior: Posteriors.
            means: Mean of each posterior.
        """
        inside, outside = self.predict(posterior)
        a, b = (self.networks.treated.stack(rows) for rows in of_couples(means))
        curves = measure_lines(a, b, self.data, POINTS, splits=["test"])["test_loss"]
        values = {"barrier": barrier(curves), "predictive_divergence": predictive_divergence(*of_couples(inside))}
        apart = {name: over_couples(couples.astype(float), f"posteriors{HERE}") for name, couples in values.items()}
        return self._finding(method, inside, outside, apart)

    def evaluate_linearised(self, posterior: Laplace) -> Bayesian:
        """Measure the predictions of networks that are linearised in their weights."""
        drawn = (posterior.draw_logits(x, SAMPLES, self.generator()) for x in self.inputs)
        inside, outside = (logits.softmax(-1).mean(1) for logits in drawn)
        return self._finding("laplace", inside, outside)

    def evaluate_chains(self, posterior: langevin.Langevin) -> Bayesian:
        """Measure the predictions of chains, and whether the chains have mixed."""
        inside, outside = self.predict(posterior)
        stacks = [self.networks.treated.stack(rows) for rows in posterior.kept]
        logarithms = torch.stack([stack.logits(self.inputs[0]).log_softmax(-1) for stack in stacks])  # (K, draws, N, C)
        log_labels = logarithms.gather(-1, self.labels.expand(*logarithms.shape[:2], -1)[..., None]).squeeze(-1)
        divergence = predictive_divergence(*of_couples(inside))
        apart = {
            "predictive_divergence": over_couples(divergence.astype(float), f"chains{HERE}"),
            "temperature": mean_interval(posterior.temperature.double().numpy(), "chains"),
            "rhat": mean_interval(np.median(langevin.split_rhat(log_labels.numpy()), keepdims=True), "sets of chains"),
        }
        return self._finding("langevin", inside, outside, apart)

    def trained_networks(self, networks: Networks) -> list[Bayesian]:
        """Measure trained networks one by one, and in ensembles of as many networks as there are posteriors."""
        stack, size = networks.stack(), len(self.networks)
        inside, outside = (probabilities(stack, x) for x in self.inputs)
        groups, others = (p[: len(p) // size * size].unflatten(0, (-1, size)) for p in (inside, outside))
        apart = {"disagreement": over_couples(disagreement(inside), f"networks{HERE}")}
        return [
            self._finding("single", inside, outside, apart, varies="networks"),
            self._finding("ensemble", groups.mean(1), others.mean(1), varies="ensembles"),
        ]

    def _finding(
        self,
        method: Method,
        inside: Probabilities,
        outside: Float[Tensor, "networks others classes"],
        apart: dict[str, Estimate] | None = None,
        varies: str = "posteriors",
    ) -> Bayesian:
        """Return the finding about predictions for the test examples and for others."""
        final = resampled_quality(inside, self.labels, self.weights[0])
        final["detection"] = detection(inside, outside, *self.weights)
        return Bayesian(
            treatment=self.networks.treatment,
            method=method,
            networks=self.networks.pairs.tolist(),
            final={
                name: crossed(values, len(self.labels), f"{varies} and test examples") for name, values in final.items()
            },
            apart=apart or {},
            zoo=self.networks.zoo.origin,
        )
