"""Megabytes a second at which a zoo of 2,000 x 78,042 is exported and imported, and the memory that takes. Prints JSON."""

import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from zoo.opening import open_zoo
from zoo.recipes.recipe import Recipe
from zoo.sharing.export import export_zoo
from zoo.sharing.importers.hf import import_zoo
from zoo.store.columns import KNOWN
from zoo.store.manifest import Mode
from zoo.store.shards import write_shard
from zoo.store.zoo import Zoo
from zoo.training.planning import begin

PAIRS = 2000
SHARD = 50
COLUMNS = ("weights", "initial_weights", "pair", "split", "status", "test_accuracy")
MODE = Mode(device="cpu", processor="any", torch="any", data="any")


def plant(folder: Path) -> Zoo:
    """A zoo of ResNet8s that nobody trained."""
    recipe = Recipe.load("cifar10-resnet8").only(["standard"]).model_copy(update={"pairs": PAIRS})
    manifest = begin(recipe, [KNOWN[name] for name in COLUMNS])
    size, rng = recipe.treat("standard").layout.size, np.random.default_rng(0)
    splits = np.array([recipe.split_of(pair) for pair in range(PAIRS)])
    files = []
    for first in range(0, PAIRS, SHARD):
        pairs = np.arange(first, first + SHARD)
        arrays = {
            "weights": rng.standard_normal((SHARD, size), np.float32),
            "initial_weights": rng.standard_normal((SHARD, size), np.float32),
            "pair": pairs,
            "split": splits[pairs],
            "status": np.full(SHARD, "trained"),
            "test_accuracy": rng.random(SHARD, np.float32),
        }
        files.append(write_shard(folder, manifest, "standard", range(first, first + SHARD), arrays, MODE))
    manifest.model_copy(update={"files": tuple(files)}).write(folder)
    return open_zoo(folder)


def anonymous() -> float:
    """Megabytes that the process holds, without the pages of mapped files, which the system takes back at will."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def measure(what: str, work: Callable[[], object], megabytes: float) -> dict[str, object]:
    done, before = threading.Event(), anonymous()
    peaks = [before]

    def watch() -> None:
        while not done.wait(0.002):
            peaks.append(anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    return {
        "what": what,
        "megabytes": round(megabytes),
        "megabytes_a_second": round(megabytes / seconds),
        "anonymous_megabytes_more_at_peak": round(max(peaks) - before),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        zoo = plant(folder / "zoo")
        megabytes = sum(file.bytes for file in zoo.manifest.files) / 1e6
        figures = [
            measure("export", lambda: export_zoo(zoo, folder / "hub"), megabytes),
            measure("import", lambda: import_zoo(folder / "hub", folder / "again"), megabytes),
        ]
    print(json.dumps(figures, indent=1))
