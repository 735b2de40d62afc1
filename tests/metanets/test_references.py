import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from tests.conftest import PLANTED
from tests.metanets.scenarios import CLASSES, STANDARD, ask, measure

TREATMENT = pytest.mark.parametrize("treatment", PLANTED)


pytestmark = pytest.mark.usefixtures("rough_intervals")


@TREATMENT
def test_the_mean_of_the_training_networks_explains_nothing(planted_zoo, treatment):
    result = measure(planted_zoo, ask(treatment), "mean")
    mean = planted_zoo[treatment].split("train")["test_accuracy"].mean()
    assert np.allclose(result.predicted, mean, atol=1e-4)
    assert result.metrics["r2"].mean <= 0
    assert result.metrics["r2"].high <= 0
    assert str(result.metrics["kendall_tau"]) == "0.000"
    assert (result.parameters, result.seconds) == (0, {})


def test_the_mean_of_classes_is_their_fractions_in_the_training_networks(planted_zoo):
    result = measure(planted_zoo, CLASSES, "mean")
    assert np.shape(result.predicted) == (2, len(result.true), 2)
    assert np.allclose(result.predicted, 0.5)
    assert result.metrics["accuracy"].mean == 0.5
    assert result.metrics["log_loss"].mean == pytest.approx(np.log(2), abs=1e-4)


def draw_accuracy_by_rate(arrays):
    rng = np.random.default_rng(0)
    rate = arrays["learning_rate"] = rng.uniform(size=len(arrays["pair"]))
    arrays["test_accuracy"] = (0.3 + 0.4 * (rate > 0.6)).astype(np.float32)


def test_hyperparameters_are_told_instead_of_weights(plant_zoo):
    zoo = plant_zoo(draw_accuracy_by_rate)
    result = measure(zoo, STANDARD, "hyperparameters")
    assert result.metrics["r2"].low > 0.8
    assert np.shape(result.predicted) == (2, len(zoo["standard"].split("test")))
    assert (result.parameters, result.seconds) == (0, {})
    assert measure(zoo, STANDARD, "linear").metrics["r2"].mean < 0.5


def test_hyperparameters_are_told_without_the_one_that_is_asked_for(planted_zoo, plant_zoo):
    leaky = measure(planted_zoo, STANDARD, "hyperparameters")
    assert leaky.metrics["r2"].mean > 0.5  # accuracy follows the learning rate
    for target in ("learning_rate", "epochs"):
        assert measure(planted_zoo, ask(target=target), "hyperparameters").metrics["r2"].mean < 0.2

    def follow(arrays):
        arrays["epochs"] = 1 + (arrays["learning_rate"] > 0.01).astype(np.int64)

    assert measure(plant_zoo(follow), ask(target="epochs"), "hyperparameters").metrics["r2"].mean > 0.8


def test_hyperparameters_do_not_tell_treatments_apart_nor_anything_where_there_are_none(planted_zoo, plant_zoo):
    assert measure(planted_zoo, CLASSES, "hyperparameters").metrics["accuracy"].mean == pytest.approx(0.5, abs=0.2)

    def forget(arrays):
        del arrays["learning_rate"]

    alone = measure(plant_zoo(forget), ask(target="epochs"), "hyperparameters")
    assert np.allclose(alone.predicted, np.mean(alone.predicted), atol=1e-3)


def test_hyperparameters_that_both_zoos_know_are_told(planted_zoo, plant_zoo):
    def forget(arrays):
        del arrays["epochs"]

    other = plant_zoo(forget, name="other")
    result = measure(planted_zoo, ask(test_recipe="other"), "hyperparameters", test_zoo=other, seeds=1)
    splits = [planted_zoo["standard"].split(split) for split in ("train", "validation")]
    x = [networks["learning_rate"][:, None] for networks in splits]
    trees = HistGradientBoostingRegressor(
        learning_rate=0.03,
        max_iter=1000,
        max_leaf_nodes=16,
        min_samples_leaf=10,
        max_features=0.3,
        early_stopping=True,
        n_iter_no_change=50,
        random_state=0,
    )
    y = [networks["test_accuracy"] for networks in splits]
    trees.fit(x[0], y[0], X_val=x[1], y_val=y[1])
    expected = trees.predict(other["standard"].split("test")["learning_rate"][:, None])
    assert np.corrcoef(result.predicted[0], expected)[0, 1] > 0.99
