"""How well a metanetwork predicts: trained over several seeds, tested on networks that it never saw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from metanets.examples import InMemory
from metanets.identity import check_identity, identify
from metanets.metanet import Metanet
from metanets.metrics import estimates_of
from metanets.models import MODELS
from metanets.models.boosted import Boosted
from metanets.selection import Labelled, rows_column, select_all, select_unlabelled
from metanets.settings import Settings
from metanets.targets import to_units
from metanets.tasks import Task, TaskData
from metanets.training import Model, check_access, class_of, fit, train
from zoo.errors import TaskError, nearest
from zoo.progress import Progress, ignore
from zoo.statistics import Estimate
from zoo.store.columns import Split
from zoo.store.zoo import Zoo

Predictions = Float[np.ndarray, "seeds networks *classes"]


@dataclass(frozen=True)
class Result:
    """How well a metanetwork predicts, on test networks that had no part in its training or selection.

    Attributes:
        model: Name of the metanetwork.
        task: The task.
        data: Identity of the task's data.
        networks: Numbers of networks that trained it, chose its epoch and tested it.
        seeds: Number of trainings.
        parameters: Number of parameters of the metanetwork.
        seconds: Duration of one training, validation included, and of each pass over its training networks (`epoch`).
        metrics: Mean over trainings by name, see `metanets.intervals.estimate`.
        true: Target of each test network in its units, to 4 significant digits; or its class.
        predicted: Predictions of every seed likewise, `(seeds, networks)`, or probabilities of classes.
        settings: Settings of the training.
        pairs: Pair of each test network; results of before this was recorded have none.
        scale: Scale of the target on which metrics are taken.
    """

    model: str
    task: Task
    data: TaskData
    networks: dict[str, int]
    seeds: int
    parameters: int
    seconds: dict[str, float]
    metrics: dict[str, Estimate]
    true: list[Any]
    predicted: list[Any]
    settings: Settings
    pairs: list[int] = field(default_factory=list)
    scale: Literal["linear", "logarithmic"] = "linear"

    @property
    def treatment(self) -> str:
        """Names of the treatments that it learnt from."""
        return "+".join(self.task.learn_from)

    @property
    def tested_on(self) -> str:
        """Names of the treatments that it was tested on."""
        return "+".join(self.task.test_on)

    def on_scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Return targets `(networks,)` and predictions `(trainings, networks)` on the scale of the metrics."""
        arrays = np.array(self.true), np.array(self.predicted)
        return arrays if self.scale == "linear" else (np.log(arrays[0]), np.log(arrays[1]))

    @property
    def score(self) -> Estimate:
        """Value of the task's metric."""
        return self.metrics[self.task.metric]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        metrics = {name: asdict(metric) for name, metric in self.metrics.items()}
        models = {name: getattr(self, name).model_dump(mode="json") for name in ("task", "data", "settings")}
        return vars(self) | {"metrics": metrics} | models


def evaluate(
    task: Task | str | Path,
    zoo: Zoo,
    model: Model | Metanet | Sequence[Metanet],
    *,
    test_zoo: Zoo | None = None,
    seeds: int = 1,
    settings: Settings | None = None,
    progress: Progress = ignore,
) -> Result:
    """Measure the predictions of a metanetwork on a task's test networks, having trained it where it is not yet.

    Arguments:
        task: Task, or the path of its TOML file.
        zoo: Zoo of the task.
        model: Metanetworks that `train` returned; or what `train` takes; or a key of `REFERENCES`: `mean`, which
            predicts the train split's mean for all, or `hyperparameters`, boosted trees that are given these instead of
            weights.
        test_zoo: Zoo that is tested on, if it is another one.
        seeds: Number of trainings, if it has to be trained.
        settings: Settings of the training, if it has to be trained.
        progress: Called with the number of trainings that were just completed.

    Raises:
        TaskError: See `train`.
        ZooError: If a zoo lacks a treatment or a column.
    """
    task = Task.load(task)
    if isinstance(model, str) and model not in (known := [*REFERENCES, *MODELS]):
        raise TaskError(f"model: no metanetwork {model!r}{nearest(model, known)}; there are {', '.join(known)}")
    found = select_all(task, zoo, test_zoo)
    check_identity(task, data := identify(task, zoo, test_zoo, found))
    result = partial(_measure, task, data, found)
    if isinstance(model, str) and model in REFERENCES:
        return result(REFERENCES[model](found, seeds), model=model)
    if isinstance(model, Metanet):
        model = [model]
    if isinstance(model, str | type | nn.Module):
        model = train(task, zoo, model, seeds=seeds, settings=settings, progress=progress)
    _check_all(model, task)
    origin = model[0].origin
    predicted = torch.stack([metanet.predict_on_scale(metanet.read(found["test"])) for metanet in model]).numpy()
    return result(
        predicted,
        model=origin.model,
        parameters=sum(p.numel() for p in model[0].module.parameters()),
        seconds=_seconds(model, origin.settings.passes(len(found["train"]))),
        settings=origin.settings,
    )


def predict(task: Task | str | Path, zoo: Zoo, metanet: Metanet, split: Split = "test") -> dict[str, np.ndarray]:
    """Return what a metanetwork predicts of a task's split, networks without a target included.

    Arguments:
        task: Task, or the path of its TOML file.
        zoo: Zoo that holds the split.
        metanet: Trained metanetwork.
        split: `train`, `validation` or `test`.

    Returns:
        By name, for each network: `pair`, `treatment`, `predicted` in the units of the target `(N,)` or probabilities
        `(N, classes)`, and `true`, NaN where the target is missing.

    Raises:
        TaskError: If the metanetwork predicts another target or reads another layout, or a weight is not finite.
        ZooError: If the zoo lacks a treatment or a column of a condition.
    """
    task = Task.load(task)
    _check(metanet, task)
    labelled = select_unlabelled(task, zoo, split)
    treatments = [np.full(len(networks), networks.treatment) for networks in labelled.networks]
    predicted = metanet.predict(labelled).double().numpy()
    return {
        "pair": labelled.pairs,
        "treatment": np.concatenate(treatments),
        "predicted": predicted,
        "true": labelled.values,
    }


def _check(metanet: Metanet, task: Task) -> None:
    """Raise a `TaskError` if a metanetwork predicts something else than a task asks for, or uses more than allowed."""
    if metanet.target != task.target:
        raise TaskError(f"{metanet} predicts {metanet.target}, but the task {task.name} asks for {task.target}")
    if metanet.origin.task is not None and metanet.origin.task.classes != task.classes:
        raise TaskError(f"{metanet} tells other treatments apart than {' and '.join(task.classes)} of {task.name}")
    if metanet.origin.rows != (rows := rows_column(task.rows)):
        raise TaskError(f"{metanet} reads {metanet.origin.rows}, but the task {task.name} has {rows}")
    check_access(class_of(metanet.module), task)


def _check_all(metanets: Sequence[Metanet], task: Task) -> None:
    """Raise a `TaskError` if there are no metanetworks, or one of them does not fit a task."""
    if not metanets:
        raise TaskError("model: there are no metanetworks; train one or more")
    for metanet in metanets:
        _check(metanet, task)
        _check_learnt(metanet, task, metanets[0].origin.model)


def _check_learnt(metanet: Metanet, task: Task, model: str) -> None:
    """Raise a `TaskError` if a metanetwork learnt from other networks than the task's, which a result would not say."""
    if metanet.origin.model != model:
        raise TaskError(f"model: these are metanetworks of two kinds, {model} and {metanet.origin.model}; score each")
    learnt = metanet.origin.task
    fields = ("recipe", "learn_from", "max_train", "train_where")
    for name in fields if learnt is not None else ():
        if getattr(learnt, name) != getattr(task, name):
            raise TaskError(f"{metanet}: learnt from other networks than the task {task.name} says: {name} differs")


def _measure(
    task: Task,
    data: TaskData,
    found: Mapping[Split, Labelled],
    predicted: Predictions,
    *,
    model: str,
    parameters: int = 0,
    seconds: Mapping[str, float] = MappingProxyType({}),
    settings: Settings | None = None,
) -> Result:
    """Return how well predictions, on the scale of the target, agree with the targets of the test networks."""
    test = found["test"]
    true = test.y.numpy()
    return Result(
        model=model,
        task=task,
        data=data,
        networks={split: len(labelled) for split, labelled in found.items()},
        seeds=len(predicted),
        parameters=parameters,
        seconds=dict(seconds),
        metrics=estimates_of(true, predicted),
        pairs=test.pairs.tolist(),
        scale="linear" if test.column is None else test.column.scale,
        true=_short(to_units(true, test.column)),
        predicted=_short(to_units(predicted, test.column)),
        settings=settings or Settings(),
    )


def _short(values: np.ndarray) -> list[Any]:
    """Return values to 4 significant digits, nested as they are."""
    if values.dtype.kind != "f":
        return values.tolist()
    return np.vectorize(lambda value: float(f"{value:.4g}"), otypes=[float])(values).tolist()


def _seconds(metanets: Sequence[Metanet], passes: int) -> dict[str, float]:
    """Return the duration of one training, and of each pass over its training networks."""
    training = float(np.mean([metanet.origin.seconds for metanet in metanets]))
    epochs = float(np.mean([metanet.origin.epochs[0] for metanet in metanets]))
    return {"training": training, "epoch": training / max(1, epochs * passes)}


def _mean(found: Mapping[Split, Labelled], seeds: int) -> Predictions:
    train, test = found["train"].y, len(found["test"])
    if train.is_floating_point():
        return np.full((seeds, test), float(train.mean()), np.float32)
    fractions = train.bincount().numpy() / len(train)
    return np.broadcast_to(fractions.astype(np.float32), (seeds, test, len(fractions)))


def _hyperparameters(found: Mapping[Split, Labelled], seeds: int) -> Predictions:
    every = [networks for labelled in found.values() for networks in labelled.networks]
    columns = [column for column in every[0].columns.values() if column.kind == "hyperparameter"]
    columns = [column for column in columns if all(column.name in networks.columns for networks in every)]
    given = [column.name for column in columns if column != found["train"].column]
    examples = {split: _given(labelled, given) for split, labelled in found.items()}
    outputs = 1 if examples["train"].y.is_floating_point() else int(examples["train"].y.max()) + 1
    metanets = [fit(Boosted(outputs=outputs), examples["train"], examples["validation"], seed=s) for s in range(seeds)]
    return torch.stack([metanet.predict_on_scale(examples["test"]) for metanet in metanets]).numpy()


def _given(labelled: Labelled, names: Sequence[str]) -> InMemory:
    """Return hyperparameters of networks, `(N, hyperparameters)`; without any, all networks are alike."""
    parts = [
        np.stack([networks[name] for name in names] or [np.zeros(len(networks))], 1) for networks in labelled.networks
    ]
    return InMemory(torch.from_numpy(np.concatenate(parts).astype(np.float32)), labelled.y)


# What a metanetwork is compared with, which reads no weights: the train split's mean, or class fractions, for all; and
# gradient boosting that is given the hyperparameters.
REFERENCES: dict[str, Callable[[Mapping[Split, Labelled], int], Predictions]] = {
    "mean": _mean,
    "hyperparameters": _hyperparameters,
}
