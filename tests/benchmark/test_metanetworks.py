import json
from dataclasses import replace

import numpy as np
import pytest

from benchmark.metanetworks import (
    Entry,
    Job,
    in_order,
    measure,
    read_entries,
    tabulate,
    tabulate_costs,
    tabulate_differences,
)
from metanets import metrics
from metanets.evaluation import evaluate_model
from metanets.settings import Settings
from tests.benchmark.test_report import some_result
from zoo import statistics
from zoo.errors import TaskError

FEW = Settings(epochs=3, batch_size=32)


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Few epochs, rough intervals."""
    monkeypatch.setattr(statistics, "RESAMPLES", 20)
    monkeypatch.setattr(Settings, "best", classmethod(lambda cls, model, task: FEW))


def jobs_of(zoo, models=("mean", "linear"), **options):
    return [
        Job(zoo, treatment, model, "test_accuracy", 2, **options) for model in models for treatment in zoo.treatments
    ]


def test_each_result_is_that_of_evaluate_model_and_is_kept_with_its_evidence(planted_zoo, tmp_path):
    path, trainings = tmp_path / "results" / "linear.json", []
    entries = list(measure(jobs_of(planted_zoo), path, advance=trainings.append))
    assert read_entries(path) == entries
    assert sum(trainings) == 4  # the mean is not trained
    for entry in entries:
        again, _ = evaluate_model(planted_zoo, entry.result.treatment, entry.result.model, seeds=2)
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
    result, _ = evaluate_model(planted_zoo, "standard", "linear", seeds=2)
    assert job.is_done_by(result)
    assert replace(job, train_networks=10**6).is_done_by(result)  # there are fewer
    others = {
        "treatment": "w_asymmetric",
        "model": "mlp",
        "task": "test_loss",
        "seeds": 3,
        "train_networks": 10,
        "test_on": "w_asymmetric",
        "zoo": plant_zoo(pairs=100),
    }
    for field, value in others.items():
        assert not replace(job, **{field: value}).is_done_by(result), field
    monkeypatch.setattr(Settings, "best", classmethod(lambda cls, model, task: Settings(epochs=4)))
    assert not job.is_done_by(result)


def test_results_that_settings_have_outlived_are_replaced_and_others_stay(planted_zoo, tmp_path, monkeypatch):
    path, jobs = tmp_path / "results.json", jobs_of(planted_zoo, ["linear"])
    first = list(measure(jobs, path, advance=[].append))
    monkeypatch.setattr(Settings, "best", classmethod(lambda cls, model, task: Settings(epochs=1)))
    (again,) = measure(jobs[:1], path, advance=[].append)
    assert read_entries(path) == [first[1], again]
    assert (again.result.settings.epochs, first[1].result.settings.epochs) == (1, 3)


@pytest.mark.parametrize("content", [b"", b"{}", b"[3]", b'[{"result": {}, "made": {}}]', b"\xff"])
def test_a_file_of_something_else_is_one_clear_error_and_stays(tmp_path, planted_zoo, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(TaskError, match=f"^{path}: no results of metanetworks .*; name another file$") as error:
        list(measure(jobs_of(planted_zoo), path, advance=[].append))
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


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
    assert rows[0][1:] == [str(statistics.difference(metrics.r2, true, predicted, other))]
    assert float(rows[0][1].split()[0]) > 0


def test_the_command_adds_what_a_file_lacks_and_prints_tables(asymzoo, planted_zoo, tmp_path):
    out = tmp_path / "results.json"
    options = ("--models", "mean,linear,scale_gmn", "--seeds", 1, "--workers", 1, "--out", out)
    code, output, _ = asymzoo("benchmark", "metanetworks", planted_zoo.folder, *options)
    assert code == 0
    assert "left out: scale_gmn on standard: scale_gmn reads networks with ReLU or tanh throughout, not GELU" in output
    results = [entry["result"] for entry in json.loads(out.read_text())]
    assert [(r["model"], r["treatment"]) for r in results] == [
        (model, treatment) for model in ("mean", "linear") for treatment in planted_zoo.treatments
    ]
    assert f"{results[2]['metrics']['r2'][0]:.3f}".replace("-", "−") in output
    before = out.read_bytes()
    assert asymzoo("benchmark", "metanetworks", planted_zoo.folder, *options)[0] == 0
    assert out.read_bytes() == before
    options = ("--models", "linear", "--treatments", "standard", "--seeds", 1, "--workers", 1, "--out", out)
    code, _, _ = asymzoo("benchmark", "metanetworks", planted_zoo.folder, *options, "--train-networks", "10,20")
    assert code == 0
    trained_on = [entry.result.networks["train"] for entry in read_entries(out)]
    assert trained_on[2:4] == [10, 20]  # before all others of the model


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        (("--models", "statn"), "model: no metanetwork 'statn' (did you mean 'statnn'?)"),
        (("--treatments", "syre"), "has no treatment 'syre'; it has standard, w_asymmetric"),
        (("--task", "beauty"), "has no column 'beauty'"),
        (("--train-networks", "64,many"), "train-networks: '64,many' is no list of numbers; write 64,128"),
        (("--train-networks", "1"), "standard has 1 networks in its train split"),
        (("--test-on", "syre"), "has no treatment 'syre'"),
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
