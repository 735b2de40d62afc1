import sys

import numpy as np
import pytest
import torch

from benchmark.cli import main
from tests.scenarios import SETTINGS, small_recipe
from zoo.opening import open_zoo
from zoo.seeds import rng_for
from zoo.store.columns import KNOWN
from zoo.store.manifest import Mode
from zoo.store.shards import write_constants, write_shard
from zoo.training.engines import fix_rounding
from zoo.training.planning import begin

PLANTED = ("standard", "w_asymmetric")
MODE = Mode(device="cpu", processor="", torch="", data="")

torch.set_num_threads(1)  # tests run side by side
fix_rounding()  # before anything is computed


@pytest.fixture
def asymzoo(monkeypatch, capsys):
    """A function that runs the program and returns exit code, output and errors."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["asymzoo", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        output = capsys.readouterr()
        return exit_.value.code, output.out, output.err

    return run


def planted_arrays(recipe, treatment):
    """Networks that vary most along one direction of their weights, and an accuracy linear in them."""
    treated, pairs = recipe.treat(treatment), range(recipe.pairs)
    rng = rng_for(0, "planted")
    direction = torch.from_numpy(rng.standard_normal(treated.layout.size).astype(np.float32))
    noise = rng.standard_normal((len(pairs), treated.layout.size)).astype(np.float32)
    along = torch.from_numpy(rng.standard_normal((len(pairs), 1)).astype(np.float32))
    rows = treated.rows(treated.thetas(along * direction + 0.3 * torch.from_numpy(noise)))
    accuracy = 0.5 + 0.1 * (rows[:, treated.trainable] @ direction[treated.trainable]) / treated.layout.size
    return {
        "weights": rows.numpy(),
        "pair": np.array(pairs),
        "split": np.array([recipe.split_of(pair) for pair in pairs]),
        "status": np.full(len(pairs), "trained", dtype="<U8"),
        "test_accuracy": accuracy.numpy(),
        "test_loss": -accuracy.numpy(),
    }


@pytest.fixture(scope="session")
def plant_zoo(tmp_path_factory):
    """A function that writes a zoo of networks that nobody trained; `change(arrays)` alters them in place first."""

    def plant(change=lambda arrays: None, pairs=120, widths=(8, 16, 8, 4)):
        recipe = small_recipe(
            pairs,
            architecture={"name": "mlp", "widths": list(widths)},
            treatments={name: SETTINGS[name] for name in PLANTED},
        )
        folder, files = tmp_path_factory.mktemp("planted"), []
        planted = {name: planted_arrays(recipe, name) for name in PLANTED}
        for arrays in planted.values():
            change(arrays)
        manifest = begin(recipe, [KNOWN[column] for column in planted["standard"]])
        for name, arrays in planted.items():
            files.append(write_shard(folder, manifest, name, range(pairs), arrays, MODE))
            if held := recipe.treat(name).held:
                files.append(write_constants(folder, name, held))
        manifest.model_copy(update={"files": tuple(files)}).write(folder)
        return open_zoo(folder)

    return plant


@pytest.fixture(scope="session")
def planted_zoo(plant_zoo):
    """For reading only."""
    return plant_zoo()
