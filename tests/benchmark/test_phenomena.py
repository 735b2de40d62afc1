import json
from functools import cache

import numpy as np
import pytest
from matplotlib.text import Text

from benchmark.figures import save, styled
from benchmark.findings import to_json
from benchmark.inference import langevin
from benchmark.phenomena import PHENOMENA, bayesian, measure
from tests.benchmark.conftest import TREATMENTS
from tests.scenarios import SETTINGS, small_recipe
from zoo import generate
from zoo.statistics import Estimate


def estimates(value):
    """Every estimate in what `to_json` gave."""
    if isinstance(value, dict):
        if value.keys() == {"mean", "low", "high"}:
            yield value
        for part in value.values():
            yield from estimates(part)
    elif isinstance(value, list):
        for part in value:
            yield from estimates(part)


@pytest.fixture(scope="module")
def measured(replicas, data):
    """A function that measures a phenomenon under a treatment, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bayesian, "CHAIN", langevin.Settings(burn_in=20, every=2, batch_size=50))
        yield cache(lambda name, treatment: PHENOMENA[name].measure(replicas, treatment, data))


@pytest.mark.parametrize("name", PHENOMENA)
@pytest.mark.parametrize("treatment", TREATMENTS)
def test_findings_are_json_of_finite_numbers_with_intervals_around_their_means(replicas, measured, name, treatment):
    findings = measured(name, treatment)
    values = json.loads(json.dumps(to_json(findings), allow_nan=False))
    for finding, own in zip(findings, values, strict=True):
        assert finding.treatment == own["treatment"] == treatment
        assert own["zoo"] == {"name": "small", "digest": replicas.manifest.digest}
        assert "\n" not in finding.headline()
        found = list(estimates(own))
        assert found or name == "planes"  # of which there is one
        assert all(each["low"] <= each["mean"] <= each["high"] for each in found)


@pytest.mark.parametrize("name", PHENOMENA)
def test_findings_of_several_treatments_are_drawn_with_their_names(measured, name, tmp_path):
    findings = [finding for treatment in TREATMENTS[:2] for finding in measured(name, treatment)]
    with styled():
        figure = PHENOMENA[name].draw(findings)
        save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    texts = {text.get_text() for text in figure.findobj(Text)}
    assert texts >= set(TREATMENTS[:2])
    assert any(ax.lines or ax.collections for ax in figure.axes)


def test_json_has_the_numbers_of_arrays_to_four_digits_and_estimates_by_name():
    values = {"a": np.array([[1 / 3, 2000.4]], np.float32), "b": [Estimate(1.0, 0.5, 2.0)], "c": ("x", 3, None)}
    assert to_json(values) == {
        "a": [[0.3333, 2000.0]],
        "b": [{"mean": 1.0, "low": 0.5, "high": 2.0}],
        "c": ["x", 3, None],
    }


def test_treatments_are_measured_side_by_side_in_their_order(replicas, data):
    measured = []
    for workers in (1, 2):
        advanced = []
        findings = measure("optimisation", replicas, data, workers=workers, advance=advanced.append)
        measured.append(to_json(findings))
        assert sum(number for number in advanced if isinstance(number, int)) == len(replicas.treatments)
        assert [finding.treatment for finding in findings] == list(replicas.treatments)
    assert measured[0] == measured[1]


def test_treatments_that_cannot_be_measured_are_left_out_with_the_reason(tmp_path, data):
    own = SETTINGS["sigma_asymmetric"] | {"shared": False}
    training = {"batch_size": 32, "learning_rate": 1e-2, "epochs": 1}
    recipe = small_recipe(4, training=training, treatments={"standard": SETTINGS["standard"], "own": own})
    zoo, left = generate(recipe, tmp_path / "zoo"), {}
    found = measure("merging", zoo, data, advance=lambda progress: None, left_out=left.__setitem__)
    assert {finding.treatment for finding in found} == {"standard"}
    assert list(left) == ["own"]
    assert "have their own activations" in str(left["own"])
