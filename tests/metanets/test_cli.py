import json
import re
import tomllib

import numpy as np
import pytest

from metanets import metrics
from metanets.metanet import Metanet
from metanets.models import MODELS
from metanets.settings import Settings
from zoo import statistics
from zoo.statistics import Estimate
from zoo.store.columns import SPLITS


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Few epochs, rough intervals."""
    monkeypatch.setattr(statistics, "RESAMPLES", 40)
    for model in MODELS.values():
        monkeypatch.setattr(model, "settings", Settings(epochs=4))


def test_list_names_every_metanetwork_and_what_it_reads(asymzoo):
    code, output, errors = asymzoo("metanets", "list")
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert [line.split()[0] for line in lines] == list(MODELS)
    for line, model in zip(lines, MODELS.values(), strict=True):
        assert f"reads {model.reads}. " in line
        assert len(line.partition(". ")[2]) > 10


def test_train_prints_and_writes_the_result(asymzoo, planted_zoo, tmp_path):
    out = tmp_path / "results" / "linear.json"
    options = ("--model", "linear", "--treatment", "w_asymmetric", "--target", "test_loss", "--seeds", 2, "--out", out)
    code, output, _ = asymzoo("metanets", "train", planted_zoo.folder, *options)
    assert code == 0
    result = json.loads(out.read_text())
    assert (result["model"], result["task"]["learn_from"]) == ("linear", ["w_asymmetric"])
    assert result["task"]["target"] == "test_loss"
    assert len(result["predicted"]) == result["seeds"] == 2
    *lines, varies, size, written = output.splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        [name, str(Estimate(**metric | {"values": ()}))] for name, metric in result["metrics"].items()
    ]
    assert varies == f"Brackets: 95 % intervals over {result['networks']['test']} test networks (crossed)."
    assert size.startswith(f"{result['parameters']} parameters, ")
    assert written == f"written to {out}"


def test_train_takes_fixed_entries_fewer_networks_and_another_treatments_test(asymzoo, planted_zoo, tmp_path):
    out = tmp_path / "mlp.json"
    options = ("--model", "linear", "--seeds", 1, "--max-train", 10, "--test-on", "w_asymmetric", "--out", out)
    assert asymzoo("metanets", "train", planted_zoo.folder, *options)[0] == 0
    result = json.loads(out.read_text())
    assert (result["networks"]["train"], result["task"]["test_on"]) == (10, ["w_asymmetric"])
    options = ("--model", "linear", "--treatment", "w_asymmetric", "--seeds", 1, "--include-fixed", "--out", out)
    assert asymzoo("metanets", "train", planted_zoo.folder, *options)[0] == 0
    assert json.loads(out.read_text())["parameters"] == planted_zoo["standard"].layout.size + 1


@pytest.fixture
def checkpoint(asymzoo, planted_zoo, tmp_path):
    path = tmp_path / "metanet.safetensors"
    options = ("--model", "linear", "--seeds", 1, "--checkpoint", path)
    code, output, _ = asymzoo("metanets", "train", planted_zoo.folder, *options)
    assert code == 0
    assert output.splitlines()[-1] == f"written to {path}"
    return path


@pytest.mark.parametrize("split", ["test", "all"])
def test_predict_writes_what_the_checkpoint_says_of_each_network(asymzoo, planted_zoo, checkpoint, tmp_path, split):
    out = tmp_path / "predicted.json"
    options = (checkpoint, planted_zoo.folder, "--split", split, "--out", out)
    code, output, errors = asymzoo("metanets", "predict", *options)
    assert (code, errors) == (0, "")
    networks = planted_zoo["standard"]
    parts = [networks.split(part) for part in (SPLITS if split == "all" else [split])]
    values, metanet = json.loads(out.read_text()), Metanet.load(checkpoint)
    predicted = np.concatenate([metanet.predict(part).double().numpy() for part in parts])
    true = np.concatenate([part["test_accuracy"] for part in parts]).astype(float)
    assert values["pair"] == np.concatenate([part["pair"] for part in parts]).tolist()
    assert np.allclose(values["predicted"], predicted)
    assert values["true"] == true.tolist()
    assert (values["model"], values["task"]["learn_from"]) == ("linear", ["standard"])
    first, *lines, _ = output.splitlines()
    assert first == f"{len(true)} networks, test_accuracy by linear"
    assert lines == [f"{name:20}{metric(true, predicted):7.3f}" for name, metric in metrics.METRICS.items()]


def test_a_task_in_a_file_is_trained_on_and_predicted(asymzoo, planted_zoo, tmp_path):
    task, checkpoint, out = (tmp_path / name for name in ("which.toml", "which.safetensors", "which.json"))
    task.write_text(
        'name = "which"\nrecipe = "small"\nlearn_from = ["standard", "w_asymmetric"]\ntarget = "treatment"\n'
    )
    options = ("--model", "linear", "--task", task, "--seeds", 1, "--checkpoint", checkpoint)
    code, output, _ = asymzoo("metanets", "train", planted_zoo.folder, *options)
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()[:2]] == ["accuracy", "log_loss"]
    code, output, _ = asymzoo("metanets", "predict", checkpoint, planted_zoo.folder, "--task", task, "--out", out)
    assert code == 0
    values = json.loads(out.read_text())
    assert np.allclose(np.sum(values["predicted"], 1), 1)
    assert values["treatment"] == [("standard", "w_asymmetric")[label] for label in values["true"]]


def test_tune_prints_settings_as_toml_the_best_first_and_train_takes_them(asymzoo, planted_zoo, tmp_path):
    code, output, _ = asymzoo("metanets", "tune", planted_zoo.folder, "--model", "linear", "--trials", 3)
    assert code == 0
    scores = [
        float(r2) + float(tau) for r2, tau in re.findall(r"^# validation r2 (\S+), kendall_tau (\S+),", output, re.M)
    ]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    best = Settings(**tomllib.loads(output))
    assert str(best.model_dump(exclude_defaults=True)) in output.splitlines()[0]
    file, out = tmp_path / "best.toml", tmp_path / "result.json"
    file.write_text(output)
    options = ("--model", "linear", "--seeds", 1, "--settings", file, "--out", out)
    assert asymzoo("metanets", "train", planted_zoo.folder, *options)[0] == 0
    assert Settings(**json.loads(out.read_text())["settings"]) == best


ZOO, FILE = "{zoo}", "{checkpoint}"


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["train", ZOO, "--model", "statn"], "did you mean 'statnn'?"),
        (["train", ZOO, "--treatment", "syre"], "it has standard, w_asymmetric"),
        (["train", ZOO, "--test-on", "syre"], "it has standard, w_asymmetric"),
        (["train", ZOO, "--target", "beauty"], "has no target 'beauty'"),
        (["train", ZOO, "--task", "beauty"], "beauty: no such task"),
        (["train", ZOO, "--task", "beauty.toml"], "beauty.toml: cannot be read"),
        (["train", ZOO, "--settings", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["train", ZOO, "--task", "a", "--target", "test_loss"], "leave out the options for target"),
        (["train", ZOO, "--seeds", "0"], "--seeds"),
        (["train", ZOO, "--max-train", "1"], "--max-train"),
        (["train", ZOO, "--device", "abacus"], "there is no 'abacus' here"),
        (["tune", ZOO, "--model", "statn"], "did you mean 'statnn'?"),
        (["tune", ZOO, "--treatment", "syre"], "it has standard, w_asymmetric"),
        (["tune", ZOO, "--trials", "0"], "--trials"),
        (["tune", ZOO, "--device", "abacus"], "there is no 'abacus' here"),
        (["predict", FILE, ZOO, "--split", "tests"], "did you mean 'test'?"),
        (["predict", FILE, ZOO, "--treatment", "syre"], "it has standard, w_asymmetric"),
        (["predict", FILE, ZOO, "--device", "abacus"], "there is no 'abacus' here"),
        (["predict", "{zoo}/zoo.json", ZOO], "zoo.json: no checkpoint of a metanetwork"),
        (["predict", "nowhere", ZOO], "nowhere: cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(asymzoo, planted_zoo, checkpoint, arguments, fact):
    filled = [argument.format(zoo=planted_zoo.folder, checkpoint=checkpoint) for argument in arguments]
    code, output, errors = asymzoo("metanets", *filled)
    assert (code, output) == (2, "")
    assert errors.startswith("asymzoo: ")
    assert errors.count("\n") == 1
    assert fact in errors


@pytest.mark.parametrize("command", ["train", "tune"])
def test_a_folder_without_a_zoo_is_one_line_and_exit_code_2(asymzoo, tmp_path, command):
    code, output, errors = asymzoo("metanets", command, tmp_path)
    assert (code, output) == (2, "")
    assert errors.startswith(f"asymzoo: {tmp_path}: is not a zoo")
    assert errors.count("\n") == 1


def test_a_result_is_kept_though_its_metanetwork_cannot_be(asymzoo, planted_zoo, tmp_path):
    paths = ("--out", tmp_path / "boosted.json", "--checkpoint", tmp_path / "boosted.safetensors")
    code, _, errors = asymzoo("metanets", "train", planted_zoo.folder, "--model", "boosted", "--seeds", 1, *paths)
    assert code == 2
    assert "boosted: holds no tensors to save" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["boosted.json"]


@pytest.mark.filterwarnings("default")
def test_networks_without_a_target_are_left_out_and_one_line_says_how_many(asymzoo, plant_zoo):
    def lose(arrays):
        arrays["test_loss"][::7] = np.nan

    zoo = plant_zoo(lose)
    options = ("--model", "boosted", "--target", "test_loss", "--seeds", 1)
    code, _, errors = asymzoo("metanets", "train", zoo.folder, *options)
    assert code == 0
    lines = [line for line in errors.splitlines() if "left out" in line]
    missing = [np.isnan(zoo["standard"].split(split)["test_loss"]).sum() for split in SPLITS]
    assert [int(re.search(r": (\d+) of", line)[1]) for line in lines] == missing
