import json

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from metanets.metanet import Metanet, train_model
from metanets.models import MODELS
from metanets.settings import Settings
from tests.conftest import PLANTED as TREATMENTS
from tests.scenarios import NETWORKS, treat
from zoo.errors import AsymZooError, TaskError

FEW = Settings(epochs=3, batch_size=32)
CHEAP = ("linear", "mlp", "statnn", "gmn")  # one for each kind of input, and a large state
FUZZ = budget(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def trained(planted_zoo):
    """A small metanetwork of statistics."""
    settings = FEW.model_copy(update={"options": {"hidden": 8}})
    return train_model(planted_zoo, "standard", "statnn", settings=settings)[0]


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "statnn.safetensors"
    trained.save(path)
    return path.read_bytes()


@pytest.mark.parametrize("treatment", TREATMENTS)
@pytest.mark.parametrize("model", CHEAP)
def test_a_metanetwork_read_from_a_file_predicts_the_same(planted_zoo, tmp_path, model, treatment):
    rows = planted_zoo.rows(treatment, planted_zoo.index(treatment, "test"))
    path = tmp_path / "some" / "folder" / "metanet.safetensors"
    (metanet,) = train_model(planted_zoo, treatment, model, task="test_loss", seeds=[7], settings=FEW, fixed=True)
    before = metanet.predict(rows)
    metanet.save(path)
    loaded = Metanet.load(path)
    assert torch.equal(loaded.predict(rows), before)
    assert loaded.config.model_dump_json() == metanet.config.model_dump_json()
    assert loaded.layout == metanet.layout
    assert repr(loaded) == repr(metanet) == f"Metanet({model!r}, test_loss of small/{treatment})"
    assert (loaded.config.seed, loaded.config.zoo["digest"]) == (7, planted_zoo.manifest.digest)
    assert before.std() > 0


@pytest.mark.parametrize("model", CHEAP)
@pytest.mark.parametrize("treatment", TREATMENTS)
def test_predictions_for_modules_are_those_for_their_rows(planted_zoo, model, treatment):
    (metanet,) = train_model(planted_zoo, treatment, model, settings=FEW)
    index = planted_zoo.index(treatment, "test")[:5]
    modules = [planted_zoo.module(treatment, int(i)) for i in index]
    torch.testing.assert_close(metanet.predict(modules), metanet.predict(planted_zoo.rows(treatment, index)))


def test_predictions_do_not_depend_on_how_many_there_are(trained, planted_zoo):
    rows = planted_zoo.rows("standard").repeat(2, 1)  # more than a batch
    assert len(rows) > 128
    predicted = trained.predict(rows)
    torch.testing.assert_close(predicted, torch.cat([trained.predict(some) for some in rows.split(50)]))
    assert not predicted.requires_grad


def test_rows_and_modules_of_another_architecture_are_refused(trained, planted_zoo):
    rows = planted_zoo.rows("standard", slice(3))
    with pytest.raises(TaskError, match=r"^rows: \(3, 363\), but Metanet.* reads \(networks, 364\)$"):
        trained.predict(rows[:, 1:])
    others = [NETWORKS[name].build() for name in NETWORKS if name != "mlp"] + [torch.nn.Linear(8, 4)]
    for module in others:
        with pytest.raises(TaskError, match=r"^module: its parameters are not those that Metanet"):
            trained.predict([planted_zoo.module("standard", 0), module])
    for none in (rows[:0], []):
        with pytest.raises(TaskError, match=r"^networks: there are none"):
            trained.predict(none)


def test_a_zoo_of_another_architecture_is_refused(trained, planted_zoo, plant_zoo, monkeypatch):
    trained.check(planted_zoo, "standard")
    trained.check(planted_zoo, "w_asymmetric")
    monkeypatch.setattr(planted_zoo, "_treated", {"standard": treat("standard", "mlp_plain")})
    with pytest.raises(TaskError, match=r"train on networks like these$") as error:
        trained.check(planted_zoo, "standard")
    assert "\n" not in str(error.value)


def test_trees_cannot_be_saved(planted_zoo, tmp_path):
    settings = Settings(options={"trees": 5})
    (metanet,) = train_model(planted_zoo, "standard", "boosted", settings=settings)
    with pytest.raises(TaskError, match=r"^boosted: holds no tensors to save"):
        metanet.save(tmp_path / "boosted.safetensors")
    assert not list(tmp_path.iterdir())
    assert metanet.predict(planted_zoo.rows("standard", slice(4))).shape == (4,)


def load(tmp_path, content):
    """What comes of a file: a metanetwork that predicts, or the error of a user, in one line."""
    path = tmp_path / "altered.safetensors"
    path.write_bytes(content)
    error = None
    try:
        metanet = Metanet.load(path)
        metanet.predict(torch.zeros(3, metanet.layout.size))
    except AsymZooError as caught:
        error = caught
    if error is None:
        return metanet
    assert type(error) is TaskError
    assert str(error).startswith(f"{path}: ")
    assert "\n" not in str(error)
    return None


def test_a_whole_checkpoint_loads(tmp_path, checkpoint):
    assert load(tmp_path, checkpoint) is not None


@given(data=st.data())
@FUZZ
def test_a_truncated_checkpoint_is_one_clear_error(tmp_path, checkpoint, data):
    assert load(tmp_path, checkpoint[: data.draw(st.integers(0, len(checkpoint) - 1))]) is None


@given(content=st.binary(max_size=200))
@FUZZ
def test_a_foreign_file_is_one_clear_error(tmp_path, content):
    assert load(tmp_path, content) is None


def test_checkpoints_of_others_and_folders_are_one_clear_error(tmp_path, checkpoint):
    tensors = {"weight": torch.zeros(3)}
    for metadata in (None, {}, {"asymzoo": "{}"}, {"asymzoo": "[1]"}, {"asymzoo": "no JSON"}, {"format": "pt"}):
        assert load(tmp_path, safetensors.torch.save(tensors, metadata)) is None
    for path in (tmp_path, tmp_path / "nowhere.safetensors"):
        with pytest.raises(TaskError, match=f"^{path}: "):
            Metanet.load(path)


@given(data=st.data())
@FUZZ
def test_altered_bytes_never_cause_another_error(tmp_path, checkpoint, data):
    header = 8 + int.from_bytes(checkpoint[:8], "little")
    altered = bytearray(checkpoint)
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    load(tmp_path, bytes(altered))


def rewrite(content, change):
    """A checkpoint whose description, and tensors, `change(config, tensors)` has altered in place."""
    tensors = safetensors.torch.load(content)
    config = json.loads(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["asymzoo"])
    change(config, tensors)
    return safetensors.torch.save(tensors, {"asymzoo": json.dumps(config)})


FIRST = ("layout", 0)
WRONG = {
    "model": [None, 3, "statn", "gmn", "linear", "boosted"],
    "options": [
        None,
        [],
        {"hidden": 7},
        {"hidden": -1},
        {"hidden": "8"},
        {"hidden": 1.5},
        {"beauty": 1},
        {"reader": 1},
    ],
    "layout": [None, 3, [], {}, [3], [{}], [[]]],
    "head": [
        None,
        {},
        {"mean": 1.0},
        {"mean": "sigmoid", "std": 1.0, "link": "identity"},
        {"mean": 0.5, "std": "identity", "link": "identity"},
        {"mean": 1.5, "std": 0.1, "link": "sigmoid"},
        {"mean": 0.5, "std": 0.1, "link": 3.0},
    ],
    "zoo": [None, {}, [], {"name": "small"}],
    "activations": [None, [], {"hidden0": 3}],
    "fixed": [None, "perhaps"],
    (*FIRST, "shape"): [None, 3, [], ["a", "b"], [16], [-16, 8], [17, 8], [16.0, 8], [10**9, 10**9], [0, 8]],
    (*FIRST, "axes"): [None, 3, [], ["input"], ["hidden0", "hidden0"], [3, 4], ["hidden0", {}], ["hidden0", []]],
    (*FIRST, "role"): [None, 3, "beauty", {}],
    (*FIRST, "name"): [None, 3, {}, []],
}


@pytest.mark.parametrize(("place", "value"), [(place, value) for place, values in WRONG.items() for value in values])
def test_an_altered_description_is_one_clear_error_or_harmless(tmp_path, checkpoint, place, value):
    def change(config, tensors):
        *path, last = (place,) if isinstance(place, str) else place
        for step in path:
            config = config[step]
        config[last] = value

    metanet = load(tmp_path, rewrite(checkpoint, change))
    if place in ("model", "options", "layout", "head", (*FIRST, "shape"), (*FIRST, "axes"), (*FIRST, "role")):
        assert metanet is None


@pytest.mark.parametrize("name", ["reader.trainable", "reader.mean", "reader.std", "network.layers.lins.0.weight"])
def test_missing_and_misshapen_tensors_are_one_clear_error(tmp_path, checkpoint, name):
    def remove(config, tensors):
        del tensors[name]

    def shorten(config, tensors):
        tensors[name] = tensors[name][1:].contiguous()

    def add(config, tensors):
        tensors["network.another"] = tensors[name].clone()

    def retype(config, tensors):
        tensors[name] = tensors[name].to(torch.int64)

    for change in (remove, shorten, add):
        assert load(tmp_path, rewrite(checkpoint, change)) is None
    load(tmp_path, rewrite(checkpoint, retype))


@pytest.mark.parametrize("model", MODELS)
def test_wrong_options_are_named(planted_zoo, model):
    with pytest.raises(TaskError, match=f"^{model}: options: .*beauty"):
        train_model(planted_zoo, "standard", model, settings=Settings(options={"beauty": 1}))


@pytest.mark.parametrize(("wrong", "meant"), [("statn", " (did you mean 'statnn'?)"), ("crystal_ball", "")])
def test_an_unknown_model_is_named_with_the_nearest_known(planted_zoo, wrong, meant):
    with pytest.raises(TaskError) as error:
        train_model(planted_zoo, "standard", wrong)
    assert str(error.value) == f"model: no metanetwork {wrong!r}{meant}; there are {', '.join(MODELS)}"


@pytest.mark.parametrize("model", ["linear", "statnn"])
def test_metanetworks_of_several_seeds_are_those_trained_alone(planted_zoo, model):
    rows, calls = planted_zoo.rows("standard"), []
    options = {"settings": FEW, "progress": calls.append}
    together = train_model(planted_zoo, "standard", model, seeds=[0, 3], **options)
    assert sum(calls) == 2
    assert [metanet.config.seed for metanet in together] == [0, 3]
    for metanet in together:
        (alone,) = train_model(planted_zoo, "standard", model, seeds=[metanet.config.seed], settings=FEW)
        torch.testing.assert_close(metanet.predict(rows), alone.predict(rows), rtol=0, atol=1e-5)
    assert not np.allclose(together[0].predict(rows), together[1].predict(rows), atol=1e-4)
