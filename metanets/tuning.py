"""A small search for the settings of a metanetwork, by its validation networks; test networks have no part in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metanets.metanet import train_model
from metanets.metrics import r2
from metanets.settings import Settings
from zoo.seeds import rng_for
from zoo.store import Zoo

LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
WEIGHT_DECAYS = (1e-4, 1e-2, 1e-1)


@dataclass(frozen=True)
class Trial:
    """Settings, and the validation R^2 that one training of theirs reached."""

    settings: Settings
    r2: float


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
    """Try learning rates and weight decays at random, no pair twice, each with one training.

    Arguments:
        zoo, treatment, model, task, device: as in `metanets.metanet.train_model`.
        trials: how many; the first is of the present settings.
        progress: called after each trial.

    Returns:
        The trials, the best first.
    """
    present = Settings.best(model, task)
    grid = [(rate, decay) for rate in LEARNING_RATES for decay in WEIGHT_DECAYS]
    order = rng_for(0, "tuning").permutation(len(grid))[: trials - 1]
    candidates = [present] + [
        present.model_copy(update={"learning_rate": grid[i][0], "weight_decay": grid[i][1]}) for i in order
    ]
    found = []
    for settings in candidates:
        (metanet,) = train_model(zoo, treatment, model, task=task, settings=settings, device=device)
        index = zoo.index(treatment, "validation")
        true = zoo.field(treatment, f"metrics/{task}")[index].astype(float)
        found.append(Trial(settings, r2(true, metanet.predict(zoo.rows(treatment, index)).double().numpy())))
        progress(found[-1])
    return sorted(found, key=lambda trial: -trial.r2)


def to_toml(task: str, settings: Settings) -> str:
    """Return what differs from the defaults as a table of a TOML file, see `Settings.best`."""

    def value(given: Any) -> str:
        if isinstance(given, dict):
            return "{ " + ", ".join(f"{name} = {value(v)}" for name, v in given.items()) + " }"
        return f'"{given}"' if isinstance(given, str) else str(given).lower()

    lines = [f"{name} = {value(v)}" for name, v in settings.model_dump(exclude_defaults=True).items()]
    return "\n".join([f"[{task}]", *lines])
