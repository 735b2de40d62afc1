import inspect

import numpy as np
import pytest
from torch import nn

from metanets.metrics import kendall_tau, r2, selection_score
from metanets.models import MODELS
from metanets.settings import Settings
from metanets.training import train
from metanets.tuning import SPACE, tune
from tests.metanets.scenarios import CLASSES, STANDARD, Mean, ask
from zoo.errors import TaskError

FEW = Settings(epochs=4, batch_size=32)


def search(zoo, model="linear", task=STANDARD, **options):
    return tune(task, zoo, model, **{"settings": FEW} | options)


def test_a_search_ignores_test_networks(plant_zoo, planted_zoo):
    def change(arrays):
        test = arrays["split"] == "test"
        arrays["weights"][test] *= -3
        arrays["test_accuracy"][test] = arrays["test_accuracy"][test][::-1]

    original, changed = (search(zoo, trials=4) for zoo in (planted_zoo, plant_zoo(change)))
    assert changed == original


def test_a_search_depends_on_validation_networks(plant_zoo, planted_zoo):
    def change(arrays):
        validation = arrays["split"] == "validation"
        arrays["test_accuracy"][validation] = 1 - arrays["test_accuracy"][validation]

    original, changed = (search(zoo, trials=4) for zoo in (planted_zoo, plant_zoo(change)))
    assert changed != original


@pytest.mark.parametrize("task", [STANDARD, CLASSES], ids=["number", "classes"])
def test_trials_differ_begin_with_the_present_settings_and_come_best_first(planted_zoo, task):
    calls = []
    found = search(planted_zoo, task=task, trials=6, progress=calls.append)
    assert calls == [1] * 6
    assert FEW in [trial.settings for trial in found]
    assert len(found) == len({tuple(getattr(t.settings, name) for name in SPACE) for t in found}) == 6
    assert [trial.score for trial in found] == sorted((trial.score for trial in found), reverse=True)
    assert found[0].score > found[-1].score
    for trial in found:
        assert trial.settings == FEW or all(getattr(trial.settings, name) in values for name, values in SPACE.items())
        assert trial.settings.epochs == FEW.epochs


def test_the_present_settings_are_by_default_the_metanetwork_s_own(planted_zoo):
    (trial,) = tune(STANDARD, planted_zoo, Mean, trials=1)
    assert trial.settings == Mean.settings


def test_a_search_of_all_trials_and_more_tries_the_whole_grid_once(planted_zoo, monkeypatch):
    monkeypatch.setattr("metanets.tuning.SPACE", {"learning_rate": (1e-3, 1e-2), "weight_decay": (0.0, 0.1)})
    monkeypatch.setattr(MODELS["statnn"], "choices", {"hidden": (4, 8)})
    found = search(planted_zoo, "statnn", trials=19)
    assert len(found) == 1 + 8
    assert {trial.settings.options.get("hidden") for trial in found} == {None, 4, 8}


def test_a_search_for_trees_tries_the_trees_alone(planted_zoo, monkeypatch):
    monkeypatch.setattr(MODELS["boosted"], "choices", {"trees": (2, 4)})
    found = search(planted_zoo, "boosted", trials=9)
    assert sorted(trial.settings.options.get("trees", 1000) for trial in found) == [2, 4, 1000]
    assert {trial.settings.learning_rate for trial in found} == {FEW.learning_rate}


def test_a_search_for_a_class_of_a_users_own_tries_its_choices(planted_zoo, monkeypatch):
    monkeypatch.setattr("metanets.tuning.SPACE", {"learning_rate": (1e-2,)})
    found = search(planted_zoo, Mean, trials=9)
    assert sorted(trial.settings.options.get("width", 4) for trial in found) == [1, 2, 4]


def test_a_search_for_a_module_leaves_its_options_and_itself_alone(planted_zoo):
    module = nn.Linear(planted_zoo.shared("standard").layout.size, 1)
    before = module.weight.clone()
    found = search(planted_zoo, module, trials=3)
    assert {tuple(trial.settings.options) for trial in found} == {()}
    assert len({trial.settings.learning_rate for trial in found}) > 1
    assert (module.weight == before).all()


@pytest.mark.parametrize("model", MODELS)
def test_choices_are_arguments_of_the_metanetwork(model):
    assert MODELS[model].choices.keys() <= inspect.signature(MODELS[model].__init__).parameters.keys()


@pytest.mark.parametrize("target", ["test_accuracy", "learning_rate"])
def test_a_trial_has_the_validation_metrics_of_its_settings(planted_zoo, target):
    task = ask(target=target)
    (trial,) = search(planted_zoo, "statnn", task, trials=1)
    (metanet,) = train(task, planted_zoo, "statnn", settings=trial.settings)
    networks = planted_zoo["standard"].split("validation")
    true, predicted = networks[target], metanet.predict(networks).double().numpy()
    if target == "learning_rate":
        true, predicted = np.log(true), np.log(predicted)
    assert trial.metrics["r2"] == pytest.approx(r2(true, predicted), abs=1e-4)
    assert trial.metrics["kendall_tau"] == pytest.approx(kendall_tau(true, predicted), abs=1e-5)
    assert trial.score == pytest.approx(selection_score(true, predicted), abs=1e-4)


def test_a_task_is_taken_by_its_path(planted_zoo, tmp_path):
    path = tmp_path / "task.toml"
    path.write_text('recipe = "small"\nlearn_from = "standard"\n')
    assert search(planted_zoo, task=path, trials=2) == search(planted_zoo, trials=2)


def test_an_unknown_model_and_one_that_the_task_does_not_allow_are_refused(planted_zoo):
    with pytest.raises(TaskError, match="no metanetwork 'statn'"):
        search(planted_zoo, "statn")
    with pytest.raises(TaskError, match=r"Curious: uses weights\+data"):
        search(planted_zoo, type("Curious", (Mean,), {"access": "weights+data"}))
