import shutil

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
    """A zoo of six pairs, in shards of four and two; for reading only."""
    return generate(tiny_recipe, tmp_path_factory.mktemp("zoos") / "tiny", shard_pairs=4)


@pytest.fixture(scope="session")
def diverged_zoo(tmp_path_factory):
    """A zoo of two pairs that diverged because of their learning rate; for reading only."""
    training = {"optimizer": "sgd", "learning_rate": 1e30, "epochs": 1}
    architecture = TINY["architecture"] | {"norm": "none"}
    recipe = Recipe.read(TINY | {"pairs": 2, "training": training, "architecture": architecture})
    return generate(recipe.only(["standard", "w_asymmetric"]), tmp_path_factory.mktemp("zoos") / "diverged")


@pytest.fixture
def tiny_copy(tiny_zoo, tmp_path):
    """A copy of the tiny zoo, which a test may damage."""
    return open_zoo(shutil.copytree(tiny_zoo.folder, tmp_path / "tiny"))
