import json
from pathlib import Path

import pytest

from benchmark import docs
from benchmark.docs import fill
from benchmark.metanetworks import ENTRIES, Entry, tabulate, tabulate_costs, tabulate_differences
from tests.benchmark.test_report import some_result
from zoo.errors import TaskError

PAGES = sorted(path for path in (Path(__file__).parents[2] / "docs").glob("*.md"))
RESULTS = [some_result(*place, rank) for rank, place in enumerate([("mlp", "a"), ("mlp", "b"), ("gmn", "a")])]


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch, request):
    if "page" not in request.fixturenames:
        monkeypatch.setattr(docs, "RESULTS", tmp_path)
        (tmp_path / "some.json").write_bytes(ENTRIES.dump_json([Entry(result, {}) for result in RESULTS]))


@pytest.mark.parametrize(
    ("words", "table"),
    [
        ("r2", tabulate(RESULTS, "r2")),
        ("rmse model_treatment networks", tabulate(RESULTS, "rmse", "model_treatment", "networks")),
        ("costs", tabulate_costs(RESULTS)),
        ("gmn less mlp", tabulate_differences(RESULTS, "gmn", "mlp")),
    ],
)
def test_a_table_takes_the_place_of_the_one_before_and_nothing_else_changes(words, table):
    page = "Before.\n\n<!-- some.json {} -->\n{}\nAfter, 3 | 4.\n\n| x |\n|---|\n"
    filled = page.format(words, table + "\n")
    assert fill(page.format(words, "")) == filled
    assert fill(page.format(words, "| old |\n|---|\n| 1 |\n")) == filled
    assert fill(filled) == filled


def test_files_that_are_joined_give_one_table(tmp_path):
    for name, results in (("one", RESULTS[2:]), ("other", RESULTS[:2])):
        (tmp_path / f"{name}.json").write_bytes(ENTRIES.dump_json([Entry(result, {}) for result in results]))
    assert fill("<!-- one.json+other.json r2 -->\n") == f"<!-- one.json+other.json r2 -->\n{tabulate(RESULTS, 'r2')}\n"


def test_a_phenomenon_is_a_table_of_treatments(tmp_path):
    findings = [
        {"treatment": treatment, "variant": variant, "height": {"mean": mean, "low": 0, "high": 1}, "steps": [{"n": 3}]}
        for treatment, variant, mean in (("a", "x", 0.5), ("a", "y", 0.25), ("b", "x", 0.75))
    ]
    findings.append({"treatment": "b", "variant": "z", "height": None})
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "some.json").write_text(json.dumps({"made": {}, "some": findings}))
    filled = fill("<!-- zoo/some.json height by variant -->\n<!-- zoo/some.json variant=x height steps.0.n -->\n")
    assert filled.splitlines() == [
        "<!-- zoo/some.json height by variant -->",
        "|  | variant x | variant y |",
        "|---|---|---|",
        "| a | 0.500 [0.000, 1.000] | 0.250 [0.000, 1.000] |",
        "| b | 0.750 [0.000, 1.000] |  |",
        "<!-- zoo/some.json variant=x height steps.0.n -->",
        "|  | height | steps.0.n |",
        "|---|---|---|",
        "| a | 0.500 [0.000, 1.000] | 3 |",
        "| b | 0.750 [0.000, 1.000] | 3 |",
    ]
    with pytest.raises(TaskError, match=r"some\.json: depth: no finding has it"):
        fill("<!-- zoo/some.json depth -->\n")


def test_a_page_of_results_that_are_not_there_is_one_clear_error():
    with pytest.raises(TaskError, match=r"other\.json: holds no results"):
        fill("<!-- other.json r2 -->\n")
    with pytest.raises(TaskError, match=r"zoo/other\.json: there are no such results"):
        fill("<!-- zoo/other.json height -->\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_tables_of_the_documentation_are_those_of_the_results(page):
    text = page.read_text()
    assert fill(text) == text
