"""How a metanetwork is trained."""

import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from zoo.errors import TaskError
from zoo.files import read_toml
from zoo.recipes.explaining import explain


class Settings(BaseModel):
    """Everything about a training that is not the metanetwork itself.

    Each metanetwork has settings of its own, `MODELS["gmn"].settings`, which `asymzoo metanets tune` searches.

    Arguments:
        epochs: Number of epochs; the best on the validation networks is kept, the start included.
        steps: Least number of optimiser steps; with few training networks an epoch passes over them several times.
        patience: Number of epochs without improvement after which training ends; None for never.
        batch_size: Number of networks a step.
        learning_rate: Highest learning rate of AdamW; None for the metanetwork's own.
        schedule: `cosine` lowers the learning rate to 0 over all epochs.
        weight_decay: Weight decay of AdamW.
        huber: Huber threshold, in standard deviations of the target: larger errors count linearly. Otherwise the few
            bad networks would drown the order of the many good ones.
        clip: Greatest norm of a gradient.
        augment: `permute` shows each network with its hidden units permuted at random, anew at every step.
        include_fixed: Whether to read the entries, too, that do not train.
        options: Arguments of the metanetwork's constructor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    epochs: NonNegativeInt = 100
    steps: NonNegativeInt = 0
    patience: PositiveInt | None = None
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat | None = None
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: NonNegativeFloat = 1e-2
    huber: PositiveFloat = 0.1
    clip: PositiveFloat = 1.0
    augment: Literal["permute"] | None = None
    include_fixed: bool = False
    options: dict[str, Any] = {}

    def passes(self, networks: int) -> int:
        """Return how often an epoch passes over a number of training networks."""
        return max(1, math.ceil(self.steps / max(1, self.epochs * math.ceil(networks / self.batch_size))))

    @classmethod
    def load(cls, path: str | Path) -> "Settings":
        """Read settings from a TOML file, as `asymzoo metanets tune` prints them.

        Raises:
            TaskError: If it cannot be read, or a field is wrong.
        """
        try:
            return cls(**read_toml(Path(path), TaskError))
        except ValidationError as error:
            raise TaskError(f"{path}: {explain(error, lambda place: cls)}") from None

    def to_toml(self) -> str:
        """Return what differs from the defaults as TOML, which `load` reads."""
        return "\n".join(f"{name} = {_toml(v)}" for name, v in self.model_dump(exclude_defaults=True).items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(v)}" for name, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value).lower()
