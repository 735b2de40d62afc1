"""A small search for the settings of a metanetwork, by its validation networks; test networks have no part in it."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

from metanets.metanet import train_model
from metanets.metrics import kendall_tau, r2, selection_score
from metanets.models import MODELS
from metanets.settings import Settings
from zoo.errors import TaskError, nearest
from zoo.seeds import rng_for
from zoo.store.zoo import Zoo

SPACE: dict[str, tuple[float, ...]] = {
    "learning_rate": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "weight_decay": (1e-2, 1e-1, 1.0),
    "batch_size": (16, 64),
}


@dataclass(frozen=True)
class Trial:
    """Settings, and what one training of theirs reached on the validation networks; the greatest score is best."""

    settings: Settings
    r2: float
    kendall_tau: float
    score: float


def search(
    zoo: Zoo,
    treatment: str,
    model: str,
    *,
    task: str = "test_accuracy",
    trials: int = 8,
    device: str = "cpu",
    progress: Callable[[Trial], object] = lambda trial: None,
) -> list[Trial]:
    """Try values of `SPACE`, and of the metanetwork's `choices`, at random, none twice, each with one training.

    Arguments:
        zoo, treatment, model, task, device: as in `metanets.metanet.train_model`.
        trials: how many; the first is of the present settings.
        progress: called after each trial.

    Returns:
        The trials, the best first.
    """
    if model not in MODELS:
        raise TaskError(f"model: no metanetwork {model!r}{nearest(model, MODELS)}; there are {', '.join(MODELS)}")
    present, choices = Settings.best(model, task), MODELS[model].choices
    space = {} if hasattr(MODELS[model], "fit") else SPACE  # what fits itself takes no steps
    grid = list(product(*space.values(), *choices.values()))
    candidates = [present]
    for i in rng_for(0, "tuning").permutation(len(grid))[: trials - 1]:
        chosen: dict[str, Any] = dict(zip((*space, *choices), grid[i], strict=True))
        options = present.options | {name: chosen.pop(name) for name in choices}
        candidates.append(present.model_copy(update=chosen | {"options": options}))
    found = []
    for settings in candidates:
        (metanet,) = train_model(zoo, treatment, model, task=task, settings=settings, device=device)
        index = zoo.index(treatment, "validation")
        true = zoo.field(treatment, task)[index].astype(float)
        predicted = metanet.predict(zoo.rows(treatment, index)).double().numpy()
        found.append(Trial(settings, *(metric(true, predicted) for metric in (r2, kendall_tau, selection_score))))
        progress(found[-1])
    return sorted(found, key=lambda trial: -trial.score)


def to_toml(task: str, settings: Settings) -> str:
    """Return what differs from the defaults as a table of a TOML file, see `Settings.best`."""

    def value(given: Any) -> str:
        if isinstance(given, dict):
            return "{ " + ", ".join(f"{name} = {value(v)}" for name, v in given.items()) + " }"
        return f'"{given}"' if isinstance(given, str) else str(given).lower()

    lines = [f"{name} = {value(v)}" for name, v in settings.model_dump(exclude_defaults=True).items()]
    return "\n".join([f"[{task}]", *lines])
