import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from sklearn.metrics import accuracy_score, log_loss, r2_score
from torch import nn

from metanets import metrics
from metanets.evaluation import Result, evaluate
from metanets.identity import identify
from metanets.models import MODELS
from metanets.selection import select, select_all
from metanets.settings import Settings
from metanets.training import train
from tests.conftest import PLANTED
from tests.metanets.scenarios import BRIEF, CLASSES, LONG, STANDARD, Mean, ask, measure
from zoo.errors import TaskError, ZooError
from zoo.store.columns import SPLITS

MODEL = pytest.mark.parametrize("model", ["linear", "mlp", "statnn"])
TREATMENT = pytest.mark.parametrize("treatment", PLANTED)


pytestmark = pytest.mark.usefixtures("rough_intervals")


@MODEL
def test_predictions_do_not_depend_on_test_targets(plant_zoo, planted_zoo, model):
    def change(arrays):
        test = arrays["split"] == "test"
        arrays["test_accuracy"][test] = arrays["test_accuracy"][test][::-1]

    original, changed = (measure(zoo, STANDARD, model) for zoo in (planted_zoo, plant_zoo(change)))
    assert changed.true == original.true[::-1]
    assert changed.predicted == original.predicted
    assert changed.metrics["r2"] != original.metrics["r2"]


@MODEL
def test_same_seed_same_predictions_and_every_seed_its_own(planted_zoo, model):
    first, second = (measure(planted_zoo, STANDARD, model) for _ in range(2))
    assert first.predicted[0] != first.predicted[1]
    assert replace(first, seconds={}) == replace(second, seconds={})


@pytest.mark.parametrize(
    ("task", "model"),
    [(STANDARD, "mlp"), (ask("w_asymmetric"), "linear"), (ask(target="learning_rate"), "statnn"), (CLASSES, "mlp")],
)
def test_predictions_are_those_of_the_metanetworks_and_these_can_be_given(planted_zoo, task, model):
    metanets = train(task, planted_zoo, model, seeds=2, settings=BRIEF)
    result, given = (measure(planted_zoo, task, each) for each in (model, metanets))
    found = select(task, planted_zoo, "test")
    predicted = torch.stack([metanet.predict(found) for metanet in metanets])
    assert np.allclose(result.predicted, predicted, rtol=1e-3, atol=1e-4)
    assert result.parameters == sum(p.numel() for p in metanets[0].module.parameters())
    assert replace(given, seconds={}) == replace(result, seconds={})
    assert given.seconds.keys() == result.seconds.keys()


def test_metrics_are_those_of_scipy_and_scikit_learn(planted_zoo):
    result = measure(planted_zoo, STANDARD, "linear")
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
    assert result.score == result.metrics["kendall_tau"]
    assert measure(planted_zoo, ask(metric="rmse"), "linear").score.mean == pytest.approx(result.metrics["rmse"].mean)


def test_metrics_of_classes_are_those_of_scikit_learn(planted_zoo):
    result = measure(planted_zoo, CLASSES, "statnn")
    predicted = np.array(result.predicted)
    assert predicted.shape == (2, len(result.true), 2)
    assert {*result.true} == {0, 1}
    expected = [accuracy_score(result.true, p.argmax(1)) for p in predicted]
    assert result.metrics["accuracy"].mean == pytest.approx(np.mean(expected))
    expected = [log_loss(result.true, p / p.sum(1, keepdims=True)) for p in predicted]
    assert result.metrics["log_loss"].mean == pytest.approx(np.mean(expected), abs=1e-3)
    assert result.score == result.metrics["accuracy"]


def test_targets_of_a_logarithm_are_scored_as_logarithms_and_told_in_their_units(planted_zoo):
    result = measure(planted_zoo, ask(target="learning_rate"), "linear", settings=LONG)
    rates = planted_zoo["standard"].split("test")["learning_rate"]
    assert np.allclose(result.true, rates, rtol=1e-3)
    expected = [r2_score(np.log(rates), np.log(p)) for p in result.predicted]
    assert result.metrics["r2"].mean == pytest.approx(np.mean(expected), abs=1e-2)
    assert result.metrics["r2"].mean > 0.7


@TREATMENT
@pytest.mark.parametrize("target", ["test_accuracy", "test_loss"])
def test_linear_finds_a_linear_function_of_the_weights(planted_zoo, treatment, target):
    result = measure(planted_zoo, ask(treatment, target=target), "linear", settings=LONG)
    assert result.metrics["r2"].low > 0.8
    assert result.metrics["kendall_tau"].low > 0.8
    assert result.parameters == int(planted_zoo.shared(treatment).mask.sum()) + 1


def test_weights_that_say_nothing_predict_nothing(plant_zoo):
    def change(arrays):
        rng = np.random.default_rng(0)
        for split in SPLITS:
            where = np.flatnonzero(arrays["split"] == split)
            arrays["test_accuracy"][where] = arrays["test_accuracy"][rng.permutation(where)]

    result = measure(plant_zoo(change), STANDARD, "linear", settings=LONG)
    assert result.metrics["r2"].mean < 0.1
    tau = result.metrics["kendall_tau"]
    assert tau.mean == 0 if tau.low is None else tau.low <= 0 <= tau.high


def test_fewer_training_networks_are_counted_and_the_others_not_looked_at(plant_zoo, planted_zoo):
    def change(arrays):
        late = np.flatnonzero(arrays["split"] == "train")[20:]
        arrays["weights"][late] *= 1.01
        arrays["test_accuracy"][late] += 0.1

    task, settings = ask(max_train=20), Settings(epochs=60)
    few = measure(planted_zoo, task, "linear", settings=settings)
    assert few.networks == {split: len(planted_zoo["standard"].split(split)) for split in SPLITS} | {"train": 20}
    all_ = measure(planted_zoo, STANDARD, "linear", settings=settings)
    assert few.metrics["r2"].mean < all_.metrics["r2"].mean
    floors = [measure(zoo, task, "mean").predicted for zoo in (planted_zoo, plant_zoo(change))]
    assert floors[0] == floors[1]


def test_a_metanetwork_can_be_tested_on_the_networks_of_another_treatment(planted_zoo):
    task = ask(test_on="w_asymmetric")
    metanets = train(task, planted_zoo, "mlp", seeds=2, settings=BRIEF)
    result = measure(planted_zoo, task, metanets)
    assert (result.treatment, result.tested_on) == ("standard", "w_asymmetric")
    networks = planted_zoo["w_asymmetric"].split("test")
    assert np.allclose(result.true, networks["test_accuracy"], atol=1e-4)
    assert np.allclose(result.predicted[1], metanets[1].predict(networks), atol=1e-4)
    include_fixed = BRIEF.model_copy(update={"include_fixed": True})
    assert result.predicted != measure(planted_zoo, STANDARD, "mlp", settings=include_fixed).predicted


def test_a_metanetwork_can_be_tested_on_another_zoo(planted_zoo, other_zoo):
    task = ask(test_recipe="other", test_on="syre")
    metanets = train(task, planted_zoo, "statnn", seeds=2, settings=BRIEF)
    result = measure(planted_zoo, task, metanets, test_zoo=other_zoo)
    networks = other_zoo["syre"].split("test")
    assert result.pairs == networks.pairs.tolist()
    assert np.allclose(result.predicted[0], metanets[0].predict(networks), atol=1e-4)
    assert result.data.test_recipe == other_zoo.digest(["syre"])
    assert measure(planted_zoo, task, "mean", test_zoo=other_zoo).metrics["kendall_tau"].mean == 0


def test_permuted_test_networks_are_predicted_alike_by_what_sees_no_order_alone(planted_zoo):
    for model, alike in (("statnn", True), ("mlp", False)):
        plain, permuted = (measure(planted_zoo, ask(permuted=each), model).predicted for each in (False, True))
        assert np.allclose(plain, permuted, atol=1e-3) == alike


def test_testing_on_a_treatment_without_test_networks_is_one_clear_error(plant_zoo):
    def change(arrays):
        if arrays["weights"].std(0).min() == 0:  # the treatment with fixed entries
            arrays["status"][arrays["split"] == "test"] = "diverged"

    zoo = plant_zoo(change)
    assert not len(zoo["w_asymmetric"].split("test"))
    for task, model in ((ask(test_on="w_asymmetric"), "mlp"), (ask("w_asymmetric"), "mean")):
        with pytest.raises(TaskError, match="w_asymmetric has 0 networks with a test_accuracy in its test split"):
            measure(zoo, task, model)


@pytest.mark.filterwarnings("ignore:.*are left out:UserWarning")
@pytest.mark.parametrize("model", ["mean", "hyperparameters", "statnn", "boosted"])
def test_networks_without_a_target_are_left_out_by_every_side(gappy_zoo, model):
    result = measure(gappy_zoo, ask(target="test_loss"), model, seeds=1)
    assert result.networks == {split: len(gappy_zoo["standard"].split(split)) - 3 for split in SPLITS}
    assert np.isfinite(result.predicted).all()
    assert np.isfinite([result.metrics["r2"].mean, result.metrics["rmse"].mean]).all()


@pytest.mark.filterwarnings("ignore:.*are left out:UserWarning")
@pytest.mark.parametrize("model", ["mean", "hyperparameters", "statnn", "boosted"])
@pytest.mark.parametrize(
    ("value", "fact"), [(np.nan, "has 0 networks with a test_loss"), (0.5, "have the same test_loss")]
)
def test_targets_that_are_all_missing_or_all_the_same_are_one_clear_error(plant_zoo, model, value, fact):
    zoo = plant_zoo(lambda arrays: arrays["test_loss"].fill(value), pairs=24)
    with pytest.raises(TaskError, match=fact):
        measure(zoo, ask(target="test_loss"), model)


def test_a_result_says_what_was_measured_and_is_json(planted_zoo):
    calls, task = [], ask("w_asymmetric")
    result = measure(planted_zoo, task, "statnn", progress=calls.append)
    values = json.loads(json.dumps(result.to_json(), allow_nan=False))
    sizes = {split: len(planted_zoo["w_asymmetric"].split(split)) for split in SPLITS}
    assert values["networks"] == sizes
    assert np.shape(values["predicted"]) == (2, sizes["test"])
    assert values["task"] == task.model_dump(mode="json")
    found = select_all(task, planted_zoo)
    assert values["data"] == identify(task, planted_zoo, found=found).model_dump()
    assert values["settings"]["epochs"] == 5
    assert values["pairs"] == found["test"].pairs.tolist()
    assert values["metrics"].keys() == metrics.METRICS.keys()
    assert values["metrics"]["r2"]["varies"] == "test networks"  # two trainings say too little of how much they vary
    assert values["metrics"]["r2"]["n"] == sizes["test"]
    assert 0 < values["seconds"]["epoch"] < values["seconds"]["training"]
    assert sum(calls) == 2
    assert isinstance(result, Result)


@pytest.mark.parametrize("model", ["statnn", "mean"])
def test_a_result_of_classes_is_json(planted_zoo, model):
    values = json.loads(json.dumps(measure(planted_zoo, CLASSES, model).to_json(), allow_nan=False))
    assert values["metrics"].keys() == metrics.CLASS_METRICS.keys()
    assert {*values["true"]} == {0, 1}


def test_classes_and_modules_of_a_users_own_are_evaluated(planted_zoo):
    result = measure(planted_zoo, STANDARD, Mean)
    assert (result.model, result.seeds) == ("tests.metanets.scenarios:Mean", 2)
    module = nn.Linear(planted_zoo.shared("standard").layout.size, 1)
    flat = measure(planted_zoo, STANDARD, module, settings=LONG)
    assert flat.metrics["r2"].low > 0.5


def test_a_metanetwork_is_measured_on_what_it_was_trained_for_alone(planted_zoo):
    metanets = train(STANDARD, planted_zoo, "linear", settings=BRIEF)
    with pytest.raises(
        TaskError, match=r"predicts test_accuracy, but the task small/standard/test_loss asks for test_los"
    ):
        measure(planted_zoo, ask(target="test_loss"), metanets)
    told = train(CLASSES, planted_zoo, "statnn", settings=BRIEF)
    with pytest.raises(TaskError, match="tells other treatments apart than w_asymmetric and standard of"):
        measure(planted_zoo, ask(PLANTED[::-1], target="treatment"), told)
    curious = type("Curious", (Mean,), {"access": "weights+function"})
    given = train(ask(access="weights+function"), planted_zoo, curious, settings=BRIEF)
    with pytest.raises(TaskError, match=r"Curious: uses weights\+function, but the task .* allows weights$"):
        measure(planted_zoo, STANDARD, given)


def test_a_task_pinned_to_other_data_is_refused(planted_zoo, plant_zoo):
    found = identify(STANDARD, planted_zoo, found=select_all(STANDARD, planted_zoo)).model_dump()
    assert measure(planted_zoo, ask(data=found), "linear").data.model_dump() == found
    changed = plant_zoo(lambda arrays: arrays["test_accuracy"].__setitem__(0, 0.7))
    with pytest.raises(TaskError, match="labels of the zoo is"):
        measure(changed, ask(data=found), "mean")


def test_a_task_is_taken_by_its_path(planted_zoo, tmp_path):
    path = tmp_path / "task.toml"
    path.write_text('recipe = "small"\nlearn_from = "standard"\n')
    assert measure(planted_zoo, path, "mean") == measure(planted_zoo, STANDARD, "mean")


@pytest.mark.parametrize(
    ("treatment", "model", "error", "fact"),
    [
        (
            "standard",
            "statn",
            TaskError,
            "no metanetwork 'statn' (did you mean 'statnn'?); there are mean, hyperparameters, linear",
        ),
        (
            "standard",
            "oracle",
            TaskError,
            f"no metanetwork 'oracle'; there are mean, hyperparameters, {', '.join(MODELS)}",
        ),
        ("syre", "mean", ZooError, "it has standard, w_asymmetric"),
        ("syre", "mlp", ZooError, "it has standard, w_asymmetric"),
    ],
)
def test_unknown_models_and_treatments_are_named(planted_zoo, treatment, model, error, fact):
    with pytest.raises(error) as caught:
        evaluate(ask(treatment), planted_zoo, model)
    assert fact in str(caught.value)
