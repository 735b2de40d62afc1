"""How well a metanetwork predicts: trained over several seeds, tested on networks that it never saw."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from metanets.datasets import Examples, Networks, split_index, split_targets
from metanets.metanet import Metanet, train_model
from metanets.metrics import METRICS
from metanets.models import MODELS
from metanets.models.boosted import Boosted
from metanets.settings import Settings
from metanets.training import Predictor, fit
from zoo.errors import TaskError, nearest
from zoo.statistics import Estimate, estimate
from zoo.store.columns import Split
from zoo.store.zoo import Zoo

Predictions = Float[np.ndarray, "seeds networks"]


@dataclass(frozen=True)
class Result:
    """How well a metanetwork predicts, on test networks that had no part in its training or selection.

    Attributes:
        model, treatment, task: what predicted what of which networks.
        tested_on: the treatment of the test networks.
        networks: how many trained, chose the epoch, and tested.
        seeds: how many trainings.
        parameters: of the metanetwork.
        seconds: of one training, validation included, and for each pass over its training networks.
        metrics: of `metanets.metrics.METRICS`: mean over seeds, with 95 % intervals over seeds and test networks.
        true, predicted: targets of the test networks and predictions of every seed, `(seeds, networks)`, to 4 decimals.
        settings: of the training.
        zoo: name and digest of the zoo's recipe.
    """

    model: str
    treatment: str
    task: str
    tested_on: str
    networks: dict[str, int]
    seeds: int
    parameters: int
    seconds: dict[str, float]
    metrics: dict[str, Estimate]
    true: list[float]
    predicted: list[list[float]]
    settings: Settings
    zoo: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        metrics = {name: metric._asdict() for name, metric in self.metrics.items()}
        return asdict(self) | {"metrics": metrics, "settings": self.settings.model_dump()}


def evaluate_model(
    zoo: Zoo,
    treatment: str,
    model: str,
    *,
    task: str = "test_accuracy",
    seeds: int = 5,
    fixed: bool = False,
    settings: Settings | None = None,
    train_networks: int | None = None,
    test_on: str | None = None,
    device: str = "cpu",
    progress: Callable[[int], object] = lambda trainings: None,
) -> tuple[Result, list[Metanet]]:
    """Train a metanetwork several times and measure its predictions on the test split.

    Arguments:
        zoo, treatment: the networks that are read.
        model: a key of `metanets.models.MODELS` or of `REFERENCES`: `mean`, the floor, which predicts the train
            split's mean for all, or `hyperparameters`, boosted trees that are told these instead of the weights.
        seeds: how many trainings, of different starts and orders.
        test_on: test on the networks of another treatment.
        task, fixed, settings, train_networks, device, progress: see `metanets.metanet.train_model`.

    Returns:
        The result, and the metanetworks, one for each seed; none of a reference.

    Raises:
        TaskError: if there is no such model, it cannot read such networks, or the zoo is too small.
        ZooError: if the zoo has no such treatment or metric.
    """
    known = [*REFERENCES, *MODELS]
    if model not in known:
        raise TaskError(f"model: no metanetwork {model!r}{nearest(model, known)}; there are {', '.join(known)}")
    settings, tested_on = settings or Settings.best(model, task), test_on or treatment
    told = _told_of_all(zoo, treatment, tested_on, task, train_networks)
    described: dict[str, Any] = {"model": model, "treatment": treatment, "task": task, "tested_on": tested_on}
    described |= {"seeds": seeds, "parameters": 0, "seconds": {}, "settings": settings, "zoo": zoo.origin}
    if model in REFERENCES:
        return _measure(told, REFERENCES[model](told, seeds), **described), []
    options: dict[str, Any] = {"task": task, "fixed": fixed or test_on is not None, "train_networks": train_networks}
    options |= {"settings": settings, "device": device, "progress": progress}
    began = time.perf_counter()
    trained = train_model(zoo, treatment, model, seeds=range(seeds), **options)
    described["seconds"] = _seconds(time.perf_counter() - began, trained, settings.passes(len(told["train"])))
    described["parameters"] = sum(p.numel() for p in trained[0].predictor.network.parameters())
    rows = zoo.rows(tested_on, split_index(zoo, tested_on, "test"))
    predicted = torch.stack([metanet.predict(rows) for metanet in trained]).numpy()
    return _measure(told, predicted, **described), trained


def _measure(told: dict[Split, Examples], predicted: Predictions, **described: Any) -> Result:
    """Return how well predictions agree with the targets of the test networks."""
    true = told["test"].y.numpy()
    return Result(
        networks={split: len(networks) for split, networks in told.items()},
        metrics={name: estimate(metric, true, predicted) for name, metric in METRICS.items()},
        true=true.astype(float).round(4).tolist(),
        predicted=predicted.astype(float).round(4).tolist(),
        **described,
    )


def _told_of_all(
    zoo: Zoo, treatment: str, tested_on: str, task: str, train_networks: int | None
) -> dict[Split, Examples]:
    return {
        "train": _told(zoo, treatment, "train", task, train_networks),
        "validation": _told(zoo, treatment, "validation", task),
        "test": _told(zoo, tested_on, "test", task),
    }


def _told(zoo: Zoo, treatment: str, split: Split, task: str, networks: int | None = None) -> Examples:
    """Return what recipes say of a split's networks, `x (N, hyperparameters)`, and their targets."""
    index, y = split_targets(zoo, treatment, split, task, networks)
    told = [values[index] for values in zoo.group(treatment, "hyperparameter").values()]
    x = np.stack(told, 1) if told else np.zeros((len(index), 0))
    return Examples(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y))


def _seconds(total: float, trained: list[Metanet], passes: int) -> dict[str, float]:
    """Return the seconds of one training, and for each pass over its training networks."""
    training = total / len(trained)
    epochs = float(np.mean([metanet.predictor.epochs[0] for metanet in trained]))
    return {"training": training, "epoch": training / max(1, epochs * passes)}


def _mean(told: dict[Split, Examples], seeds: int) -> Predictions:
    return np.full((seeds, len(told["test"])), float(told["train"].y.mean()), np.float32)


def _hyperparameters(told: dict[Split, Examples], seeds: int) -> Predictions:
    trees = [Boosted() for _ in range(seeds)]
    predictors = fit(trees, told["train"], told["validation"], seeds=range(seeds))
    return torch.stack([predictor(told["test"]) for predictor in predictors]).numpy()


# What a metanetwork is compared with, which reads no weights: the train split's mean for all, and gradient boosting
# that is told the hyperparameters.
REFERENCES: dict[str, Callable[[dict[Split, Examples], int], Predictions]] = {
    "mean": _mean,
    "hyperparameters": _hyperparameters,
}


def score(predictor: Predictor, dataset: Networks) -> dict[str, float]:
    """Return the `METRICS` of what `fit` returned, on other networks."""
    examples = Examples.of(dataset)
    true, predicted = examples.y.cpu().double().numpy(), predictor(examples).cpu().double().numpy()
    return {name: metric(true, predicted) for name, metric in METRICS.items()}
