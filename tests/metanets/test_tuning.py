import tomllib

import pytest

from metanets.metanet import train_model
from metanets.metrics import r2
from metanets.settings import Settings
from metanets.tuning import LEARNING_RATES, WEIGHT_DECAYS, search, to_toml


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
        arrays["metrics/test_accuracy"][test] = arrays["metrics/test_accuracy"][test][::-1]

    original, changed = (search(zoo, "standard", "linear", trials=4) for zoo in (planted_zoo, plant_zoo(change)))
    assert changed == original


def test_a_search_depends_on_validation_networks(plant_zoo, planted_zoo, few):
    def change(arrays):
        validation = arrays["split"] == "validation"
        arrays["metrics/test_accuracy"][validation] = 1 - arrays["metrics/test_accuracy"][validation]

    original, changed = (search(zoo, "standard", "linear", trials=4) for zoo in (planted_zoo, plant_zoo(change)))
    assert changed != original


def test_trials_differ_begin_with_the_present_settings_and_come_best_first(planted_zoo, few):
    tried = []
    found = search(planted_zoo, "standard", "linear", trials=6, progress=tried.append)
    assert tried[0].settings == few
    assert len(tried) == len({(t.settings.learning_rate, t.settings.weight_decay) for t in tried}) == 6
    assert found == sorted(tried, key=lambda trial: trial.r2, reverse=True)
    assert found[0].r2 > found[-1].r2
    for trial in tried[1:]:
        assert trial.settings.learning_rate in LEARNING_RATES
        assert trial.settings.weight_decay in WEIGHT_DECAYS
        assert trial.settings.epochs == few.epochs


def test_a_search_of_all_trials_and_more_tries_the_whole_grid_once(planted_zoo, few, monkeypatch):
    monkeypatch.setattr("metanets.tuning.LEARNING_RATES", (1e-3, 1e-2))
    monkeypatch.setattr("metanets.tuning.WEIGHT_DECAYS", (0.0, 0.1))
    assert len(search(planted_zoo, "standard", "linear", trials=9)) == 1 + 4


def test_a_trial_has_the_validation_r2_of_its_settings(planted_zoo, few):
    (trial,) = search(planted_zoo, "standard", "statnn", trials=1)
    (metanet,) = train_model(planted_zoo, "standard", "statnn", settings=trial.settings)
    index = planted_zoo.index("standard", "validation")
    true = planted_zoo.field("standard", "metrics/test_accuracy")[index]
    predicted = metanet.predict(planted_zoo.rows("standard", index)).numpy()
    assert trial.r2 == pytest.approx(r2(true, predicted), abs=1e-5)


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
