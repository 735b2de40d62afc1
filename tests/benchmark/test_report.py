import base64
from html.parser import HTMLParser

import numpy as np
import pytest

from benchmark.phenomena.mode_connectivity import ModeConnectivity, draw
from benchmark.report import (
    accuracy_histograms,
    predicted_against_true,
    write_report,
)
from metanets.evaluation import Result
from metanets.metrics import METRICS
from metanets.settings import Settings
from metanets.tasks import Task, TaskData
from tests.scenarios import small_recipe
from zoo import generate, open_zoo
from zoo.statistics import Estimate

TREATMENTS = ("standard", "w_asymmetric")
HOSTILE = "<script>alert('1')</script><img src=http://example.org/x.png>"
MODELS = ("linear", "mlp", "statnn")
LINKS = ("src", "href", "srcset", "data", "action", "poster", "style", "background")


def around(mean):
    mean = float(mean)
    return Estimate(mean, mean - 0.0437, mean + 0.0561, 7, "lines", "t", (mean,) * 7)


def some_result(model, treatment, rank):
    true = np.linspace(0.2, 0.9, 12)
    predicted = np.stack([true + 0.01 * rank, true - 0.03])
    return Result(
        model=model,
        task=Task(recipe="small", learn_from=(treatment,)),
        data=TaskData(recipe="0", pairs=48),
        networks={"train": 24, "validation": 12, "test": 12},
        seeds=2,
        parameters=7,
        seconds={"training": 1.0, "epoch": 0.1},
        metrics={name: around(0.1 + 0.0703 * rank - 0.3 * k) for k, name in enumerate(METRICS)},
        true=true.tolist(),
        predicted=predicted.tolist(),
        settings=Settings(),
        pairs=list(range(12)),
    )


def some_results(models=("mean", *MODELS)):
    cells = [(model, treatment) for treatment in TREATMENTS for model in models]
    return [some_result(*cell, rank) for rank, cell in enumerate(cells)]


def some_connectivity(treatment, rank):
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    curves = np.random.default_rng(rank).random((3, 25))
    return ModeConnectivity(
        treatment=treatment,
        variant="naive",
        couples=[(0, 1), (2, 3), (4, 5)],
        curves=dict.fromkeys(names, curves),
        barriers={name: around(2 + rank + 0.1 * k) for k, name in enumerate(names)},
        midpoints={name: around(5 + rank + 0.1 * k) for k, name in enumerate(names)},
        distance={"whole": around(9 + rank), "per_parameter": around(0.1)},
        zoo={"name": "small", "digest": "0"},
    )


CONNECTIVITY = [some_connectivity(treatment, rank) for rank, treatment in enumerate(TREATMENTS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    recipe = small_recipe(5, data={"name": "digits", "train_limit": 64}).only([*TREATMENTS, "narrow"])
    return generate(recipe, tmp_path_factory.mktemp("zoos") / "small").folder


@pytest.fixture
def small_zoo(folder):
    """A zoo with one treatment more than was measured."""
    return open_zoo(folder)


@pytest.fixture
def report(small_zoo, tmp_path):
    """A function that writes a report and returns its text."""

    def write(results=None, made=None):
        path = tmp_path / "deep" / "index.html"
        made = made or {"date": "today"}
        assert write_report(path, small_zoo, small_zoo, results or some_results(), CONNECTIVITY, made) == path
        assert [file.name for file in path.parent.iterdir()] == ["index.html"]
        return path.read_text()

    return write


class Page(HTMLParser):
    """The tags and links of a page, and the cells of its tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.cells, self.in_cell = set(), [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in LINKS]
        self.in_cell = tag in ("td", "th", "code") and (tag != "code" or self.in_cell)

    def handle_data(self, data):
        if self.in_cell and data.strip():
            self.cells.append(data.strip())


def test_report_is_one_file_that_fetches_nothing(report):
    text = report()
    page = Page(text)
    assert not page.tags & {"script", "link", "iframe", "object", "base"}
    assert len(page.links) == 3
    for link in page.links:
        start, _, image = link.partition(",")
        assert start == "data:image/png;base64"
        assert base64.b64decode(image, validate=True).startswith(b"\x89PNG")
    assert not [word for word in ("http:", "https:", "url(", "@import") if word in text]


def test_report_says_what_varies_within_brackets(report):
    assert report().count("Brackets: 95 % intervals over 7 lines (t).") == 3  # under two metrics and the barriers


def test_report_has_every_estimate_with_its_interval_in_its_place(report, small_zoo):
    results = some_results()
    cells = Page(report(results)).cells
    by_cell = {(result.model, result.treatment): result for result in results}
    for metric in ("r2", "kendall_tau"):
        for model in ("mean", *MODELS):
            row = [model, *(str(by_cell[model, treatment].metrics[metric]) for treatment in TREATMENTS)]
            assert row in [cells[i : i + len(row)] for i in range(len(cells))]
    for name, key in (("test loss, nats", "test_loss"), ("train accuracy, fraction", "train_accuracy")):
        start = cells.index(name)
        assert cells[start + 1 : start + 3] == [str(c.barriers[key]) for c in CONNECTIVITY]
    start = cells.index("test loss, middle of the line")
    assert cells[start + 1 : start + 3] == [str(c.midpoints["test_loss"]) for c in CONNECTIVITY]
    for treatment in TREATMENTS:
        assert cells.count(treatment) == 3
    assert cells.count(small_zoo.manifest.digest[:12]) == 2


def test_hostile_names_are_text(report, small_zoo):
    small_zoo.manifest.recipe.update(name=HOSTILE, description=HOSTILE)
    text = report(some_results(models=("mean", HOSTILE)), made={"command": HOSTILE, HOSTILE: "today"})
    page = Page(text)
    assert "script" not in page.tags
    assert all(link.startswith("data:image/png") for link in page.links)
    assert page.cells.count(HOSTILE) == 2 + 2  # two zoos; a metanetwork in two tables
    note = text.rpartition('class="note"')[2]
    assert note.count("&lt;script&gt;") == 2


def test_histograms_have_a_panel_for_each_treatment_and_count_every_trained_network(small_zoo):
    panels = accuracy_histograms(small_zoo).axes
    assert [panel.get_title() for panel in panels] == list(small_zoo.treatments)
    for panel, treatment in zip(panels, small_zoo.treatments, strict=True):
        counts = np.array([bar.get_height() for bar in panel.patches])
        bins = [bar.get_x() for bar in panel.patches]
        accuracies = 100 * small_zoo[treatment]["test_accuracy"]
        assert counts.sum() == len(accuracies) > 0
        assert np.array_equal(counts, np.histogram(accuracies, [*bins, 100])[0])


def test_predictions_have_a_panel_for_each_treatment_and_metanetwork():
    results = some_results()
    panels = predicted_against_true(results).axes
    assert len(panels) == len(TREATMENTS) * len(MODELS)
    assert [panel.get_title() for panel in panels[: len(TREATMENTS)]] == list(TREATMENTS)
    first_column = panels[:: len(TREATMENTS)]
    assert [panel.get_ylabel().partition(":")[0] for panel in first_column] == list(MODELS)
    cells = [(model, treatment) for model in MODELS for treatment in TREATMENTS]
    by_cell = {(result.model, result.treatment): result for result in results}
    for panel, cell in zip(panels, cells, strict=True):
        x, y = panel.lines[1].get_data()
        assert np.allclose(x, 100 * np.array(by_cell[cell].true))
        assert np.allclose(y, 100 * np.mean(by_cell[cell].predicted, 0))


def test_lines_have_a_panel_for_each_treatment_with_every_line_and_the_mean():
    panels = draw(CONNECTIVITY).axes
    assert [panel.get_title() for panel in panels] == list(TREATMENTS)
    for panel, result in zip(panels, CONNECTIVITY, strict=True):
        *lines, mean = [line.get_ydata() for line in panel.lines]
        assert np.array_equal(lines, result.curves["test_loss"])
        assert np.allclose(mean, result.curves["test_loss"].mean(0))
