"""A small search for the settings of a metanetwork by its validation networks; test networks have no part in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from torch import nn

from metanets.metrics import measure, selection_score
from metanets.selection import select_usual
from metanets.settings import Settings
from metanets.tasks import Task
from metanets.training import Model, class_of, train
from zoo.errors import TaskError
from zoo.progress import Progress, ignore
from zoo.seeds import rng_for
from zoo.store.zoo import Zoo

SPACE: dict[str, tuple[float, ...]] = {
    "learning_rate": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "weight_decay": (1e-2, 1e-1, 1.0),
    "batch_size": (16, 64),
}


@dataclass(frozen=True)
class Trial:
    """Settings, and what one training with them reached on the validation networks.

    Attributes:
        settings: The settings.
        metrics: Metrics by name.
        score: `metanets.metrics.selection_score`; the highest is best.
    """

    settings: Settings
    metrics: dict[str, float]
    score: float


def tune(
    task: Task | str | Path,
    zoo: Zoo,
    model: Model,
    *,
    trials: int = 8,
    settings: Settings | None = None,
    device: str = "cpu",
    progress: Progress = ignore,
) -> list[Trial]:
    """Try values of `SPACE` and of the metanetwork's `choices` at random, none twice, with one training each.

    Arguments:
        task: Task, or the path of its TOML file.
        zoo: Zoo of the task.
        model: Metanetwork, as `metanets.training.train` takes it.
        trials: Number of trials; the first is of the present settings.
        settings: Present settings; by default the metanetwork's own.
        device: `cpu` or `cuda`.
        progress: Called with the number of trials that were just completed.

    Returns:
        The trials, the best first.

    Raises:
        TaskError: See `metanets.training.train`.
    """
    if trials < 1:
        raise TaskError(f"trials: {trials} are none; try one or more")
    task, kind = Task.load(task), class_of(model)
    choices = {} if isinstance(model, nn.Module) else kind.choices  # a module is built already
    candidates = _candidates(settings or kind.settings, SPACE if kind.takes_steps else {}, choices, trials)
    validation, found = select_usual(task, zoo), []
    for candidate in candidates:
        metanet = train(task, zoo, model, settings=candidate, device=device)[0]
        predicted = metanet.predict_on_scale(metanet.read(validation)).double().numpy()
        true = validation.y.numpy()
        true = true.astype(float) if predicted.ndim == 1 else true
        found.append(Trial(candidate, measure(true, predicted), selection_score(true, predicted)))
        progress(1)
    return sorted(found, key=lambda trial: -trial.score)


def _candidates(
    present: Settings, space: Mapping[str, Sequence[Any]], choices: Mapping[str, Sequence[Any]], trials: int
) -> list[Settings]:
    """Return the present settings and others drawn at random, none twice."""
    grid = list(product(*space.values(), *choices.values()))
    candidates = [present]
    for i in rng_for(0, "tuning").permutation(len(grid)):
        if len(candidates) >= trials:
            break
        chosen: dict[str, Any] = dict(zip((*space, *choices), grid[i], strict=True))
        options = present.options | {name: chosen.pop(name) for name in choices}
        candidate = present.model_copy(update=chosen | {"options": options})
        if candidate != present:
            candidates.append(candidate)
    return candidates
