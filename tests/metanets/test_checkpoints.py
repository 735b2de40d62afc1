import json

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st
from torch import nn

from metanets.datasets import ZooGraphs, ZooRows
from metanets.metanet import Metanet
from metanets.settings import Settings
from metanets.training import fit, train
from tests.conftest import PLANTED
from tests.metanets.scenarios import CHEAP, CLASSES, FEW, STANDARD, GraphRegressor, Mean, ask, held_out
from zoo.errors import AsymZooError, TaskError

TARGETS = ("test_accuracy", "test_loss", "learning_rate", "generalisation_gap")
FUZZ = budget(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "statnn.safetensors"
    trained.save(path)
    return path.read_bytes()


def assert_read_back(metanet, networks, path, **options):
    """A metanetwork is the same when it was saved and read."""
    metanet.save(path)
    loaded = Metanet.load(path, **options)
    assert torch.equal(loaded.predict(networks), metanet.predict(networks))
    assert loaded.evaluate(networks) == metanet.evaluate(networks)
    assert (loaded.origin, loaded.link, repr(loaded)) == (metanet.origin, metanet.link, repr(metanet))
    return loaded


@pytest.mark.parametrize("treatment", PLANTED)
@pytest.mark.parametrize("model", CHEAP)
def test_a_metanetwork_read_from_a_file_predicts_the_same(planted_zoo, tmp_path, model, treatment):
    task, settings = ask(treatment, target="test_loss"), FEW.model_copy(update={"include_fixed": True})
    metanet = train(task, planted_zoo, model, seeds=2, settings=settings)[1]
    loaded = assert_read_back(metanet, held_out(planted_zoo, treatment), tmp_path / "some" / "folder" / "metanet")
    assert loaded.reader.layout == metanet.reader.layout
    assert repr(loaded) == f"Metanet({model!r}, small/{treatment}/test_loss)"
    assert (loaded.origin.seed, loaded.origin.task) == (1, task)
    assert loaded.origin.data.recipe == planted_zoo.digest([treatment])
    assert loaded.predict(held_out(planted_zoo, treatment)).std() > 0


@pytest.mark.parametrize("target", TARGETS)
def test_a_metanetwork_of_any_number_is_read_back(planted_zoo, tmp_path, target):
    (metanet,) = train(ask(target=target), planted_zoo, "linear", settings=FEW)
    loaded = assert_read_back(metanet, held_out(planted_zoo), tmp_path / "metanet.safetensors")
    assert loaded.target == target


def test_a_metanetwork_of_classes_is_read_back(planted_zoo, tmp_path):
    (metanet,) = train(CLASSES, planted_zoo, "statnn", settings=FEW)
    for treatment in PLANTED:
        assert_read_back(metanet, held_out(planted_zoo, treatment), tmp_path / "metanet.safetensors")
    assert metanet.origin.task.classes == PLANTED


@pytest.mark.parametrize("task", [STANDARD, CLASSES], ids=["number", "classes"])
def test_a_class_of_a_users_own_is_read_back_by_giving_it(planted_zoo, tmp_path, task):
    path, settings = tmp_path / "mine.safetensors", Settings(epochs=2, options={"width": 3})
    (metanet,) = train(task, planted_zoo, Mean, settings=settings)
    assert_read_back(metanet, held_out(planted_zoo), path, model=Mean)
    with pytest.raises(TaskError, match=r"holds tests\.metanets\.scenarios:Mean, which is not built in; Metanet.load"):
        Metanet.load(path)


def test_a_module_of_a_users_own_is_read_back_by_giving_one_like_it(planted_zoo, tmp_path):
    networks = held_out(planted_zoo)
    graphs = (ZooGraphs(planted_zoo["standard"].split(split), "test_loss") for split in ("train", "validation"))
    metanet = fit(GraphRegressor(11, 1), *graphs, FEW)
    loaded = assert_read_back(metanet, networks, tmp_path / "graphs", model=GraphRegressor(11, 1))
    assert loaded.target == "test_loss"
    rows = (ZooRows(planted_zoo["standard"].split(split)) for split in ("train", "validation"))
    flat = fit(nn.Linear(364, 1), *rows, FEW)
    assert_read_back(flat, networks, tmp_path / "rows", model=nn.Linear(364, 1))
    mine = fit(nn.Linear(5, 1), *([(x, x.sum()) for x in torch.randn(9, 5)] for _ in range(2)), FEW)
    mine.save(tmp_path / "mine")
    x = [(x, 0.0) for x in torch.randn(4, 5)]
    assert torch.equal(Metanet.load(tmp_path / "mine", model=nn.Linear(5, 1)).predict(x), mine.predict(x))
    assert repr(mine) == "Metanet('torch.nn.modules.linear:Linear', a data set)"


@pytest.mark.parametrize("model", [nn.Linear(7, 1), Mean])
def test_another_class_or_module_than_the_saved_one_is_one_clear_error(planted_zoo, tmp_path, model):
    path = tmp_path / "flat.safetensors"
    rows = (ZooRows(planted_zoo["standard"].split(split)) for split in ("train", "validation"))
    fit(nn.Linear(364, 1), *rows, FEW).save(path)
    with pytest.raises(TaskError, match=f"^{path}: no checkpoint of a metanetwork") as error:
        Metanet.load(path, model=model)
    assert "\n" not in str(error.value)


def test_trees_cannot_be_saved(planted_zoo, tmp_path):
    settings = Settings(options={"trees": 5})
    (metanet,) = train(STANDARD, planted_zoo, "boosted", settings=settings)
    with pytest.raises(TaskError, match=r"^boosted: holds no tensors to save"):
        metanet.save(tmp_path / "boosted.safetensors")
    assert not list(tmp_path.iterdir())
    assert metanet.predict(planted_zoo["standard"].weights[:4]).shape == (4,)


def load(tmp_path, content):
    """What comes of a file: a metanetwork that predicts, or the error of a user, in one line."""
    path = tmp_path / "altered.safetensors"
    path.write_bytes(content)
    error = None
    try:
        metanet = Metanet.load(path)
        metanet.predict(torch.zeros(3, metanet.reader.layout.size))
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
OPTIONS = ("settings", "options")
WRONG = {
    "model": [None, 3, "statn", "gmn", "linear", "boosted"],
    OPTIONS: [
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
    "link": [
        None,
        {"kind": "spline"},
        {"mean": "sigmoid"},
        {"std": "identity"},
        {"kind": "sigmoid", "mean": 1.5, "std": 0.1},
        {"kind": 3.0},
        {"kind": "sigmoid", "mean": 0.5, "low": 0.7},
        {"kind": "softmax", "classes": 0},
        {"kind": "softmax", "classes": 3},
        {"kind": "softmax", "classes": -1},
    ],
    "reads": ["rows", "statistic", 3],
    "task": [{}, [], 3, {"recipe": "small"}],
    "data": [[], {"recipe": "small"}],
    "activations": [None, [], {"hidden0": 3}],
    "include_fixed": [None, "perhaps"],
    (*FIRST, "shape"): [None, 3, [], ["a", "b"], [16], [-16, 8], [17, 8], [16.0, 8], [10**9, 10**9], [0, 8]],
    (*FIRST, "axes"): [None, 3, [], ["input"], ["hidden0", "hidden0"], [3, 4], ["hidden0", {}], ["hidden0", []]],
    (*FIRST, "role"): [None, 3, "beauty", {}],
    (*FIRST, "name"): [None, 3, {}, []],
}
HARMLESS = ("activations", (*FIRST, "name"))


@pytest.mark.parametrize(("place", "value"), [(place, value) for place, values in WRONG.items() for value in values])
def test_an_altered_description_is_one_clear_error_or_harmless(tmp_path, checkpoint, place, value):
    def change(config, tensors):
        *path, last = (place,) if isinstance(place, str) else place
        for step in path:
            config = config[step]
        config[last] = value

    assert load(tmp_path, rewrite(checkpoint, change)) is None or place in HARMLESS


@pytest.mark.parametrize("name", ["reader.mask", "reader.mean", "reader.std", "network.layers.lins.0.weight"])
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


def test_a_checkpoint_of_another_format_says_so(tmp_path, checkpoint):
    path = tmp_path / "later.safetensors"
    path.write_bytes(rewrite(checkpoint, lambda config, tensors: config.update(schema_version=3)))
    with pytest.raises(TaskError, match=f"^{path}: is of format 3, not 2; install another asymzoo$"):
        Metanet.load(path)
