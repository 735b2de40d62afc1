import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from pydantic import ValidationError

from metanets.models import MODELS
from metanets.settings import Settings
from zoo.errors import TaskError

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\x7f")  # TOML has no raw delete
FLOAT = st.floats(1e-12, 1e6)
values = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(characters, max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), inner),
    max_leaves=5,
)
some_settings = st.builds(
    Settings,
    epochs=st.integers(0, 500),
    steps=st.integers(0, 5000),
    patience=st.none() | st.integers(1, 50),
    batch_size=st.integers(1, 512),
    learning_rate=st.none() | FLOAT,
    schedule=st.sampled_from(["cosine", "constant"]),
    weight_decay=FLOAT | st.just(0.0),
    huber=FLOAT,
    clip=FLOAT,
    augment=st.sampled_from([None, "permute"]),
    include_fixed=st.booleans(),
    options=st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), values, max_size=3),
)


@given(written=some_settings)
@budget(deadline=None)
def test_settings_written_as_toml_are_read_back(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("settings") / "settings.toml"
    path.write_text(written.to_toml())
    assert Settings.load(path) == written


def test_settings_written_as_toml_are_those_that_differ_from_the_defaults():
    assert Settings().to_toml() == ""
    few = Settings(epochs=7, augment="permute", include_fixed=True, options={"rate": 3e-7, "norms": ["group", "none"]})
    assert few.to_toml().splitlines() == [
        "epochs = 7",
        'augment = "permute"',
        "include_fixed = true",
        'options = { rate = 3e-07, norms = ["group", "none"] }',
    ]


@pytest.mark.parametrize("model", MODELS)
def test_settings_of_a_metanetwork_are_its_own_and_can_be_stored(tmp_path, model):
    path = tmp_path / "settings.toml"
    path.write_text(MODELS[model].settings.to_toml())
    assert Settings.load(path) == MODELS[model].settings


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("no TOML", "not valid TOML: "),
        ("epoch = 7", r"epoch: unknown field \(did you mean 'epochs'\?\)"),
        ("epochs = -7", "epochs: Input should be greater than or equal to 0"),
        ("schedule = 'linear'", "schedule: 'linear' is not known"),
        ("options = 3", "options: Input should be a valid dictionary"),
        ("[default]\nepochs = 7", "default: unknown field"),
    ],
)
def test_a_file_of_wrong_settings_is_one_clear_error(tmp_path, text, fact):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(TaskError, match=f"^{path}: {fact}") as error:
        Settings.load(path)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path):
    for path in (tmp_path / "nowhere.toml", tmp_path):
        with pytest.raises(TaskError, match=f"^{path}: cannot be read"):
            Settings.load(path)
    path = tmp_path / "settings.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(TaskError, match=f"^{path}: not valid TOML"):
        Settings.load(path)


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
