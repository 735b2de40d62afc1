import pytest
from pydantic import ValidationError

from metanets import settings
from metanets.models import MODELS
from metanets.settings import Settings
from zoo.errors import TaskError


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A function that stores settings for a model."""
    monkeypatch.setattr(settings, "FOLDER", tmp_path)

    def write(model, text):
        (tmp_path / f"{model}.toml").write_text(text)

    return write


def test_settings_are_those_of_the_task_else_the_default_else_as_the_class_has_them(store):
    store("mlp", "[default]\nepochs = 7\n[test_loss]\nlearning_rate = 0.5\noptions = { hidden = 8 }\n")
    assert Settings.best("mlp", "test_loss") == Settings(learning_rate=0.5, options={"hidden": 8})
    assert Settings.best("mlp", "test_accuracy") == Settings(epochs=7)
    assert Settings.best("statnn", "test_accuracy") == Settings()
    store("statnn", "[test_loss]\nepochs = 3\n")
    assert Settings.best("statnn", "test_accuracy") == Settings()


@pytest.mark.parametrize(
    "text",
    [
        "no TOML",
        "[default]\nepoch = 7",
        "[default]\nepochs = -7",
        "[default]\nschedule = 'linear'",
        "default = 3",
        "default = 'epochs'",
        "default = []",
    ],
)
def test_a_damaged_file_of_settings_is_one_clear_error(store, text):
    store("mlp", text)
    with pytest.raises(TaskError, match=r"mlp\.toml: .*; mend it or delete it$") as error:
        Settings.best("mlp", "test_accuracy")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": -1},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"clip": 0},
        {"huber": 0},
        {"steps": -1},
        {"augment": "rotate"},
        {"momentum": 0.9},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)


@pytest.mark.parametrize(
    ("networks", "passes"),
    [(1000, 1), (100, 1), (64, 2), (63, 2), (16, 5), (1, 5)],  # 7, 4, 4, 1 and 1 batches of 16
)
def test_few_training_networks_are_passed_over_until_there_are_enough_steps(networks, passes):
    settings = Settings(epochs=10, steps=50, batch_size=16)
    assert settings.passes(networks) == passes
    assert settings.passes(networks) * settings.epochs * -(-networks // 16) >= 50
    assert Settings(epochs=10, batch_size=16).passes(networks) == 1


def test_stored_settings_are_of_a_metanetwork_and_can_be_read():
    for path in settings.FOLDER.glob("*.toml"):
        assert path.stem in MODELS
        for task in ("test_accuracy", "test_loss"):
            Settings.best(path.stem, task)
