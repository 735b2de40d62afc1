import pytest

from tests.scenarios import small_recipe
from zoo import generate
from zoo.data import load_data

TREATMENTS = ("standard", "w_asymmetric", "sigma_asymmetric")


@pytest.fixture(scope="session")
def data():
    """The two hundred digits that the zoos below learn from."""
    return load_data("digits", train_limit=200)


@pytest.fixture(scope="session")
def replicas(tmp_path_factory):
    """Nine networks a treatment that differ in nothing but their seeds; for reading only."""
    recipe = small_recipe(9, training={"batch_size": 32, "learning_rate": 1e-2, "epochs": 8})
    return generate(recipe.only((*TREATMENTS, "w_initialised")), tmp_path_factory.mktemp("zoos") / "replicas")


@pytest.fixture(scope="session")
def varied(tmp_path_factory):
    """Twelve networks a treatment that differ in learning rate and epochs, too; for reading only."""
    training = {"batch_size": 32, "learning_rate": {"log_uniform": [1e-3, 1e-1]}, "epochs": {"integers": [1, 6]}}
    recipe = small_recipe(12, training=training).only(("standard", "w_asymmetric"))
    return generate(recipe, tmp_path_factory.mktemp("zoos") / "varied")
