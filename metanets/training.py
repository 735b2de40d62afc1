"""Trains metanetworks: one on data sets of the user's own (`fit`), or one for each seed on a task (`train`)."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from metanets.checkpoints import Origin, name_of
from metanets.datasets import ZooGraphs, source_of
from metanets.descent import descend
from metanets.examples import Examples, examples_of, read_examples
from metanets.graph import ParameterGraph
from metanets.identity import check_identity, identify
from metanets.inputs import Reader
from metanets.links import Link
from metanets.metanet import Metanet
from metanets.models import MODELS, Metanetwork
from metanets.selection import fit_task_reader, select, select_usual
from metanets.settings import Settings
from metanets.tasks import ACCESS, Task
from zoo.errors import TaskError, nearest
from zoo.progress import Progress, ignore
from zoo.seeds import seed_for
from zoo.store.columns import Column
from zoo.store.zoo import Zoo

Model = str | type[Metanetwork] | nn.Module  # what `model=` takes: a built-in name, a class, or a module


def build(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Construct a module whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "metanetwork"))
        return make()


def fit(
    module: nn.Module,
    train: Examples | Dataset[Any] | Sequence[Any],
    validation: Examples | Dataset[Any] | Sequence[Any],
    settings: Settings | None = None,
    *,
    seed: int = 0,
) -> Metanet:
    """Train a module on data sets, and keep its best epoch.

    Arguments:
        module: Metanetwork, or any module that takes a batch of what the data sets hold and gives one number, or one
            logit for each class, per network. It is changed in place.
        train: Data set to learn from: `ZooGraphs`, `ZooRows`, or any data set of graphs with a `y` or of `(x, y)`.
            Integer targets are classes.
        validation: Data set by which the epoch is chosen, that of the highest `metanets.metrics.selection_score`.
        settings: Settings of the training; by default the metanetwork's own.
        seed: Seed of the order in which networks are seen.

    Raises:
        TaskError: If a data set is empty or holds something else, the two differ in target or reader, all targets are
            equal, or predictions are not finite.
    """
    if settings is None:
        settings = module.settings if isinstance(module, Metanetwork) else Settings()
    learnt, validated = examples_of(train), examples_of(validation)
    origin = Origin(name_of(module), settings)
    source, other = source_of(train), source_of(validation)
    if source is None:
        return _fit([module], learnt, validated, origin, [seed])[0]
    if other is not None and (other.target, other.raw) != (source.target, source.raw):
        raise TaskError(f"validation: target {other.target}, raw={other.raw}; give both data sets the same arguments")
    if other is not None and not source.raw and not source.reader.is_like(other.reader):
        raise TaskError(
            "validation: its values are standardised otherwise; pass the reader of the first, reader=train.reader"
        )
    origin = replace(origin, target=source.target, rows=source.read)
    given = source if other is None else other
    if given.raw or given.transform is not None:  # the module does not read what the reader gives
        return _fit([module], learnt, validated, origin, [seed], source.column)[0]
    graph = source.graph if isinstance(source, ZooGraphs) and not isinstance(module, Metanetwork) else None
    return _fit([module], learnt, validated, origin, [seed], source.column, source.reader, graph)[0]


def train(
    task: Task | str | Path,
    zoo: Zoo,
    model: Model,
    *,
    seeds: int = 1,
    settings: Settings | None = None,
    device: str = "cpu",
    progress: Progress = ignore,
) -> list[Metanet]:
    """Train a metanetwork on a task, once for each seed.

    Arguments:
        task: Task, or the path of its TOML file.
        zoo: Zoo of the task.
        model: Name of a metanetwork in `metanets.models.MODELS`, a class like these, or a module, of which each seed
            trains a copy; a plain module reads standardised rows `(N, features)`.
        seeds: Number of trainings, which differ in initial weights and in the order of networks.
        settings: Settings of the training; by default the metanetwork's own.
        device: `cpu` or `cuda`.
        progress: Called with the number of trainings that were just completed.

    Returns:
        One metanetwork for each seed.

    Raises:
        TaskError: If there is no such model, the task does not allow it or it cannot read such networks, the zoo is
            another one or too small, or predictions are not finite.
        ZooError: If the zoo lacks a treatment or a column.
    """
    if seeds < 1:
        raise TaskError(f"seeds: {seeds} trainings are none; ask for one or more")
    task, kind = Task.load(task), class_of(model)
    check_access(kind, task)
    check_identity(task, data := identify(task, zoo))
    settings = settings or kind.settings
    reader = fit_task_reader(task, zoo, kind.reads, include_fixed=settings.include_fixed).to(device)
    labelled = select(task, zoo, "train")
    learnt = read_examples(labelled, reader, augment=settings.augment == "permute")
    validation = read_examples(select_usual(task, zoo), reader)
    modules = [begin(model, reader, len(task.classes) or 1, settings, seed).to(device) for seed in range(seeds)]
    origin = Origin(name_of(modules[0]), settings, task, data, target=task.target, rows=labelled.read)
    trained = []
    for some in [range(seeds)] if kind.stacks else [range(seed, seed + 1) for seed in range(seeds)]:
        trained += _fit([modules[seed] for seed in some], learnt, validation, origin, some, labelled.column, reader)
        progress(len(some))
    return trained


def class_of(model: Model) -> type[Metanetwork]:
    """Return the class of a model; for a plain module `Metanetwork` itself, whose defaults it is trained with.

    Raises:
        TaskError: If there is no metanetwork of that name, or it is no module.
    """
    if isinstance(model, str):
        if model not in MODELS:
            raise TaskError(f"model: no metanetwork {model!r}{nearest(model, MODELS)}; there are {', '.join(MODELS)}")
        return MODELS[model]
    if isinstance(model, type) and issubclass(model, Metanetwork):
        return model
    if isinstance(model, nn.Module):
        return type(model) if isinstance(model, Metanetwork) else Metanetwork
    raise TaskError(f"model: {model!r} is no metanetwork; give a name, a subclass of Metanetwork, or a module")


def begin(model: Model, reader: Reader, outputs: int, settings: Settings, seed: int) -> nn.Module:
    """Return an untrained metanetwork of a seed, or a copy of a module.

    Raises:
        TaskError: If it does not take the options, or cannot read such networks.
    """
    if isinstance(model, nn.Module):
        return copy.deepcopy(model)
    options = settings.options if outputs == 1 else settings.options | {"outputs": outputs}
    kind = class_of(model)
    try:
        return build(lambda: kind(reader, **options), seed)
    except TypeError as error:
        raise TaskError(f"{name_of(kind)}: options: {error}") from None


def check_access(kind: type[Metanetwork], task: Task) -> None:
    """Raise a `TaskError` if a metanetwork uses more of the networks than a task allows."""
    if kind.access not in ACCESS:
        raise TaskError(f"{name_of(kind)}: access: there is no {kind.access!r}; there are {', '.join(ACCESS)}")
    if ACCESS.index(kind.access) > ACCESS.index(task.access):
        raise TaskError(f"{name_of(kind)}: uses {kind.access}, but the task {task.name} allows {task.access}")


def _fit(
    modules: Sequence[nn.Module],
    train: Examples,
    validation: Examples,
    origin: Origin,
    seeds: Sequence[int],
    column: Column | None = None,
    reader: Reader | None = None,
    graph: ParameterGraph | None = None,
) -> list[Metanet]:
    """Train modules of one class, one for each seed, by the settings of their origin."""
    if (train.y == train.y[0]).all():
        raise TaskError("all networks to learn from have the same target; there is nothing to predict")
    if not train.y.isfinite().all() or not validation.y.isfinite().all():
        raise TaskError("targets: some are not finite; leave out these networks")
    link, began = Link.of(train.y, column), time.perf_counter()
    if link.classes and not {*validation.y.tolist()} <= {*range(link.classes)}:
        raise TaskError("targets: the validation networks have classes that no network to learn from has")
    with torch.random.fork_rng(devices=[]):  # dropout in your own module depends on the seed alone
        torch.manual_seed(seed_for(seeds[0], "metanetwork/noise"))
        if isinstance(modules[0], Metanetwork):
            kind = type(modules[0])
            link = kind.link(link)
            epochs = kind.learn(modules, train, validation, link, origin.settings, seeds)
        else:
            epochs = descend(modules, train, validation, link, origin.settings, seeds)
    seconds = (time.perf_counter() - began) / len(seeds)
    metanets = []
    for module, seed, own in zip(modules, seeds, epochs, strict=True):
        came = replace(origin, seed=seed, epochs=own, seconds=seconds)
        metanets.append(Metanet(reader, module, link, came, graph))
        metanets[-1].predict_on_scale(validation)  # raises if a prediction is not finite
    return metanets
