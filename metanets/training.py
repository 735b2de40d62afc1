"""Trains a metanetwork on the train split, chooses its epoch on the validation split, predicts the test split."""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanets.inputs import Examples, read_zoo
from metanets.metrics import METRICS, Estimate, estimate, r2
from metanets.models import MODELS, Metanetwork
from zoo.errors import TaskError, nearest
from zoo.seeds import rng_for, seed_for
from zoo.store import Zoo


@dataclass(frozen=True)
class Settings:
    """How metanetworks train.

    Attributes:
        epochs: passes over the training networks; the best by validation R^2 counts, the start included.
        batch_size: networks a step.
        learning_rate: of AdamW, decreasing to 0 along a cosine; None is the metanetwork's own.
        weight_decay: of AdamW.
    """

    epochs: int = 100
    batch_size: int = 64
    learning_rate: float | None = None
    weight_decay: float = 1e-2


@dataclass(frozen=True)
class Result:
    """How well a metanetwork predicts, on test networks that had no part in its training or selection.

    Attributes:
        model, treatment, task: what predicted what of which networks.
        networks: how many trained, chose the epoch, and tested.
        seeds: how many trainings.
        parameters: of the metanetwork.
        seconds: of one training.
        r2, kendall_tau: mean over seeds, with 95 % intervals over seeds and test networks.
        true, predicted: targets of the test networks and predictions of every seed, `(seeds, networks)`.
        settings: of the training.
        zoo: name and digest of the zoo's recipe.
    """

    model: str
    treatment: str
    task: str
    networks: dict[str, int]
    seeds: int
    parameters: int
    seconds: float
    r2: Estimate
    kendall_tau: Estimate
    true: list[float]
    predicted: list[list[float]]
    settings: Settings
    zoo: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self) | {"r2": self.r2._asdict(), "kendall_tau": self.kendall_tau._asdict()}


def evaluate_model(
    zoo: Zoo,
    treatment: str,
    model: str,
    *,
    task: str = "test_accuracy",
    seeds: int = 5,
    fixed: bool = False,
    settings: Settings | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Result:
    """Train a metanetwork several times and measure its predictions on the test split.

    Arguments:
        zoo, treatment: the networks that are read.
        model: a key of `metanets.models.MODELS`, or `mean`, the floor: the train split's mean for all.
        task: the metric of the zoo that is predicted.
        seeds: how many trainings, of different starts and orders.
        fixed: whether to read also the entries that are the same in all networks.
        settings: of the training.
        progress: called after each training.

    Raises:
        TaskError: if there is no such model, or the zoo is too small.
        ZooError: if the zoo has no such treatment or metric.
    """
    settings = settings or Settings()
    if model not in {"mean", *MODELS}:
        raise TaskError(f"model: no metanetwork {model!r}{nearest(model, MODELS)}; there are mean, {', '.join(MODELS)}")
    reads = "rows" if model == "mean" else MODELS[model].reads
    splits = read_zoo(zoo, treatment, reads, task=task, fixed=fixed)
    true, began = splits["test"].y.numpy(), time.perf_counter()
    predictions, parameters = [], 0
    for seed in range(seeds):
        if model == "mean":
            predictions.append(np.full_like(true, splits["train"].y.mean()))
        else:
            trained = train(MODELS[model], splits["train"], splits["validation"], settings, seed)
            predictions.append(trained(splits["test"].x).numpy())
            parameters = sum(p.numel() for p in trained.network.parameters())
        progress()
    predicted = np.stack(predictions)
    return Result(
        model=model,
        treatment=treatment,
        task=task,
        networks={split: len(examples.y) for split, examples in splits.items()},
        seeds=seeds,
        parameters=parameters,
        seconds=(time.perf_counter() - began) / seeds,
        r2=estimate(METRICS["r2"], true, predicted),
        kendall_tau=estimate(METRICS["kendall_tau"], true, predicted),
        true=true.astype(float).round(5).tolist(),
        predicted=predicted.astype(float).round(5).tolist(),
        settings=settings,
        zoo={"name": zoo.recipe.name, "digest": zoo.manifest.digest},
    )


@dataclass(frozen=True)
class Predictor:
    """A trained metanetwork, and the scale of its targets."""

    network: nn.Module
    mean: Tensor
    std: Tensor

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "networks features"]) -> Float[Tensor, " networks"]:
        """Predict in the units of the targets."""
        return self.network(x) * self.std + self.mean


def train(
    model: type[Metanetwork], examples: Examples, validation: Examples, settings: Settings, seed: int
) -> Predictor:
    """Train one metanetwork with AdamW on squared error, targets standardised, and keep its best epoch.

    Arguments:
        model: the class, constructed with the number of features.
        examples: to learn from.
        validation: to choose the epoch by, the greatest R^2.
        settings: of the training.
        seed: of start and order.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "metanetwork"))
        network = model(examples.x.shape[1])
    mean, std = examples.y.mean(), examples.y.std()
    optimizer = torch.optim.AdamW(
        network.parameters(),
        settings.learning_rate or model.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)

    def score() -> float:
        return r2(validation.y.numpy(), Predictor(network, mean, std)(validation.x).numpy())

    best_r2, best_state = score(), copy.deepcopy(network.state_dict())
    for epoch in range(settings.epochs):
        order = torch.from_numpy(rng_for(seed, "metanetwork/order", epoch).permutation(len(examples.y)))
        for index in order.split(settings.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(network(examples.x[index]), (examples.y[index] - mean) / std)
            loss.backward()
            optimizer.step()
        schedule.step()
        if (now := score()) > best_r2:
            best_r2, best_state = now, copy.deepcopy(network.state_dict())
    network.load_state_dict(best_state)
    return Predictor(network, mean, std)
