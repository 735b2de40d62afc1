"""Bayesian networks: does less symmetry make the posterior easier?

Posteriors are trained from the zoo's initial networks, or found around its trained ones, and what they predict is
measured, next to ensembles of the trained networks.

Source: Lim et al. 2024, *The Empirical Impact of Neural Parameter Symmetries, or Lack Thereof*, table 2,
https://arxiv.org/abs/2405.20231.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from benchmark.figures import Figure, panels
from benchmark.inference import langevin, laplace, swag, variational
from benchmark.inference.local import layers_of
from benchmark.inference.variational import Variational
from benchmark.lines import barrier, check_shared, measure_lines, trained_networks
from benchmark.predictive import (
    Posterior,
    Probabilities,
    detection,
    disagreement,
    measure,
    predict,
    predictive_divergence,
    probabilities,
)
from zoo.data import Data
from zoo.errors import TaskError
from zoo.seeds import rng_for, seed_for
from zoo.statistics import Estimate, mean_interval
from zoo.store.zoo import Zoo
from zoo.treatments import Treated

Method = Literal["single", "ensemble", "low_rank", "quiet", "mean_field", "swag", "laplace", "langevin"]
Choice = tuple[variational.Settings, Bool[Tensor, " parameters"] | None]

NETWORKS = 5
ENSEMBLED = 50  # trained networks, at most
EXAMPLES = 2000  # of the test split
SAMPLES = 25  # of each posterior, for what it predicts
FEW = 5  # while it trains
CHECKPOINTS = 20
POINTS = 25  # on the line between means
GOAL = 1.0  # nats an example, that a fair posterior costs; chance costs 2.3 on ten classes
PRECISION = 10.0  # of the prior, for SWAG and Langevin dynamics
AROUND = 50_000  # parameters up to which posteriors around trained networks are found
CHAIN = langevin.Settings(friction=10.0, burn_in=2000, batch_size=250)


@dataclass(frozen=True)
class Bayesian:
    """Posteriors of one treatment, by one method.

    Attributes:
        treatment: whose networks.
        method: `single`: trained networks by themselves; `ensemble`: five of them together, the reference;
            `low_rank`, `mean_field`: variational, from initial networks; `quiet`: low rank, but what W-Asymmetric
            networks fix is trained as a number and has no variance; `swag`; `laplace`, linearised; `langevin`, one
            chain from each trained network, the nearest to the true posterior.
        networks: the pairs that they start from.
        final: on the test split, means over posteriors with 95 % intervals: what `benchmark.predictive.measure` tells,
            and `detection`, of test examples among those of another data set, or the same with their pixels permuted.
        apart: between posteriors: `barrier` of the test loss between their means, and `predictive_divergence`; of
            `single` networks their `disagreement`; of chains their `temperature` and, of the logarithms of the
            probabilities of the test labels, the median `rhat`, both 1 for chains that can be trusted.
        steps: of training, at which curves are taken.
        curves: `(networks, checkpoints)`, in nats an example: `expected_loss`, `divergence` and `bound` (means since
            the checkpoint before), `test_loss` (of few draws); and `test_accuracy`.
        steps_needed: mean number of steps until the bound, as a running mean over the length of a checkpoint, comes
            within one nat an example of minus the divergence that posteriors begin with; of those that never get
            there, all steps of the training.
        succeeded: how many posteriors get there.
        zoo: name and digest of the zoo's recipe.
    """

    treatment: str
    method: Method
    networks: list[int]
    final: dict[str, Estimate]
    apart: dict[str, Estimate]
    zoo: dict[str, str]
    steps: list[int] = field(default_factory=list)
    curves: dict[str, Float[np.ndarray, "networks checkpoints"]] = field(default_factory=dict)
    steps_needed: Estimate | None = None
    succeeded: int | None = None

    def headline(self) -> str:
        """Say how good the predictions are."""
        return f"{self.method:12}test loss {self.final['loss']}, accuracy {self.final['accuracy']}"


def bayesian(
    zoo: Zoo,
    treatment: str,
    data: Data,
    *,
    seed: int = 0,
    progress: Callable[[int | str], None] = lambda networks: None,
) -> list[Bayesian]:
    """Train posteriors for as many epochs as the zoo's networks, and measure them and those around trained networks.

    Arguments:
        zoo, treatment: whose networks; of those that have not diverged the first five, for ensembles up to fifty.
        data: the train split is observed, the test split measures; told from them are the examples `outside`.
        seed: of the training, and of draws from posteriors.
        progress: called with the number of networks whose posteriors have just been measured, and with the bound while
            they train.

    Raises:
        TaskError: if there are fewer than two trained networks, or nothing in them can be made random.
    """
    check_shared(zoo, treatment, "constants")
    index, treated = trained_networks(zoo, treatment, 2), zoo.treated(treatment)
    if not layers_of(treated):
        raise TaskError(
            f"{zoo.folder}: {treatment} has no linear maps or convolutions to make random; take another zoo"
        )
    some = index[:NETWORKS].tolist()
    judge = Judge(zoo, treatment, data, some, seed)
    found = judge.trained_networks(index[:ENSEMBLED])
    for method, (settings, random) in _choices(zoo, treatment, data).items():
        found.append(train_posteriors(judge, method, settings, random, progress))
        progress(len(some))
    if treated.layout.size < AROUND:  # one gradient of each example has to fit, and chains are long
        rows, around = zoo.rows(treatment, some), {"precision": PRECISION, "seed": seed, "pairs": some}
        posterior = swag.swag(treated, rows, data, swag.Settings(), **around)
        found.append(judge("swag", posterior, posterior.mean))
        mode = laplace.laplace(treated, rows, data)
        inside, outside = (mode.draw_logits(x, SAMPLES, judge.generator()).softmax(-1).mean(1) for x in judge.inputs)
        found.append(judge.finding("laplace", inside, outside))
        found.append(judge.chains(langevin.langevin(treated, rows, data, CHAIN, **around)))
        progress(len(some))
    return found


def draw(findings: Sequence[Bayesian]) -> Figure:
    """Show how the expected loss falls while posteriors train, a panel for each method, and the final test losses."""
    trained = list(dict.fromkeys(finding.method for finding in findings if finding.steps))
    methods = list(dict.fromkeys(finding.method for finding in findings))
    treatments = list(dict.fromkeys(finding.treatment for finding in findings))
    figure, axes = panels([*trained, "test loss at the end"], sharey=True)
    for finding in findings:
        number = treatments.index(finding.treatment)
        if finding.steps:
            ax = axes[0, trained.index(finding.method)]
            ax.plot(finding.steps, finding.curves["expected_loss"].T, color=f"C{number}", alpha=0.3, linewidth=0.7)
            ax.plot(finding.steps, finding.curves["expected_loss"].mean(0), color=f"C{number}", label=finding.treatment)
            ax.set_xlabel("steps")
        loss, place = finding.final["loss"], methods.index(finding.method) + 0.1 * number
        spread = [[loss.mean - loss.low], [loss.high - loss.mean]]
        axes[0, -1].errorbar(place, loss.mean, spread, color=f"C{number}", marker=".")
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylabel("expected loss, nats")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    axes[0, -1].set_xticks(range(len(methods)), methods, rotation=60, fontsize=7)
    return figure


def _choices(zoo: Zoo, treatment: str, data: Data) -> dict[Method, Choice]:
    """Return how variational posteriors are trained, and which of their weights are random if not all that train."""
    steps_per_epoch = len(data.train_y) // min(variational.Settings.batch_size, len(data.train_y))
    steps = steps_per_epoch * int(zoo.field(treatment, "epochs").max())
    low_rank, mean_field = (variational.Settings(rank=rank, steps=steps) for rank in (4, 0))
    choices: dict[Method, Choice] = {"low_rank": (low_rank, None), "mean_field": (mean_field, None)}
    own = zoo.treated(treatment)
    others = (other for other in map(zoo.treated, zoo.treatments) if other.layout == own.layout)
    fixing = next((other for other in others if not bool(other.trainable.all())), None)
    if fixing is not None and bool(own.trainable.all()):
        choices["quiet"] = (low_rank, fixing.trainable)
    return choices


def train_posteriors(
    judge: "Judge",
    method: Method,
    settings: variational.Settings,
    random: Bool[Tensor, " parameters"] | None = None,
    tell: Callable[[str], None] = lambda words: None,
) -> Bayesian:
    """Train variational posteriors from initial networks, and measure them at checkpoints and at the end.

    Arguments:
        judge: that measures them, and from whose initial networks they start.
        method: what the finding calls them.
        settings: how they are trained.
        random: which weights are random, `(P,)`; all that train by default.
        tell: told at each checkpoint how it goes.
    """
    examples, every = len(judge.data.train_y), max(1, settings.steps // CHECKPOINTS)
    seen: list[Tensor] = []  # expected loss and divergence (2, K), in nats an example, of each step
    tests: dict[str, list[np.ndarray]] = defaultdict(list)

    def watch(step: int, posteriors: Callable[[], Variational], expected: Tensor, divergence: Tensor) -> None:
        seen.append(torch.stack([expected, divergence / examples]))
        if step % every == 0:
            bound = -float(torch.stack(seen[-every:]).sum(1).mean())
            tell(f"{method}, {step} of {settings.steps} steps, ELBO {bound:.3f} nats an example")
            p = predict(posteriors(), judge.treated, judge.inputs[0], FEW, judge.generator())
            for name in ("loss", "accuracy"):
                tests[f"test_{name}"].append(measure(p, judge.labels)[name])

    seed, pairs = judge.seed, judge.networks
    posterior = variational.fit(
        judge.treated, judge.start, judge.data, settings, seed=seed, pairs=pairs, random=random, watch=watch
    )
    expected, divergence = torch.stack(seen, 1).numpy()  # (steps, K) each
    needed = steps_needed(expected, divergence, every)
    whole = settings.steps // every * every
    curves = {name: np.stack(values, 1) for name, values in tests.items()}
    for name, values in {"expected_loss": expected, "divergence": divergence}.items():
        curves[name] = values[:whole].reshape(-1, every, len(pairs)).mean(1).T
    curves["bound"] = -curves["expected_loss"] - curves["divergence"]
    return replace(
        judge(method, posterior, posterior.rows),
        steps=list(range(every, whole + 1, every)),
        curves=curves,
        steps_needed=mean_interval(np.nan_to_num(needed, nan=settings.steps)),
        succeeded=int(np.isfinite(needed).sum()),
    )


def steps_needed(
    expected_loss: Float[np.ndarray, "steps networks"], divergence: Float[np.ndarray, "steps networks"], window: int
) -> Float[np.ndarray, " networks"]:
    """Return after how many steps the loss and what divergence has grown by cost no more than `GOAL`, NaN for never.

    Arguments:
        expected_loss, divergence: at each step, in nats an example.
        window: number of steps over which both are averaged.
    """
    cost = expected_loss + divergence - divergence[0]
    there = np.lib.stride_tricks.sliding_window_view(cost, window, axis=0).mean(-1) <= GOAL
    return np.where(there.any(0), there.argmax(0) + float(window), np.nan)


@dataclass(frozen=True)
class Judge:
    """Measures posteriors of one treatment.

    Arguments:
        zoo, treatment: whose networks.
        data: whose test split measures.
        networks: the pairs that posteriors start from.
        seed: of draws, and of the order of permuted pixels.
    """

    zoo: Zoo
    treatment: str
    data: Data
    networks: list[int]
    seed: int = 0

    @property
    def treated(self) -> Treated:
        """What the networks are."""
        return self.zoo.treated(self.treatment)

    @cached_property
    def start(self) -> Float[Tensor, "networks parameters"]:
        """The initial networks."""
        return self.zoo.rows(self.treatment, self.networks, initial=True)

    @cached_property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """The test examples, and others: of another data set if there is one, else the same with pixels permuted."""
        x = self.data.test_x[:EXAMPLES]
        if self.data.outside is not None:
            return x, self.data.outside[:EXAMPLES]
        order = torch.from_numpy(rng_for(self.seed, "permuted pixels").permutation(x[0].numel()))
        return x, x.flatten(1)[:, order].view_as(x)

    @property
    def labels(self) -> Tensor:
        """Of the test examples."""
        return self.data.test_y[:EXAMPLES]

    def generator(self) -> torch.Generator:
        """Return the generator of draws, always from its beginning."""
        return torch.Generator().manual_seed(seed_for(self.seed, "posterior"))

    def predicted(self, posterior: Posterior) -> tuple[Probabilities, Probabilities]:
        """Return what posteriors predict of the test examples, and of the others."""
        inside, outside = (predict(posterior, self.treated, x, SAMPLES, self.generator()) for x in self.inputs)
        return inside, outside

    def __call__(self, method: Method, posterior: Posterior, means: Float[Tensor, "networks parameters"]) -> Bayesian:
        """Measure what posteriors predict, and how far from one another they are."""
        inside, outside = self.predicted(posterior)
        a, b = (self.treated.stack(rows) for rows in (means[:-1], means[1:]))
        curves = measure_lines(a, b, self.data, POINTS, splits=["test"])["test_loss"]
        apart = {"barrier": barrier(curves), "predictive_divergence": predictive_divergence(inside[:-1], inside[1:])}
        return self.finding(method, inside, outside, apart)

    def chains(self, posterior: langevin.Langevin) -> Bayesian:
        """Measure what chains predict, and whether they have mixed."""
        inside, outside = self.predicted(posterior)
        each = [self.treated.stack(rows) for rows in posterior.kept]
        logarithms = torch.stack([stack.logits(self.inputs[0]).log_softmax(-1) for stack in each])  # (K, draws, N, C)
        of_label = logarithms.gather(-1, self.labels.expand(*logarithms.shape[:2], -1)[..., None]).squeeze(-1)
        apart = {
            "predictive_divergence": predictive_divergence(inside[:-1], inside[1:]),
            "temperature": posterior.temperature.numpy(),
            "rhat": np.median(langevin.split_rhat(of_label.numpy()), keepdims=True),
        }
        return self.finding("langevin", inside, outside, apart)

    def trained_networks(self, index: Int[np.ndarray, " networks"]) -> list[Bayesian]:
        """Measure trained networks by themselves, and in ensembles of as many as there are posteriors."""
        stack, size = self.zoo.stack(self.treatment, index), len(self.networks)
        inside, outside = (probabilities(stack, x) for x in self.inputs)
        groups, others = (p[: len(p) // size * size].unflatten(0, (-1, size)) for p in (inside, outside))
        apart = {"disagreement": np.array([disagreement(some) for some in groups])}
        return [
            self.finding("single", inside, outside, apart),
            self.finding("ensemble", groups.mean(1), others.mean(1)),
        ]

    def finding(
        self,
        method: Method,
        inside: Probabilities,
        outside: Float[Tensor, "networks others classes"],
        apart: dict[str, Float[np.ndarray, " values"]] | None = None,
    ) -> Bayesian:
        """Return what is found of predictions on the test examples and on others."""
        final = measure(inside, self.labels) | {"detection": detection(inside, outside)}
        return Bayesian(
            treatment=self.treatment,
            method=method,
            networks=self.networks,
            final={name: mean_interval(values.astype(float)) for name, values in final.items()},
            apart={name: mean_interval(values.astype(float)) for name, values in (apart or {}).items()},
            zoo=self.zoo.origin,
        )
