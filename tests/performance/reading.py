"""How fast random batches of rows are read from a zoo, against numpy's own memory map. Prints JSON."""

import json
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from zoo.opening import open_zoo
from zoo.recipes.recipe import Recipe
from zoo.seeds import rng_for
from zoo.store.columns import KNOWN
from zoo.store.shards import write_shard
from zoo.training.modes import mode_here
from zoo.training.planning import begin

PAIRS, BATCH, ROUNDS = 2000, 128, 40


def main() -> None:
    """Write 2,000 rows of a ResNet8 as a zoo and as an array, and read random batches of both in turns."""
    torch.set_num_threads(1)
    recipe = Recipe.load("cifar10-resnet8").only(["standard"]).model_copy(update={"pairs": PAIRS})
    rng, size = rng_for(0, "reading"), recipe.treat("standard").layout.size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = rng.standard_normal((PAIRS, size), dtype=np.float32)
        np.save(folder / "rows.npy", rows)
        mode, manifest = mode_here("cpu", ""), begin(recipe, [KNOWN["weights"], KNOWN["status"]])
        step, files = 250, []
        for i in range(0, PAIRS, step):
            arrays = {"weights": rows[i : i + step], "status": np.full(step, "trained")}
            files.append(write_shard(folder, manifest, "standard", range(i, i + step), arrays, mode))
        manifest.model_copy(update={"files": tuple(files)}).write(folder)
        weights, mapped = open_zoo(folder)["standard"].weights, np.load(folder / "rows.npy", mmap_mode="r")
        zoo_rates, numpy_rates = [], []
        for _ in range(ROUNDS):
            index = rng.permutation(PAIRS)[:BATCH]
            began = time.perf_counter()
            read = weights[index]
            between = time.perf_counter()
            expected = mapped[index]
            zoo_rates.append(expected.nbytes / 1e9 / (between - began))
            numpy_rates.append(expected.nbytes / 1e9 / (time.perf_counter() - between))
            assert np.array_equal(read.numpy(), expected)
    figures = {"zoo_gb_per_second": median(zoo_rates), "numpy_gb_per_second": median(numpy_rates)}
    figures["ratio"] = figures["zoo_gb_per_second"] / figures["numpy_gb_per_second"]
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
