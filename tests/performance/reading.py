"""How fast random batches of rows are read from a zoo, against numpy's own memory map."""

import tempfile
import time
from pathlib import Path

import numpy as np

from tests.performance.figures import Figure, Section
from zoo.opening import open_zoo
from zoo.recipes.recipe import Recipe
from zoo.seeds import rng_for
from zoo.store.columns import KNOWN
from zoo.store.shards import write_shard
from zoo.training.engines import Engine
from zoo.training.modes import mode_here
from zoo.training.planning import begin

PAIRS, BATCH = 2000, 128
STEP = 250  # rows in a shard
ROUNDS, BATCHES = 15, 8  # speed depends on where in memory the files are mapped, so each round maps them anew


def measure() -> Section:
    """Write rows of a ResNet8 both ways, and read random batches of them in turns."""
    recipe = Recipe.load("cifar10-resnet8").only(["standard"]).model_copy(update={"pairs": PAIRS})
    rng, size = rng_for(0, "reading"), recipe.treat("standard").layout.size
    with tempfile.TemporaryDirectory() as name:
        write(recipe, rng.standard_normal((PAIRS, size), dtype=np.float32), Path(name))
        seconds = np.array([read(Path(name), rng) for _ in range(ROUNDS)])  # (rounds, zoo and numpy)
    figures = {
        "GB a second": Figure.of("GB a second", BATCHES * BATCH * size * 4 / 1e9 / seconds[:, 0]),
        "against numpy": Figure.of("ratio", seconds[:, 1] / seconds[:, 0]),
    }
    return {f"{BATCH} random rows of {PAIRS:,} x {size:,}": figures}


def read(folder: Path, rng: np.random.Generator) -> tuple[float, float]:
    """Read some batches, and return the seconds that a zoo and numpy take."""
    weights, mapped = open_zoo(folder)["standard"].weights, np.load(folder / "rows.npy", mmap_mode="r")
    seconds = np.zeros(2)
    for _ in range(BATCHES):
        index = rng.permutation(PAIRS)[:BATCH]
        began = time.perf_counter()
        rows = weights[index]
        between = time.perf_counter()
        expected = mapped[index]
        seconds += between - began, time.perf_counter() - between
        assert np.array_equal(rows.numpy(), expected)
    return seconds[0], seconds[1]


def write(recipe: Recipe, rows: np.ndarray, folder: Path) -> None:
    """Write rows as a zoo, and as an array."""
    np.save(folder / "rows.npy", rows)
    mode, manifest = mode_here(Engine("torch"), ""), begin(recipe, [KNOWN["weights"], KNOWN["status"]])
    files = []
    for i in range(0, PAIRS, STEP):
        arrays = {"weights": rows[i : i + STEP], "status": np.full(STEP, "trained")}
        files.append(write_shard(folder, manifest, "standard", range(i, i + STEP), arrays, mode))
    manifest.model_copy(update={"files": tuple(files)}).write(folder)
