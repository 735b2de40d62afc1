import json
import sys
from functools import partial

import pytest

from benchmark import quickstart
from benchmark.cli import main
from benchmark.inference import evaluator
from benchmark.phenomena import PHENOMENA, bayesian
from metanets.models import MODELS
from metanets.settings import Settings
from zoo import generate, open_zoo, statistics
from zoo.recipes.distribution import Distribution

TREATMENTS = ("standard", "w_asymmetric")
ZOOS = {"digits-mlp": 24, "digits-mlp-replicas": 4}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the quickstart of two treatments leaves, its trainings short; and a function that runs the program."""
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context() as argv:
        recipe = quickstart._recipe

        def brief(name, pairs):
            chosen = recipe(name, pairs)
            training = chosen.training.model_copy(update={"epochs": Distribution(constant=1)})
            return chosen.model_copy(update={"training": training})

        settings = Settings(epochs=3)
        patch.setattr(quickstart, "TREATMENTS", TREATMENTS)
        patch.setattr(quickstart, "_recipe", brief)
        patch.setattr(quickstart, "SEEDS", 2)
        patch.setattr(quickstart, "evaluate", partial(quickstart.evaluate, settings=settings))
        patch.setattr(statistics, "RESAMPLES", 20)
        patch.setenv("OMP_NUM_THREADS", "1")

        def run(*arguments):
            argv.setattr(sys, "argv", ["asymzoo", *map(str, arguments)])
            with pytest.raises(SystemExit) as exit_:
                main()
            return exit_.value.code

        out = tmp_path_factory.mktemp("quickstart") / "out"
        assert run(*command(out)) == 0
        yield out, run


def command(out):
    return "quickstart", "--pairs", 24, "--replicas", 4, "--workers", 1, "--out", out


def read(path):
    def refuse(constant):
        raise ValueError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def without_seconds(results):
    return [{key: value for key, value in result.items() if key != "seconds"} for result in results]


def test_quickstart_leaves_two_zoos_results_and_a_report(made):
    out, _ = made
    assert {path.name for path in out.iterdir()} == {*ZOOS, "results.json", "report"}
    for name, pairs in ZOOS.items():
        zoo = open_zoo(out / name)
        assert (len(zoo), zoo.treatments, zoo.name) == (pairs, TREATMENTS, name)
    values = read(out / "results.json")
    cells = [(*result["task"]["learn_from"], result["model"]) for result in values["metanetworks"]]
    assert cells == [(treatment, model) for treatment in TREATMENTS for model in quickstart.MODELS]
    assert {*quickstart.MODELS} <= {"mean", *MODELS}
    assert [result["treatment"] for result in values["mode_connectivity"]] == list(TREATMENTS)
    assert [result["couples"] for result in values["mode_connectivity"]] == [[[0, 1], [2, 3]]] * 2
    assert values["made"]["command"].startswith("asymzoo quickstart --pairs 24")
    page = (out / "report" / "index.html").read_text()
    assert all(word in page for word in (*TREATMENTS, *quickstart.MODELS, *ZOOS, values["made"]["commit"]))


def test_quickstart_again_uses_the_zoos_that_are_there(made, capsys):
    out, run = made
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*/*") if path.parent.name in TREATMENTS}
    assert len(before) >= len(ZOOS) * len(TREATMENTS)
    results = read(out / "results.json")
    capsys.readouterr()
    assert run(*command(out)) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    again = read(out / "results.json")
    assert without_seconds(again["metanetworks"]) == without_seconds(results["metanetworks"])
    assert again["mode_connectivity"] == results["mode_connectivity"]
    printed = capsys.readouterr()
    assert "networks/s" not in printed.err
    assert f"report     {out / 'report' / 'index.html'}\n" in printed.out


def test_phenomena_of_a_zoo_are_those_of_the_quickstart(made, tmp_path, capsys):
    out, run = made
    assert run("benchmark", "run", out / "digits-mlp-replicas", "--out", tmp_path, "--only", "mode_connectivity") == 0
    assert (tmp_path / "mode_connectivity.png").exists()
    measured = read(tmp_path / "mode_connectivity.json")
    naive = [result for result in measured["mode_connectivity"] if result["variant"] == "naive"]
    assert naive == read(out / "results.json")["mode_connectivity"]
    lines = capsys.readouterr().out.splitlines()
    measured_on = [f"{result['treatment']:20}{result['variant']} " for result in measured["mode_connectivity"]]
    assert all(line.startswith(own) for line, own in zip(lines, [*measured_on, "written"], strict=True))
    barrier = measured["mode_connectivity"][0]["barriers"]["test_loss"]  # of two lines
    assert lines[0].endswith("barrier " + " and ".join(f"{value:.3f}" for value in barrier["values"]))


@pytest.fixture(scope="module")
def few(made, tmp_path_factory):
    """A folder with a zoo of two pairs, of another recipe than the quickstart's."""
    recipe = quickstart._recipe("digits-mlp", 2)
    training = recipe.training.model_copy(update={"epochs": Distribution(constant=2)})
    folder = tmp_path_factory.mktemp("few")
    generate(recipe.model_copy(update={"training": training}), folder / "digits-mlp")
    return folder


def test_what_a_zoo_has_too_few_networks_for_is_left_out(made, few, tmp_path, capsys, monkeypatch):
    _, run = made
    monkeypatch.setattr(evaluator, "SAMPLES", 1)
    monkeypatch.setattr(bayesian, "AROUND", 0)  # no posteriors around trained networks, which take long
    assert run("benchmark", "run", few / "digits-mlp", "--out", tmp_path, "--workers", 1) == 0
    lines = capsys.readouterr().out.splitlines()
    left = {line.split(": ")[1] for line in lines if line.startswith("left out: ")}
    assert {"mode_connectivity", "merging", "planes"} <= left < set(PHENOMENA)
    assert {path.stem for path in tmp_path.iterdir()} == set(PHENOMENA) - left


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["quickstart", "--pairs", 8, "--out", "{few}"], "--pairs"),
        (["quickstart", "--pairs", 24, "--out", "{few}"], "holds a zoo of another recipe: training differs"),
        (
            ["benchmark", "run", "{few}/digits-mlp", "--out", "{few}", "--only", "merging"],
            "good networks; 4 or more are needed: asymzoo zoo generate digits-mlp with more --pairs",
        ),
        (
            ["benchmark", "run", "{few}/digits-mlp", "--out", "{few}", "--only", "mode_conectivity"],
            "no phenomenon 'mode_conectivity' (did you mean 'mode_connectivity'?)",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(made, few, capsys, arguments, fact):
    _, run = made
    capsys.readouterr()
    assert run(*(str(argument).format(few=few) for argument in arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("asymzoo: ")
    assert printed.err.count("\n") == 1
    assert fact in printed.err
    assert [path.name for path in few.iterdir()] == ["digits-mlp"]
