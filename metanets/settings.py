"""How a metanetwork is trained, and the settings that a search found for each: TOML beside the model."""

import math
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from zoo.errors import TaskError

FOLDER = Path(__file__).parent / "models"


class Settings(BaseModel):
    """Everything about a training that is not the metanetwork itself.

    Arguments:
        epochs: passes over the training networks; the best by validation counts, the start included.
        steps: at least so many of the optimiser; each epoch then passes over few training networks several times.
        patience: epochs without a better one after which training ends; None: none.
        batch_size: networks a step.
        learning_rate: of AdamW; None is the metanetwork's own.
        schedule: `cosine` takes the learning rate to 0 over `epochs`.
        weight_decay: of AdamW.
        huber: errors beyond so many standard deviations of the targets count by their size, smaller ones by their
            square over it (`smooth_l1_loss`): else the few bad networks would drown the order of the many good ones.
        clip: greatest norm of a gradient.
        augment: `permute` shows each network, at each step, at a random place of its orbit under permutations of
            hidden units.
        options: arguments of the metanetwork's constructor.
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
    options: dict[str, Any] = {}

    def passes(self, networks: int) -> int:
        """Return how often an epoch passes over so many training networks."""
        return max(1, math.ceil(self.steps / max(1, self.epochs * math.ceil(networks / self.batch_size))))

    @classmethod
    def best(cls, model: str, task: str) -> "Settings":
        """Return the settings stored for a model and a task: those of the task, else those under `default`.

        Raises:
            TaskError: if the file is no such table.
        """
        path = FOLDER / f"{model}.toml"
        if not path.exists():
            return cls()
        try:
            tables = tomllib.loads(path.read_text())
            return cls(**tables.get(task, tables.get("default", {})))
        except (TypeError, ValueError) as error:
            raise TaskError(f"{path}: {str(error).splitlines()[0]}; mend it or delete it") from None
