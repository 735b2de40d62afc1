"""Generation of a whole zoo: the fraction of its time that is not training, and what a second worker gains."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from tests.performance.figures import Figure, Section
from zoo.recipes.recipe import Recipe
from zoo.training.compiled import training
from zoo.training.engines import Engine
from zoo.training.generation import generate, train_pairs

PAIRS, TREATMENTS = 2000, ("standard", "w_asymmetric")


def measure() -> Section:
    """Generate a zoo with one worker and with two."""
    recipe = Recipe.load("digits-mlp").only(TREATMENTS).model_copy(update={"pairs": PAIRS})
    train_pairs(recipe, "standard", [0], recipe.load_data(), engine=Engine("compiled"))  # to compile before
    with TemporaryDirectory() as folder:
        with clocked_training() as spent:
            alone = seconds(recipe, Path(folder) / "alone", 1)
        together = seconds(recipe, Path(folder) / "together", 2)
    figures = {
        "one worker": Figure.of("seconds", [alone]),
        "outside training": Figure.of("fraction", [1 - sum(spent) / alone]),
        "two workers": Figure.of("ratio", [alone / together]),
    }
    return {f"{PAIRS:,} pairs of digits-mlp under two treatments": figures}


def seconds(recipe: Recipe, folder: Path, workers: int) -> float:
    """Return how long a zoo takes."""
    began = time.perf_counter()
    generate(recipe, folder, workers=workers)
    return time.perf_counter() - began


@contextmanager
def clocked_training() -> Iterator[list[float]]:
    """Yield a list that gets the seconds of all epochs of the compiled engine, and of drawing their minibatches."""
    spent: list[float] = []

    def clocked(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            began = time.perf_counter()
            result = function(*arguments)
            spent.append(time.perf_counter() - began)
            return result

        return call

    with ExitStack() as patches:
        for name in ("train_epoch", "draw_order"):
            patches.enter_context(patch.object(training, name, clocked(getattr(training, name))))
        yield spent
