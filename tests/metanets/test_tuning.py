import inspect
import tomllib

import pytest

from metanets.metanet import train_model
from metanets.metrics import kendall_tau, r2
from metanets.models import MODELS
from metanets.settings import Settings
from metanets.tuning import SPACE, search, to_toml


@pytest.fixture
def few(monkeypatch):
    """Trainings of a few epochs."""
    settings = Settings(epochs=4, batch_size=32)
    monkeypatch.setattr(Settings, "best", classmethod(lambda cls, model, task: settings))
    return settings


def test_a_search_ignores_test_networks(plant_zoo, planted_zoo, few):
    def change(arrays):
        test = arrays["split"] == "test"
        arrays["weights"][test] *= -3
        arrays["test_accuracy"][test] = arrays["test_accuracy"][test][::-1]

    original, changed = (search(zoo, "standard", "linear", trials=4) for zoo in (planted_zoo, plant_zoo(change)))
    assert changed == original


def test_a_search_depends_on_validation_networks(plant_zoo, planted_zoo, few):
    def change(arrays):
        validation = arrays["split"] == "validation"
        arrays["test_accuracy"][validation] = 1 - arrays["test_accuracy"][validation]

    original, changed = (search(zoo, "standard", "linear", trials=4) for zoo in (planted_zoo, plant_zoo(change)))
    assert changed != original


def test_trials_differ_begin_with_the_present_settings_and_come_best_first(planted_zoo, few):
    tried = []
    found = search(planted_zoo, "standard", "linear", trials=6, progress=tried.append)
    assert tried[0].settings == few
    assert len(tried) == len({tuple(getattr(t.settings, name) for name in SPACE) for t in tried}) == 6
    assert found == sorted(tried, key=lambda trial: trial.r2 + trial.kendall_tau, reverse=True)
    assert found[0].score > found[-1].score
    for trial in tried[1:]:
        assert all(getattr(trial.settings, name) in values for name, values in SPACE.items())
        assert trial.settings.epochs == few.epochs


def test_a_search_of_all_trials_and_more_tries_the_whole_grid_once(planted_zoo, few, monkeypatch):
    monkeypatch.setattr("metanets.tuning.SPACE", {"learning_rate": (1e-3, 1e-2), "weight_decay": (0.0, 0.1)})
    monkeypatch.setattr(MODELS["statnn"], "choices", {"hidden": (4, 8)})
    found = search(planted_zoo, "standard", "statnn", trials=19)
    assert len(found) == 1 + 8
    assert {trial.settings.options.get("hidden") for trial in found} == {None, 4, 8}


def test_a_search_for_trees_tries_the_trees_alone(planted_zoo, few, monkeypatch):
    monkeypatch.setattr(MODELS["boosted"], "choices", {"trees": (2, 4)})
    found = search(planted_zoo, "standard", "boosted", trials=9)
    assert sorted(trial.settings.options.get("trees", 1000) for trial in found) == [2, 4, 1000]
    assert {trial.settings.learning_rate for trial in found} == {few.learning_rate}


@pytest.mark.parametrize("model", MODELS)
def test_choices_are_arguments_of_the_metanetwork(model):
    assert MODELS[model].choices.keys() <= inspect.signature(MODELS[model].__init__).parameters.keys()


def test_a_trial_has_the_validation_r2_of_its_settings(planted_zoo, few):
    (trial,) = search(planted_zoo, "standard", "statnn", trials=1)
    (metanet,) = train_model(planted_zoo, "standard", "statnn", settings=trial.settings)
    index = planted_zoo.index("standard", "validation")
    true = planted_zoo.field("standard", "test_accuracy")[index]
    predicted = metanet.predict(planted_zoo.rows("standard", index)).numpy()
    assert trial.r2 == pytest.approx(r2(true, predicted), abs=1e-5)
    assert trial.kendall_tau == pytest.approx(kendall_tau(true, predicted), abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(epochs=300, patience=20, learning_rate=1e-5, schedule="constant", weight_decay=0, clip=0.5),
        Settings(augment="permute", options={"hidden": 32, "rate": 3e-7, "norm": True, "pooling": "mean"}),
        Settings(options={"widths": [8, 16], "inner": {"heads": 2}}),
    ],
)
def test_settings_written_as_toml_are_read_back(settings):
    tables = tomllib.loads(to_toml("test_accuracy", settings))
    assert Settings(**tables["test_accuracy"]) == settings
    assert tables.keys() == {"test_accuracy"}
