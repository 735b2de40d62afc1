import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from metanets import metrics, training
from metanets.inputs import Examples, read_zoo
from metanets.models import MODELS
from metanets.training import Settings, evaluate_model, train
from tests.metanets.conftest import TREATMENTS
from zoo.errors import TaskError

FEW = Settings(epochs=5, batch_size=16)
MODEL = pytest.mark.parametrize("model", MODELS)


@pytest.fixture(autouse=True)
def rough_intervals(monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 40)


@MODEL
def test_predictions_do_not_depend_on_test_targets(planted_zoo, monkeypatch, model):
    def permuted(*arguments, **options):
        splits = read_zoo(*arguments, **options)
        test = splits["test"]
        return splits | {"test": replace(test, y=test.y.flip(0))}

    original = evaluate_model(planted_zoo, "standard", model, seeds=2, settings=FEW)
    monkeypatch.setattr(training, "read_zoo", permuted)
    changed = evaluate_model(planted_zoo, "standard", model, seeds=2, settings=FEW)
    assert changed.true == original.true[::-1]
    assert changed.predicted == original.predicted
    assert changed.r2 != original.r2


def test_the_epoch_is_the_one_best_on_validation_the_start_included(planted_zoo):
    splits = read_zoo(planted_zoo, "standard", "rows")
    examples, validation = splits["train"], splits["validation"]
    contrary = replace(validation, y=2 * validation.y.mean() - validation.y)
    linear = MODELS["linear"]
    start, learned = (train(linear, examples, v, FEW, 0)(validation.x) for v in (contrary, validation))
    torch.testing.assert_close(start, examples.y.mean().expand_as(start))
    assert learned.std() > 0.001


def test_an_epoch_between_first_and_last_can_be_the_best():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(80, 40)).astype(np.float32))
    y = x[:, 0] + torch.from_numpy(rng.normal(size=80).astype(np.float32))
    examples, validation = Examples(x[:40], y[:40]), Examples(x[40:], y[40:])
    scores = []

    class Watched(MODELS["mlp"]):
        def forward(self, x):
            predicted = super().forward(x)
            if not torch.is_grad_enabled():
                y = predicted * examples.y.std() + examples.y.mean()
                scores.append(float(((y - validation.y) ** 2).mean()))
            return predicted

    kept = train(Watched, examples, validation, Settings(epochs=20, learning_rate=1e-2), 0)(validation.x)
    assert len(scores) == 1 + 20 + 1
    assert scores[-1] == min(scores)
    assert min(scores) < min(scores[0], scores[-2]) - 1e-3
    assert float(((kept - validation.y) ** 2).mean()) == pytest.approx(min(scores))


@MODEL
def test_same_seed_same_predictions_and_every_seed_its_own(planted_zoo, model):
    first, second = (evaluate_model(planted_zoo, "standard", model, seeds=2, settings=FEW) for _ in range(2))
    assert first.predicted == second.predicted
    assert first.predicted[0] != first.predicted[1]
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_the_mean_of_the_training_networks_explains_nothing(planted_zoo, treatment):
    result = evaluate_model(planted_zoo, treatment, "mean", seeds=2)
    train_split = planted_zoo.index(treatment, "train")
    mean = planted_zoo.field(treatment, "metrics/test_accuracy")[train_split].mean()
    assert np.allclose(result.predicted, mean, atol=1e-5)
    assert result.r2.mean <= 0
    assert result.r2.high <= 0
    assert result.kendall_tau == (0, 0, 0)
    assert result.parameters == 0


@pytest.mark.parametrize("treatment", TREATMENTS)
@pytest.mark.parametrize("task", ["test_accuracy", "test_loss"])
def test_linear_finds_a_linear_function_of_the_weights(planted_zoo, treatment, task):
    result = evaluate_model(planted_zoo, treatment, "linear", task=task, seeds=2, settings=Settings(learning_rate=1e-3))
    assert result.r2.low > 0.8
    assert result.kendall_tau.low > 0.8
    assert result.parameters == int(planted_zoo.treated(treatment).trainable.sum()) + 1


def test_weights_that_say_nothing_predict_nothing(plant_zoo):
    def change(arrays):
        rng = np.random.default_rng(0)
        for split in ("train", "validation", "test"):
            where = np.flatnonzero(arrays["split"] == split)
            arrays["metrics/test_accuracy"][where] = arrays["metrics/test_accuracy"][rng.permutation(where)]

    result = evaluate_model(plant_zoo(change), "standard", "linear", seeds=2, settings=Settings(learning_rate=1e-3))
    assert result.r2.mean < 0.1
    assert result.kendall_tau.low <= 0 <= result.kendall_tau.high


def test_global_random_states_are_neither_read_nor_moved(planted_zoo):
    def predict():
        return evaluate_model(planted_zoo, "standard", "mlp", seeds=1, settings=FEW).predicted

    torch.manual_seed(1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = predict()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    torch.manual_seed(2)
    assert predict() == first


def test_a_result_says_what_was_measured_and_is_json(planted_zoo):
    calls = []
    result = evaluate_model(
        planted_zoo, "w_asymmetric", "statnn", seeds=2, settings=FEW, progress=lambda: calls.append(1)
    )
    values = json.loads(json.dumps(result.to_json(), allow_nan=False))
    sizes = {split: len(planted_zoo.index("w_asymmetric", split)) for split in ("train", "validation", "test")}
    assert values["networks"] == sizes
    assert np.shape(values["predicted"]) == (2, sizes["test"])
    assert values["zoo"] == {"name": planted_zoo.recipe.name, "digest": planted_zoo.recipe.digest}
    assert values["settings"]["epochs"] == 5
    assert values["r2"].keys() == {"mean", "low", "high"}
    assert len(calls) == 2


@pytest.mark.parametrize(("wrong", "meant"), [("statn", " (did you mean 'statnn'?)"), ("transformer", "")])
def test_an_unknown_model_is_named_with_the_nearest_known(planted_zoo, wrong, meant):
    with pytest.raises(TaskError) as error:
        evaluate_model(planted_zoo, "standard", wrong)
    assert str(error.value) == f"model: no metanetwork {wrong!r}{meant}; there are mean, {', '.join(MODELS)}"
