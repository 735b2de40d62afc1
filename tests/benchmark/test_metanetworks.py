import json
from dataclasses import replace

import numpy as np
import pytest

from benchmark.metanetworks import (
    Entry,
    EvaluationJob,
    in_order,
    read_entries,
    run_jobs,
    tabulate,
    tabulate_costs,
    tabulate_differences,
    tabulate_gains,
)
from metanets import metrics
from metanets.evaluation import evaluate
from metanets.intervals import difference
from metanets.models import MODELS
from metanets.settings import Settings
from metanets.tasks import Task
from tests.benchmark.test_report import some_result
from zoo import statistics
from zoo.errors import TaskError
from zoo.statistics import Estimate

FEW = Settings(epochs=3, batch_size=32)


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Few epochs, rough intervals."""
    monkeypatch.setattr(statistics, "RESAMPLES", 20)
    give_settings(monkeypatch, FEW)


def give_settings(monkeypatch, settings):
    for model in MODELS.values():
        monkeypatch.setattr(model, "settings", settings)


def jobs_of(zoo, models=("mean", "linear")):
    tasks = [Task(recipe=zoo.name, learn_from=(treatment,)) for treatment in zoo.treatments]
    return [EvaluationJob(zoo, task, model, 2) for model in models for task in tasks]


def test_each_result_is_that_of_evaluate_and_is_kept_with_its_evidence(planted_zoo, tmp_path):
    path, trainings = tmp_path / "results" / "linear.json", []
    entries = list(run_jobs(jobs_of(planted_zoo), path, progress=trainings.append))
    assert read_entries(path) == entries
    assert sum(trainings) == 4  # the mean is not trained
    for entry in entries:
        again = evaluate(entry.result.task, planted_zoo, entry.result.model, seeds=2)
        assert replace(entry.result, seconds={}) == replace(again, seconds={})
        assert {"date", "command", "commit", "torch", "processor"} <= entry.made.keys()


def test_a_file_goes_model_by_model_and_from_few_networks_to_many_whatever_came_first():
    places = [
        ("mlp", "a"),
        ("gmn", "a"),
        ("linear", "a"),
        ("gone", "a"),
        ("linear", "b"),
        ("mean", "b"),
        ("linear", "a"),
    ]
    results = [some_result(*place, rank) for rank, place in enumerate(places)]
    results[2] = replace(results[2], networks=results[2].networks | {"train": 10**6})
    arranged = [entry.result for entry in in_order([Entry(result, {}) for result in results])]
    assert [result.model for result in arranged] == ["mean", *["linear"] * 3, "mlp", "gmn", "gone"]
    assert [result.treatment for result in arranged[1:4]] == ["b", "a", "a"]
    assert arranged[3].networks["train"] == 10**6


def test_a_job_is_done_by_its_own_result_alone(planted_zoo, plant_zoo, monkeypatch):
    (job,) = jobs_of(planted_zoo, ["linear"])[:1]
    result = evaluate(job.task, planted_zoo, "linear", seeds=2)
    assert job.is_done_by(result)
    changes = [{"learn_from": ("w_asymmetric",)}, {"target": "test_loss"}, {"max_train": 10}, {"permuted": True}]
    others = [replace(job, task=job.task.model_copy(update=change)) for change in changes]
    others += [replace(job, model="mlp"), replace(job, seeds=3), replace(job, zoo=plant_zoo(pairs=100))]
    for other in others:
        assert not other.is_done_by(result)
    give_settings(monkeypatch, Settings(epochs=4))
    assert not job.is_done_by(result)


def test_results_with_settings_of_before_are_replaced_and_others_stay(planted_zoo, tmp_path, monkeypatch):
    path, jobs = tmp_path / "results.json", jobs_of(planted_zoo, ["linear"])
    first = list(run_jobs(jobs, path))
    give_settings(monkeypatch, Settings(epochs=1))
    (again,) = run_jobs(jobs[:1], path)
    assert read_entries(path) == [first[1], again]
    assert (again.result.settings.epochs, first[1].result.settings.epochs) == (1, 3)


@pytest.mark.parametrize("content", [b"", b"{}", b"[3]", b'[{"result": {}, "made": {}}]', b"\xff"])
def test_a_file_of_something_else_is_one_clear_error_and_stays(tmp_path, planted_zoo, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(TaskError, match=f"^{path}: no results of metanetworks .*; name another file$") as error:
        list(run_jobs(jobs_of(planted_zoo), path))
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content


def cells(table):
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_tables_have_a_row_for_each_model_and_a_column_for_each_treatment():
    results = [some_result(*place, rank) for rank, place in enumerate([("mlp", "a"), ("mlp", "b"), ("gmn", "b")])]
    head, rule, *rows = cells(tabulate(results, "r2"))
    assert head == ["", "a", "b"]
    assert set("".join(rule)) == {"-"}
    assert rows == [
        ["`mlp`", str(results[0].metrics["r2"]), str(results[1].metrics["r2"])],
        ["`gmn`", "", str(results[2].metrics["r2"])],
    ]
    assert cells(tabulate_costs(results))[2:] == [["`mlp`", "7", "0.1", "1"], ["`gmn`", "7", "0.1", "1"]]


def test_a_table_of_differences_compares_predictions_of_the_same_networks():
    better, worse = some_result("gmn", "a", 0), some_result("mlp", "a", 9)
    _, _, *rows = cells(tabulate_differences([better, worse, some_result("mlp", "b", 0)], "gmn", "mlp"))
    assert [row[0] for row in rows] == [f"`{name}`" for name in metrics.METRICS]
    true, predicted, other = (np.array(x) for x in (better.true, better.predicted, worse.predicted))
    assert rows[0][1:] == [str(difference(metrics.r2, true, predicted, other, scale=metrics.SCALES["r2"]))]
    assert float(rows[0][1].split()[0]) > 0


def test_a_table_of_two_treatments_compares_the_same_pairs():
    better, worse = some_result("mlp", "a", 0), some_result("mlp", "b", 9)
    head, _, *rows = cells(tabulate_gains([better, worse, some_result("gmn", "a", 0)], "a", "b"))
    assert head == ["a less b", *(f"`{name}`" for name in metrics.METRICS)]
    true, predicted, other = (np.array(x) for x in (better.true, better.predicted, worse.predicted))
    assert rows == [
        [
            "`mlp`",
            *(
                str(difference(m, true, predicted, other, scale=metrics.SCALES[name]))
                for name, m in metrics.METRICS.items()
            ),
        ]
    ]
    with pytest.raises(TaskError, match="its test pairs are others"):
        tabulate_gains([replace(better, pairs=list(range(1, 13))), worse], "a", "b")


def test_the_command_adds_what_a_file_lacks_and_prints_tables(asymzoo, planted_zoo, tmp_path):
    out = tmp_path / "results.json"
    options = ("--models", "mean,linear,scale_gmn", "--seeds", 1, "--workers", 1, "--out", out)
    code, output, _ = asymzoo("benchmark", "metanetworks", planted_zoo.folder, *options)
    assert code == 0
    assert (
        "left out: scale_gmn on small/standard/test_accuracy: scale_gmn reads networks with ReLU or tanh throughout, not GELU"
        in output
    )
    results = [entry["result"] for entry in json.loads(out.read_text())]
    assert [(r["model"], *r["task"]["learn_from"]) for r in results] == [
        (model, treatment) for model in ("mean", "linear") for treatment in planted_zoo.treatments
    ]
    assert str(Estimate(**results[2]["metrics"]["r2"] | {"values": ()})) in output
    before = out.read_bytes()
    assert asymzoo("benchmark", "metanetworks", planted_zoo.folder, *options)[0] == 0
    assert out.read_bytes() == before
    options = ("--models", "linear", "--treatments", "standard", "--seeds", 1, "--workers", 1, "--out", out)
    code, _, _ = asymzoo("benchmark", "metanetworks", planted_zoo.folder, *options, "--max-train", "10,20")
    assert code == 0
    trained_on = [entry.result.networks["train"] for entry in read_entries(out)]
    assert trained_on[2:4] == [10, 20]  # before all others of the model


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        (("--models", "statn"), "model: no metanetwork 'statn' (did you mean 'statnn'?)"),
        (("--treatments", "syre"), "has no treatment 'syre'; it has standard, w_asymmetric"),
        (("--target", "beauty"), "has no target 'beauty'"),
        (("--max-train", "64,many"), "max-train: '64,many' is no list of numbers; write 64,128"),
        (("--max-train", "1"), "max_train: Input should be greater than or equal to 2 (found 1)"),
        (("--test-on", "syre"), "has no treatment 'syre'"),
        (("--tasks", "accurcy"), "accurcy: no such task"),
        (("--tasks", "accuracy", "--treatments", "standard"), "leave out the options for learn_from"),
    ],
)
def test_what_is_unknown_is_one_line_and_nothing_is_written(asymzoo, planted_zoo, tmp_path, options, fact):
    out = tmp_path / "results.json"
    options = ("--models", "linear", *options) if "--models" not in options else options
    code, _, errors = asymzoo("benchmark", "metanetworks", planted_zoo.folder, "--workers", 1, "--out", out, *options)
    assert code == 2
    assert fact in errors
    assert len(errors.splitlines()) == 1
    assert not out.exists()


def test_the_command_takes_tasks_from_files(asymzoo, planted_zoo, tmp_path):
    out, file = tmp_path / "results.json", tmp_path / "losses.toml"
    file.write_text(
        'name = "losses"\nrecipe = "small"\nlearn_from = "w_asymmetric"\ntarget = "test_loss"\nmax_train = 20\n'
    )
    options = ("--models", "linear", "--tasks", file, "--seeds", 1, "--workers", 1, "--out", out)
    assert asymzoo("benchmark", "metanetworks", planted_zoo.folder, *options)[0] == 0
    (entry,) = read_entries(out)
    assert entry.result.task == Task.load(file)
    assert entry.result.networks["train"] == 20


def test_the_table_of_tasks_has_a_column_for_each(asymzoo, planted_zoo, tmp_path):
    files = [tmp_path / f"{target}.toml" for target in ("test_loss", "test_accuracy")]
    for file in files:
        file.write_text(f'name = "{file.stem}"\nrecipe = "small"\nlearn_from = "standard"\ntarget = "{file.stem}"\n')
    options = ("--models", "mean", "--tasks", ",".join(map(str, files)), "--workers", 1, "--out", tmp_path / "out.json")
    code, output, _ = asymzoo("benchmark", "metanetworks", planted_zoo.folder, *options)
    assert code == 0
    assert "|  | test_loss | test_accuracy |" in output
