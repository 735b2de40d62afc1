"""Bayesian networks: does less symmetry make posteriors easier to fit?

Posteriors are trained from the zoo's initial networks, or found around its trained ones. Their predictions are compared
with those of single trained networks and of ensembles.

Source: Lim et al. 2024, *The Empirical Impact of Neural Parameter Symmetries, or Lack Thereof*, table 2,
https://arxiv.org/abs/2405.20231.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from benchmark.figures import Figure, error_bars, panels
from benchmark.inference import langevin, laplace, swag, variational
from benchmark.inference.evaluator import Bayesian, Evaluator, Method
from benchmark.inference.gaussian import Variational
from benchmark.inference.local import layers_of
from benchmark.selection import check_shared, trained
from zoo.data import Data
from zoo.errors import TaskError
from zoo.progress import Log, Progress, ignore
from zoo.statistics import Times
from zoo.store.networks import Networks

Choice = tuple[variational.Settings, Bool[Tensor, " parameters"] | None]

NETWORKS = 5  # networks that posteriors start from, and in an ensemble
ENSEMBLED = 50  # trained networks measured one by one and in ensembles, at most
CHECKPOINTS = 20  # in the training of posteriors
GOAL = 1.0  # nats per example; with ten classes, chance costs 2.3
AROUND = 50_000  # networks with fewer parameters get posteriors around trained networks, which take long
CHAIN = langevin.Settings(friction=10.0, burn_in=2000, batch_size=250)


def measure(
    networks: Networks, data: Data, *, seed: int = 0, progress: Progress = ignore, log: Log = ignore
) -> list[Bayesian]:
    """Train posteriors for as many epochs as the zoo's networks, find others around trained ones, and measure all.

    Arguments:
        networks: Networks of one treatment. Posteriors start from the first five; ensembles use up to fifty.
        data: Data whose train split is observed. Posteriors are measured on the test split, and on detecting `outside`.
        seed: Seed of the training and of draws from posteriors.
        progress: Function that is called with the number of networks whose posteriors have just been measured.
        log: Function that is called with a line of text at each checkpoint of the training.

    Raises:
        TaskError: If there are fewer than two trained networks, none of their weights can be made random, or they
            have batch norm.
    """
    check_shared(networks, "constants")
    networks = trained(networks, 2)
    if not layers_of(networks.treated):
        raise TaskError(
            f"{networks.zoo.folder}: {networks.treatment} has no linear maps or convolutions to make random; "
            "take another zoo"
        )
    if networks.layout.statistics:
        raise TaskError(
            f"{networks.zoo.folder}: the statistics of batch norm belong to one set of weights, not to a posterior; "
            "take a zoo with another norm"
        )
    evaluator = Evaluator(networks[:NETWORKS], data, seed)
    findings = evaluator.trained_networks(networks[:ENSEMBLED])
    for method, (settings, random) in _choices(networks, data, seed).items():
        findings.append(train_posteriors(evaluator, method, settings, random, log))
        progress(len(evaluator.networks))
    if networks.layout.size < AROUND:
        findings += _around_trained_networks(evaluator)
        progress(len(evaluator.networks))
    return findings


def draw(findings: Sequence[Bayesian]) -> Figure:
    """Show how the expected loss falls while posteriors train, a panel for each method, and the final test losses."""
    with_curves = list(dict.fromkeys(finding.method for finding in findings if finding.steps))
    methods = list(dict.fromkeys(finding.method for finding in findings))
    treatments = list(dict.fromkeys(finding.treatment for finding in findings))
    figure, axes = panels([*with_curves, "test loss at the end"], sharey=True)
    for finding in findings:
        number = treatments.index(finding.treatment)
        if finding.steps:
            ax = axes[0, with_curves.index(finding.method)]
            ax.plot(finding.steps, finding.curves["expected_loss"].T, color=f"C{number}", alpha=0.3, linewidth=0.7)
            ax.plot(finding.steps, finding.curves["expected_loss"].mean(0), color=f"C{number}", label=finding.treatment)
            ax.set_xlabel("steps")
        loss, place = finding.final["loss"], methods.index(finding.method) + 0.1 * number
        axes[0, -1].errorbar(place, *error_bars([loss]), color=f"C{number}", marker=".")
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylabel("expected loss, nats")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    axes[0, -1].set_xticks(range(len(methods)), methods, rotation=60, fontsize=7)
    return figure


def _choices(networks: Networks, data: Data, seed: int) -> dict[Method, Choice]:
    """Return how variational posteriors are trained, and which weights are random (None: all that train)."""
    steps_per_epoch = len(data.train_y) // min(variational.Settings.batch_size, len(data.train_y))
    steps = steps_per_epoch * int(networks["epochs"].max())
    low_rank, mean_field = (variational.Settings(rank=rank, steps=steps, seed=seed) for rank in (4, 0))
    choices: dict[Method, Choice] = {"low_rank": (low_rank, None), "mean_field": (mean_field, None)}
    treatments = map(networks.zoo.shared, networks.zoo.treatments)
    masks = [treated.mask for treated in treatments if treated.layout == networks.layout and not treated.mask.all()]
    if masks and bool(networks.mask.all()):
        choices["quiet"] = (low_rank, masks[0])
    return choices


def train_posteriors(
    evaluator: Evaluator,
    method: Method,
    settings: variational.Settings,
    random: Bool[Tensor, " parameters"] | None = None,
    log: Log = ignore,
) -> Bayesian:
    """Train variational posteriors from initial networks; measure them at checkpoints and at the end.

    Arguments:
        evaluator: Evaluator that measures them, and from whose initial networks they start.
        method: Name of the method in the finding.
        settings: How posteriors are trained.
        random: True for weights that are random, `(P,)`; by default all that train.
        log: Function that is called with a line of text at each checkpoint.
    """
    examples, every = len(evaluator.data.train_y), max(1, settings.steps // CHECKPOINTS)
    terms: list[Tensor] = []  # expected loss and divergence (2, K) after each step, in nats per example
    tests: dict[str, list[np.ndarray]] = defaultdict(list)

    def on_step(step: int, posteriors: Callable[[], Variational], expected: Tensor, divergence: Tensor) -> None:
        terms.append(torch.stack([expected, divergence / examples]))
        if step % every == 0:
            bound = -float(torch.stack(terms[-every:]).sum(1).mean())
            log(f"{method}, {step} of {settings.steps} steps, ELBO {bound:.3f} nats per example")
            for name, values in evaluator.at_checkpoint(posteriors()).items():
                tests[name].append(values)

    networks = evaluator.networks
    start, pairs = networks.initial_weights[:], networks.pairs.tolist()
    posterior = variational.fit(
        networks.treated, start, evaluator.data, settings, pairs=pairs, random=random, on_step=on_step
    )
    expected, divergence = torch.stack(terms, 1).numpy()  # (steps, K) each
    needed = steps_needed(expected, divergence, every)
    whole = settings.steps // every * every
    curves = {name: np.stack(values, 1) for name, values in tests.items()}
    for name, values in {"expected_loss": expected, "divergence": divergence}.items():
        curves[name] = values[:whole].reshape(-1, every, len(pairs)).mean(1).T
    curves["bound"] = -curves["expected_loss"] - curves["divergence"]
    return replace(
        evaluator.evaluate(method, posterior, posterior.rows),
        steps=list(range(every, whole + 1, every)),
        curves=curves,
        steps_needed=Times(tuple(None if np.isnan(n) else float(n) for n in needed), settings.steps, "posteriors"),
    )


def steps_needed(
    expected_loss: Float[np.ndarray, "steps networks"], divergence: Float[np.ndarray, "steps networks"], window: int
) -> Float[np.ndarray, " networks"]:
    """Return the first step at which the running mean of `expected_loss + divergence - divergence[0]` is within `GOAL`.

    It is NaN for networks that have no such step.

    Arguments:
        expected_loss: Expected loss at each step, in nats per example.
        divergence: Divergence at each step, in nats per example.
        window: Number of steps in the running mean.
    """
    cost = expected_loss + divergence - divergence[0]
    within = np.lib.stride_tricks.sliding_window_view(cost, window, axis=0).mean(-1) <= GOAL
    return np.where(within.any(0), within.argmax(0) + float(window), np.nan)


def _around_trained_networks(evaluator: Evaluator) -> list[Bayesian]:
    """Find posteriors around trained networks, and measure them."""
    networks, seed = evaluator.networks, evaluator.seed
    treated, rows, data, pairs = networks.treated, networks.weights[:], evaluator.data, networks.pairs.tolist()
    posterior = swag.fit(treated, rows, data, swag.Settings(seed=seed), pairs=pairs)
    mode = laplace.fit(treated, rows, data, laplace.Settings(), pairs=pairs)
    chains = langevin.fit(treated, rows, data, replace(CHAIN, seed=seed), pairs=pairs)
    return [
        evaluator.evaluate("swag", posterior, posterior.mean),
        evaluator.evaluate_linearised(mode),
        evaluator.evaluate_chains(chains),
    ]
