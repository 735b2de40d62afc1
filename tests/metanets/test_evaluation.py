import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from sklearn.metrics import r2_score

from metanets import metrics
from metanets.evaluation import evaluate_model
from metanets.models import MODELS
from metanets.settings import Settings
from tests.conftest import PLANTED as TREATMENTS
from zoo import statistics
from zoo.errors import TaskError, ZooError

FEW = Settings(epochs=5, batch_size=16)
MODEL = pytest.mark.parametrize("model", ["linear", "mlp", "statnn"])
TREATMENT = pytest.mark.parametrize("treatment", TREATMENTS)


@pytest.fixture(autouse=True)
def rough_intervals(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 40)


def evaluate(*arguments, **options):
    return evaluate_model(*arguments, **{"seeds": 2, "settings": FEW} | options)[0]


@MODEL
def test_predictions_do_not_depend_on_test_targets(plant_zoo, planted_zoo, model):
    def change(arrays):
        test = arrays["split"] == "test"
        arrays["test_accuracy"][test] = arrays["test_accuracy"][test][::-1]

    original, changed = (evaluate(zoo, "standard", model) for zoo in (planted_zoo, plant_zoo(change)))
    assert changed.true == original.true[::-1]
    assert changed.predicted == original.predicted
    assert changed.metrics["r2"] != original.metrics["r2"]


@MODEL
def test_same_seed_same_predictions_and_every_seed_its_own(planted_zoo, model):
    first, second = (evaluate(planted_zoo, "standard", model) for _ in range(2))
    assert first.predicted[0] != first.predicted[1]
    assert replace(first, seconds={}) == replace(second, seconds={})


@MODEL
@TREATMENT
def test_predictions_are_those_of_the_metanetworks_that_come_with_them(planted_zoo, treatment, model):
    result, metanets = evaluate_model(planted_zoo, treatment, model, seeds=2, settings=FEW)
    rows = planted_zoo.rows(treatment, planted_zoo.index(treatment, "test"))
    predicted = torch.stack([metanet.predict(rows) for metanet in metanets])
    assert np.allclose(result.predicted, predicted, atol=1e-4)
    assert result.parameters == sum(p.numel() for p in metanets[0].predictor.network.parameters())


def test_metrics_are_those_of_scipy_and_scikit_learn(planted_zoo):
    result = evaluate(planted_zoo, "standard", "linear")
    true, predicted = np.array(result.true), np.array(result.predicted)
    good = true > np.median(true)
    expected = {
        "r2": [r2_score(true, p) for p in predicted],
        "kendall_tau": [kendalltau(true, p).statistic for p in predicted],
        "kendall_tau_of_good": [kendalltau(true[good], p[good]).statistic for p in predicted],
        "rmse": [np.sqrt(np.mean((true - p) ** 2)) for p in predicted],
    }
    for name, values in expected.items():
        assert result.metrics[name].mean == pytest.approx(np.mean(values), abs=1e-3)
    assert result.metrics.keys() == expected.keys()


@TREATMENT
def test_the_mean_of_the_training_networks_explains_nothing(planted_zoo, treatment):
    result, metanets = evaluate_model(planted_zoo, treatment, "mean", seeds=2)
    train_split = planted_zoo.index(treatment, "train")
    mean = planted_zoo.field(treatment, "test_accuracy")[train_split].mean()
    assert np.allclose(result.predicted, mean, atol=1e-4)
    assert result.metrics["r2"].mean <= 0
    assert result.metrics["r2"].high <= 0
    assert result.metrics["kendall_tau"] == (0, 0, 0)
    assert (result.parameters, result.seconds, metanets) == (0, {}, [])


def test_hyperparameters_are_told_instead_of_weights(plant_zoo):
    def change(arrays):
        rng = np.random.default_rng(0)
        rate = arrays["learning_rate"] = rng.uniform(size=len(arrays["pair"]))
        arrays["epochs"] = rng.integers(1, 9, len(arrays["pair"]))
        arrays["test_accuracy"] = (0.3 + 0.4 * (rate > 0.6)).astype(np.float32)

    zoo = plant_zoo(change)
    result, metanets = evaluate_model(zoo, "standard", "hyperparameters", seeds=2)
    assert result.metrics["r2"].low > 0.8
    assert np.shape(result.predicted) == (2, len(zoo.index("standard", "test")))
    assert (result.parameters, result.seconds, metanets) == (0, {}, [])
    assert evaluate(zoo, "standard", "linear").metrics["r2"].mean < 0.5


@TREATMENT
@pytest.mark.parametrize("task", ["test_accuracy", "test_loss"])
def test_linear_finds_a_linear_function_of_the_weights(planted_zoo, treatment, task):
    settings = Settings(epochs=60, learning_rate=1e-3)
    result = evaluate(planted_zoo, treatment, "linear", task=task, settings=settings)
    assert result.metrics["r2"].low > 0.8
    assert result.metrics["kendall_tau"].low > 0.8
    assert result.parameters == int(planted_zoo.treated(treatment).trainable.sum()) + 1


def test_weights_that_say_nothing_predict_nothing(plant_zoo):
    def change(arrays):
        rng = np.random.default_rng(0)
        for split in ("train", "validation", "test"):
            where = np.flatnonzero(arrays["split"] == split)
            arrays["test_accuracy"][where] = arrays["test_accuracy"][rng.permutation(where)]

    result = evaluate(plant_zoo(change), "standard", "linear", settings=Settings(epochs=60, learning_rate=1e-3))
    assert result.metrics["r2"].mean < 0.1
    assert result.metrics["kendall_tau"].low <= 0 <= result.metrics["kendall_tau"].high


def test_fewer_training_networks_are_counted_and_the_others_not_looked_at(plant_zoo, planted_zoo):
    def change(arrays):
        late = np.flatnonzero(arrays["split"] == "train")[20:]
        arrays["weights"][late] *= 1.01
        arrays["test_accuracy"][late] += 0.1

    few = evaluate(planted_zoo, "standard", "linear", train_networks=20, settings=Settings(epochs=60))
    assert few.networks == {split: len(planted_zoo.index("standard", split)) for split in few.networks} | {"train": 20}
    all_ = evaluate(planted_zoo, "standard", "linear", settings=Settings(epochs=60))
    assert few.metrics["r2"].mean < all_.metrics["r2"].mean
    floors = [
        evaluate(zoo, "standard", "mean", train_networks=20).predicted for zoo in (planted_zoo, plant_zoo(change))
    ]
    assert floors[0] == floors[1]


def test_a_metanetwork_can_be_tested_on_the_networks_of_another_treatment(planted_zoo):
    result, metanets = evaluate_model(planted_zoo, "standard", "mlp", seeds=2, settings=FEW, test_on="w_asymmetric")
    assert (result.treatment, result.tested_on) == ("standard", "w_asymmetric")
    index = planted_zoo.index("w_asymmetric", "test")
    true = planted_zoo.field("w_asymmetric", "test_accuracy")[index]
    assert np.allclose(result.true, true, atol=1e-4)
    predicted = metanets[1].predict(planted_zoo.rows("w_asymmetric", index))
    assert np.allclose(result.predicted[1], predicted, atol=1e-4)
    assert result.predicted != evaluate(planted_zoo, "standard", "mlp", fixed=True).predicted


def test_testing_on_a_treatment_without_test_networks_is_one_clear_error(plant_zoo):
    def change(arrays):
        if arrays["weights"].std(0).min() == 0:  # the treatment with fixed entries
            arrays["status"][arrays["split"] == "test"] = "diverged"

    zoo = plant_zoo(change)
    assert not len(zoo.index("w_asymmetric", "test"))
    with pytest.raises(TaskError, match="w_asymmetric has 0 networks in its test split"):
        evaluate(zoo, "standard", "mlp", test_on="w_asymmetric")
    with pytest.raises(TaskError, match="w_asymmetric has 0 networks in its test split"):
        evaluate(zoo, "w_asymmetric", "mean")


def test_a_result_says_what_was_measured_and_is_json(planted_zoo):
    calls = []
    result = evaluate(planted_zoo, "w_asymmetric", "statnn", progress=calls.append)
    values = json.loads(json.dumps(result.to_json(), allow_nan=False))
    sizes = {split: len(planted_zoo.index("w_asymmetric", split)) for split in ("train", "validation", "test")}
    assert values["networks"] == sizes
    assert np.shape(values["predicted"]) == (2, sizes["test"])
    assert values["zoo"] == planted_zoo.origin
    assert values["settings"]["epochs"] == 5
    assert values["metrics"].keys() == metrics.METRICS.keys()
    assert all(metric.keys() == {"mean", "low", "high"} for metric in values["metrics"].values())
    assert 0 < values["seconds"]["epoch"] < values["seconds"]["training"]
    assert sum(calls) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "fact"),
    [
        (
            ("standard", "statn"),
            TaskError,
            "no metanetwork 'statn' (did you mean 'statnn'?); there are mean, hyperparameters, linear",
        ),
        (
            ("standard", "oracle"),
            TaskError,
            f"no metanetwork 'oracle'; there are mean, hyperparameters, {', '.join(MODELS)}",
        ),
        (("syre", "mean"), ZooError, "it has standard, w_asymmetric"),
        (("syre", "mlp"), ZooError, "it has standard, w_asymmetric"),
    ],
)
def test_unknown_models_and_treatments_are_named(planted_zoo, arguments, error, fact):
    with pytest.raises(error) as caught:
        evaluate_model(planted_zoo, *arguments)
    assert fact in str(caught.value)
