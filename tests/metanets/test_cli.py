import json

import pytest

from metanets import metrics
from metanets.models import MODELS


def test_list_names_every_metanetwork_and_what_it_reads(asymzoo):
    code, output, errors = asymzoo("metanets", "list")
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert [line.split()[0] for line in lines] == list(MODELS)
    for line, model in zip(lines, MODELS.values(), strict=True):
        assert f"reads {model.reads}. " in line
        assert len(line.partition(". ")[2]) > 10


def test_train_prints_and_writes_the_result(asymzoo, planted_zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 40)
    out = tmp_path / "results" / "linear.json"
    options = ("--model", "linear", "--treatment", "w_asymmetric", "--task", "test_loss", "--seeds", 2, "--out", out)
    code, output, errors = asymzoo("metanets", "train", planted_zoo.folder, *options)
    assert code == 0
    assert "linear on w_asymmetric" in errors
    assert "2/2" in errors
    result = json.loads(out.read_text())
    assert (result["model"], result["treatment"], result["task"]) == ("linear", "w_asymmetric", "test_loss")
    assert len(result["predicted"]) == result["seeds"] == 2
    lines = output.splitlines()
    assert lines[0].split()[:2] == ["R^2", f"{result['r2']['mean']:.3f}"]
    assert lines[1].split()[:3] == ["Kendall", "tau", f"{result['kendall_tau']['mean']:.3f}"]
    assert f"{result['r2']['low']:.3f} to {result['r2']['high']:.3f}" in lines[0]
    assert lines[2:] == [f"written to {out}"]


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        (["--model", "statn"], "did you mean 'statnn'?"),
        (["--treatment", "syre"], "it has standard, w_asymmetric"),
        (["--task", "beauty"], "has no field 'metrics/beauty'"),
        (["--seeds", "0"], "--seeds"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(asymzoo, planted_zoo, options, fact):
    code, output, errors = asymzoo("metanets", "train", planted_zoo.folder, *options)
    assert (code, output) == (2, "")
    assert errors.startswith("asymzoo: ")
    assert errors.count("\n") == 1
    assert fact in errors


def test_a_folder_without_a_zoo_is_one_line_and_exit_code_2(asymzoo, tmp_path):
    code, output, errors = asymzoo("metanets", "train", tmp_path)
    assert (code, output) == (2, "")
    assert errors.startswith(f"asymzoo: {tmp_path}: no zoo here")
    assert errors.count("\n") == 1
