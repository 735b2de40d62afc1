import json
import sys
from hashlib import sha256

import h5py
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
from zoo.training.planning import begin, hyperparameter
from zoo.training.workers import fix_rounding

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
    """Networks that vary most along one direction of their weights, and metrics linear in them."""
    treated, pairs = recipe.treat(treatment), range(recipe.pairs)
    rng = rng_for(0, "planted")
    direction = torch.from_numpy(rng.standard_normal(treated.layout.size).astype(np.float32))
    noise = rng.standard_normal((len(pairs), treated.layout.size)).astype(np.float32)
    along = torch.from_numpy(rng.standard_normal((len(pairs), 1)).astype(np.float32))
    rows = treated.to_rows(treated.keep_trainable(along * direction + 0.3 * torch.from_numpy(noise)))
    accuracy = 0.5 + 0.1 * (rows[:, treated.mask] @ direction[treated.mask]) / treated.layout.size
    return {
        "weights": rows.numpy(),
        "pair": np.array(pairs),
        "split": np.array([recipe.split_of(pair) for pair in pairs]),
        "status": np.full(len(pairs), "trained", dtype="<U8"),
        "learning_rate": 10 ** (0.3 * along[:, 0].double().numpy() - 2),
        "epochs": rng.integers(1, 5, len(pairs)),
        "train_accuracy": 1.2 * accuracy.numpy(),
        "test_accuracy": accuracy.numpy(),
        "test_loss": -accuracy.numpy(),
    }


@pytest.fixture(scope="session")
def plant_zoo(tmp_path_factory):
    """A function that writes a zoo of networks that nobody trained.

    `change(arrays)` alters the networks of each treatment in place first; `columns` describes what it adds.
    """

    def plant(change=lambda arrays: None, pairs=120, columns=(), treatments=PLANTED, name="small", **architecture):
        recipe = small_recipe(
            pairs,
            name=name,
            architecture={"name": "mlp", "widths": [8, 16, 8, 4]} | architecture,
            treatments={treatment: SETTINGS[treatment] for treatment in treatments},
        )
        folder, files = tmp_path_factory.mktemp("planted"), []
        planted = {treatment: planted_arrays(recipe, treatment) for treatment in treatments}
        for arrays in planted.values():
            change(arrays)
        drawn = {column: hyperparameter(recipe, column) for column in ("learning_rate", "epochs")}
        known = KNOWN | drawn | {column.name: column for column in columns}
        manifest = begin(recipe, [known[column] for column in planted[treatments[0]]])
        for treatment, arrays in planted.items():
            files.append(write_shard(folder, manifest, treatment, range(pairs), arrays, MODE))
            if held := recipe.treat(treatment).held:
                files.append(write_constants(folder, treatment, held))
        manifest.model_copy(update={"files": tuple(files)}).write(folder)
        return open_zoo(folder)

    return plant


@pytest.fixture(scope="session")
def planted_zoo(plant_zoo):
    """For reading only."""
    return plant_zoo()


def write_sealed(path, values):
    """Write values as a manifest whose seal holds, valid or not."""
    values = {"seal": "0" * 64} | {name: value for name, value in values.items() if name != "seal"}
    text = json.dumps(values, indent=1)
    path.write_text(text.replace("0" * 64, sha256(text.encode()).hexdigest(), 1))


@pytest.fixture
def edit_manifest():
    """A function that changes the values in a zoo's `zoo.json`, as `change` does in place."""

    def edit(folder, change):
        path = folder / "zoo.json"
        values = json.loads(path.read_text())
        change(values)
        write_sealed(path, values)

    return edit


@pytest.fixture
def reseal(edit_manifest):
    """A function that has the manifest agree with a changed file."""

    def agree(folder, name):
        content = (folder / name).read_bytes()

        def change(values):
            (entry,) = [file for file in values["files"] if file["path"] == name]
            entry |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}

        edit_manifest(folder, change)

    return agree


@pytest.fixture
def diverge(reseal):
    """A function that makes a network one that diverged, with NaN for all that training it would have given."""

    def make(folder, treatment, pair):
        manifest = open_zoo(folder).manifest
        (file,) = [file for file in manifest.of(treatment) if pair in range(*file.pairs)]
        place = pair - file.pairs[0]
        with h5py.File(folder / file.path, "r+") as shard:
            shard["status"][place] = "diverged"
            for name, column in manifest.columns_of(treatment).items():
                if name == "weights" or column.kind in ("metric", "curve"):
                    shard[name][place] = np.nan
        reseal(folder, file.path)
        return open_zoo(folder)

    return make
