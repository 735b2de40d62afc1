"""Seconds until something happens: the program's help, the package, and the first network of the compiled engine.

Each is measured in a fresh process. The first training counts from when the data are there, so it includes the import
of Numba and what Numba reads from its cache, or compiles where that is empty.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.performance.figures import Figure, Section

ROUNDS = 3
TRAINING = """
import time
from zoo.recipes.distribution import Distribution
from zoo.recipes.recipe import Recipe
from zoo.training.engines import Engine
from zoo.training.generation import train_pairs

recipe = Recipe.load("digits-mlp")
training = recipe.training.model_copy(update={"epochs": Distribution(constant=1)})
recipe, data = recipe.model_copy(update={"training": training}), recipe.load_data()
began = time.perf_counter()
train_pairs(recipe, "standard", [0], data, engine=Engine("compiled"))
print(time.perf_counter() - began)
"""


def measure() -> Section:
    """Measure all starts; the first round of each but the slow one only fills caches."""
    program = str(Path(sys.executable).with_name("asymzoo"))
    starts: dict[str, Callable[[], float]] = {
        "`asymzoo --help`": lambda: seconds(program, "--help"),
        "`import zoo`": lambda: seconds(sys.executable, "-c", "import zoo"),
        "first network, Numba's cache full": first_training,
    }
    figures = {name: [start() for _ in range(ROUNDS + 1)][1:] for name, start in starts.items()}
    with TemporaryDirectory() as empty:
        figures["first network, cache empty"] = [first_training(NUMBA_CACHE_DIR=empty)]
    return {name: {"time": Figure.of("seconds", rounds)} for name, rounds in figures.items()}


def seconds(*command: str) -> float:
    """Return how long a command takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def first_training(**environment: str) -> float:
    """Return how long the first training of a process takes."""
    command, environment = [sys.executable, "-c", TRAINING], os.environ | environment
    return float(subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout)
