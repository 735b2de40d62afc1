import json
import shutil
from hashlib import sha256

import pytest

from zoo import Recipe, generate, open_zoo

TINY = {
    "name": "tiny",
    "pairs": 6,
    "data": {"name": "digits", "train_limit": 512},
    "architecture": {"name": "mlp", "widths": [64, 8, 8, 10]},
    "training": {
        "learning_rate": {"log_uniform": [1e-3, 1e-1]},
        "weight_decay": {"log_uniform": [1e-4, 1e-1]},
        "label_smoothing": {"uniform": [0.0, 0.2]},
        "epochs": {"integers": [1, 3]},
    },
    "treatments": {
        "standard": {"kind": "standard"},
        "narrow": {"kind": "narrow", "width": 0.5},
        "w_asymmetric": {"kind": "w_asymmetric", "n_fix": [4, 3, 2]},
        "sigma_asymmetric": {"kind": "sigma_asymmetric"},
        "syre": {"kind": "syre"},
    },
}


@pytest.fixture(scope="session")
def tiny_recipe():
    return Recipe.read(TINY)


@pytest.fixture(scope="session")
def tiny_zoo(tiny_recipe, tmp_path_factory):
    """Six pairs in shards of four and two; for reading only."""
    return generate(tiny_recipe, tmp_path_factory.mktemp("zoos") / "tiny", shard_pairs=4)


@pytest.fixture(scope="session")
def diverged_zoo(tmp_path_factory):
    """Two pairs whose learning rate takes them beyond all numbers; for reading only."""
    training = {"optimizer": "sgd", "learning_rate": 1e30, "epochs": 1}
    architecture = TINY["architecture"] | {"norm": "none"}
    recipe = Recipe.read(TINY | {"pairs": 2, "training": training, "architecture": architecture})
    return generate(recipe.only(["standard", "w_asymmetric"]), tmp_path_factory.mktemp("zoos") / "diverged")


@pytest.fixture
def tiny_copy(tiny_zoo, tmp_path):
    """The same in a folder of its own, to be damaged."""
    return open_zoo(shutil.copytree(tiny_zoo.folder, tmp_path / "tiny"))


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
