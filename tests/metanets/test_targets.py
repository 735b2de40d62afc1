import numpy as np
import pytest

from metanets.targets import describe_target, read_targets, to_scale
from zoo.errors import TaskError
from zoo.store.columns import KNOWN, Column

NUMBERS = ("learning_rate", "epochs", "train_accuracy", "test_accuracy", "test_loss", "seconds", "bits")
COLUMNS = (
    Column(name="optimizer", kind="setting", dtype="string"),
    Column(name="converged", kind="setting", dtype="bool"),
    Column(name="bits", kind="hyperparameter", dtype="uint8"),
    Column(name="profile", kind="metric", dtype="float32", width=3),
    KNOWN["curve_test_loss"].model_copy(update={"width": 4}),
)


@pytest.fixture(scope="module")
def networks(plant_zoo):
    """Networks with columns of every kind."""

    def change(arrays):
        pairs = len(arrays["pair"])
        rng = np.random.default_rng(0)
        arrays["seconds"] = rng.uniform(1, 2, pairs).astype(np.float32)
        arrays["bits"] = rng.integers(0, 255, pairs).astype(np.uint8)
        arrays["optimizer"] = np.array(["adam", "sgd"] * (pairs // 2))
        arrays["converged"] = np.array([True, False] * (pairs // 2))
        arrays["profile"] = rng.uniform(size=(pairs, 3)).astype(np.float32)
        arrays["curve_test_loss"] = rng.uniform(size=(pairs, 4)).astype(np.float32)

    return plant_zoo(change, pairs=20, columns=COLUMNS)["standard"]


@pytest.mark.parametrize("target", NUMBERS)
def test_every_column_of_one_number_is_a_target(networks, target):
    values = read_targets(networks, target)
    assert values.dtype == np.float64
    assert np.array_equal(values, networks[target])
    assert describe_target(networks, target) == networks.columns[target]


def test_all_else_is_no_target(networks):
    for name in networks.columns.keys() - set(NUMBERS):
        with pytest.raises(TaskError, match=f"standard: {name} is not one number for each network; choose one of "):
            read_targets(networks, name)


def test_the_gap_is_train_accuracy_minus_test_accuracy(networks):
    values = read_targets(networks, "generalisation_gap")
    assert np.allclose(values, networks["train_accuracy"].astype(float) - networks["test_accuracy"], atol=1e-7)
    assert values.std() > 0
    assert describe_target(networks, "generalisation_gap").bounds == (-1, 1)


def test_an_unknown_target_is_told_with_the_nearest_and_all_that_there_are(networks):
    with pytest.raises(TaskError) as error:
        read_targets(networks, "generalization_gap")
    assert str(error.value).startswith(
        f"{networks.zoo.folder}: standard has no target 'generalization_gap' (did you mean "
    )
    assert "'generalisation_gap'?); it has " in str(error.value)
    assert set(NUMBERS) <= set(str(error.value).partition("it has ")[2].split(", "))


def test_the_treatment_is_no_number(networks):
    with pytest.raises(TaskError, match=r"^treatment: is a class, no number; `ZooRows.of\(task"):
        read_targets(networks, "treatment")


def test_what_is_missing_or_not_finite_is_not_a_number(plant_zoo):
    def change(arrays):
        arrays["test_loss"][:3] = [np.inf, -np.inf, np.nan]

    values = read_targets(plant_zoo(change, pairs=8)["standard"], "test_loss")
    assert np.isnan(values).tolist() == [True] * 3 + [False] * 5


def test_targets_of_a_logarithmic_column_are_compared_as_logarithms(networks):
    rates = read_targets(networks, "learning_rate")
    column = describe_target(networks, "learning_rate")
    assert column.scale == "logarithmic"
    assert np.array_equal(to_scale(rates, column), np.log(rates))
    zeros = np.array([0.0, -1.0, np.nan, 1.0])
    assert np.array_equal(to_scale(zeros, column), [np.nan, np.nan, np.nan, 0], equal_nan=True)
    linear = describe_target(networks, "test_accuracy")
    assert np.array_equal(to_scale(zeros, linear), zeros, equal_nan=True)
