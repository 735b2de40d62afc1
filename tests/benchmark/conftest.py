import pytest

from tests.scenarios import small_recipe
from zoo import generate
from zoo.data import load_data

TREATMENTS = ("standard", "w_asymmetric", "sigma_asymmetric")


@pytest.fixture(scope="module")
def data():
    """A hundred digits to train on."""
    return load_data("digits", train_limit=100)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    """Eight networks a treatment that differ in nothing but their seeds."""
    training = {"batch_size": 32, "learning_rate": 1e-2, "epochs": 2}
    return generate(small_recipe(8, training=training).only(TREATMENTS), tmp_path_factory.mktemp("zoos") / "replicas")
