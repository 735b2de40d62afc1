import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmark import docs
from benchmark.docs import fill
from benchmark.metanetworks import ENTRIES, Entry, tabulate, tabulate_costs, tabulate_differences, tabulate_gains
from tests.benchmark.test_report import some_result
from zoo import statistics
from zoo.errors import TaskError
from zoo.statistics import mean_interval, paired

DIFFERENCES = re.compile(r"<!-- metanetworks\S+ \S+ less \S+ -->\n(?:\|.*\n)*")
PAGES = sorted(path for path in (Path(__file__).parents[2] / "docs").glob("*.md"))
RESULTS = [some_result(*place, rank) for rank, place in enumerate([("mlp", "a"), ("mlp", "b"), ("gmn", "a")])]


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch, request):
    if "page" not in request.fixturenames:
        monkeypatch.setattr(docs, "RESULTS", tmp_path)
        monkeypatch.setattr(statistics, "RESAMPLES", 20)
        (tmp_path / "some.json").write_bytes(ENTRIES.dump_json([Entry(result, {}) for result in RESULTS]))


@pytest.mark.parametrize(
    ("words", "table"),
    [
        ("r2", lambda: tabulate(RESULTS, "r2")),
        ("rmse model_treatment networks", lambda: tabulate(RESULTS, "rmse", "model_treatment", "networks")),
        ("costs", lambda: tabulate_costs(RESULTS)),
        ("gmn less mlp", lambda: tabulate_differences(RESULTS, "gmn", "mlp")),
        ("b less a", lambda: tabulate_gains(RESULTS, "b", "a")),
    ],
)
def test_a_table_takes_the_place_of_the_one_before_and_nothing_else_changes(words, table):
    page = "Before.\n\n<!-- some.json {} -->\n{}\nAfter, 3 | 4.\n\n| x |\n|---|\n"
    filled = page.format(words, table() + "\n")
    assert fill(page.format(words, "")) == filled
    assert fill(page.format(words, "| old |\n|---|\n| 1 |\n")) == filled
    assert fill(filled) == filled


def test_files_that_are_joined_give_one_table(tmp_path):
    for name, results in (("one", RESULTS[2:]), ("other", RESULTS[:2])):
        (tmp_path / f"{name}.json").write_bytes(ENTRIES.dump_json([Entry(result, {}) for result in results]))
    assert fill("<!-- one.json+other.json r2 -->\n") == f"<!-- one.json+other.json r2 -->\n{tabulate(RESULTS, 'r2')}\n"


def test_a_phenomenon_is_a_table_of_treatments(tmp_path):
    rng = np.random.default_rng(0)
    estimates = {mean: mean_interval(mean + 0.1 * rng.standard_normal(4)) for mean in (0.25, 0.5, 0.75)}
    findings = [
        {
            "treatment": treatment,
            "variant": variant,
            "networks": [0, 1, 2, 3],
            "height": asdict(estimates[mean]),
            "steps": [{"n": 3}],
        }
        for treatment, variant, mean in (("a", "x", 0.5), ("a", "y", 0.25), ("b", "x", 0.75))
    ]
    findings.append({"treatment": "b", "variant": "z", "height": None})
    findings[0]["steps_needed"] = {"values": [3.0, None], "limit": 9, "varies": "posteriors"}
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "some.json").write_text(json.dumps({"made": {}, "some": findings}))
    asked = ("height by variant", "variant=x height steps.0.n", "steps_needed by variant", "height by variant less b")
    filled = fill("".join(f"<!-- zoo/some.json {words} -->\n" for words in asked))
    brackets = ["", "Brackets: 95 % intervals over 4 networks (t)."]
    assert filled.splitlines() == [
        "<!-- zoo/some.json height by variant -->",
        "|  | variant x | variant y |",
        "|---|---|---|",
        f"| a | {estimates[0.5]} | {estimates[0.25]} |",
        f"| b | {estimates[0.75]} |  |",
        *brackets,
        "<!-- zoo/some.json variant=x height steps.0.n -->",
        "|  | height | steps.0.n |",
        "|---|---|---|",
        f"| a | {estimates[0.5]} | 3 |",
        f"| b | {estimates[0.75]} | 3 |",
        *brackets,
        "<!-- zoo/some.json steps_needed by variant -->",
        "|  | variant x |",
        "|---|---|",
        "| a | 1 of 2 within 9 steps |",
        "| b |  |",
        "<!-- zoo/some.json height by variant less b -->",
        "|  | variant x |",
        "|---|---|",
        f"| a less b | {paired(estimates[0.5], estimates[0.75])} |",
        *brackets,
    ]
    assert fill(filled + "\n") == filled + "\n"
    with pytest.raises(TaskError, match=r"some\.json: depth: no finding has it"):
        fill("<!-- zoo/some.json depth -->\n")
    before = {"mean": 0.5, "low": 0.4, "high": 0.6}  # of before estimates said what varies
    findings[3] |= {"height": before, "steps_needed": before, "succeeded": 3, "networks": [0, 1, 2, 3]}
    (tmp_path / "zoo" / "some.json").write_text(json.dumps({"made": {}, "some": findings}))
    assert "| b | 0.5 | 3 of 4 |" in fill("<!-- zoo/some.json variant=z height steps_needed -->\n")
    with pytest.raises(TaskError, match="there is no treatment c; name one that was measured"):
        fill("<!-- zoo/some.json height less c -->\n")
    findings[2]["networks"] = [0, 1, 2, 4]
    (tmp_path / "zoo" / "some.json").write_text(json.dumps({"made": {}, "some": findings}))
    with pytest.raises(TaskError, match=r"some\.json: b: its networks are others than those of a treatment before"):
        fill("<!-- zoo/some.json height less a -->\n")


def test_a_page_of_results_that_are_not_there_is_one_clear_error():
    with pytest.raises(TaskError, match=r"other\.json: holds no results"):
        fill("<!-- other.json r2 -->\n")
    with pytest.raises(TaskError, match=r"zoo/other\.json: there are no such results"):
        fill("<!-- zoo/other.json height -->\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_tables_of_the_documentation_are_those_of_the_results(page, monkeypatch):
    """The intervals of differences of metanetworks are left out, because they take a minute of resampling."""
    text = page.read_text()
    monkeypatch.setattr(statistics, "RESAMPLES", 2 if page.name == "metanetworks.md" else statistics.RESAMPLES)
    assert DIFFERENCES.sub(without_intervals, fill(text)) == DIFFERENCES.sub(without_intervals, text)


def without_intervals(table):
    return re.sub(r" \[[^]]*\]", "", table[0])
