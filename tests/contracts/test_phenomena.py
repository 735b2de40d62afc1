"""What holds for every phenomenon in `PHENOMENA`."""

import json
import shutil
from functools import cache
from inspect import Parameter, signature

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from benchmark.figures import save, styled
from benchmark.findings import Finding, to_json
from benchmark.inference import evaluator, langevin
from benchmark.phenomena import PHENOMENA, bayesian
from tests.scenarios import small_recipe
from zoo import generate
from zoo.data import load_data
from zoo.progress import ignore

TREATMENTS = ("standard", "w_asymmetric", "sigma_asymmetric")
EVERY = pytest.mark.parametrize("name", PHENOMENA)
TREATMENT = pytest.mark.parametrize("treatment", TREATMENTS)
PAIRS = [9, 1, 8, 2, 5, 7, 6, 3]  # all but two, and not in their places
COUNTED = {"diverged", "reached"}  # what optimisation finds about all networks of a treatment


@pytest.fixture(scope="module")
def data():
    """A hundred digits to train on."""
    return load_data("digits", train_limit=100)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Ten networks a treatment that differ in nothing but their seeds; for reading only."""
    recipe = small_recipe(10, training={"batch_size": 32, "learning_rate": 1e-2, "epochs": 2})
    return generate(recipe.only(TREATMENTS), tmp_path_factory.mktemp("zoos") / "replicas")


@pytest.fixture(scope="module", autouse=True)
def short_chains():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "SAMPLES", 5)
        patch.setattr(bayesian, "CHAIN", langevin.Settings(burn_in=20, every=2, batch_size=50))
        yield


@pytest.fixture(scope="module")
def measured(zoo, data):
    """A function that measures a phenomenon under a treatment, once, and returns the progress, too."""

    @cache
    def measure(name, treatment):
        numbers = []
        return PHENOMENA[name].measure(zoo[treatment][PAIRS], data, progress=numbers.append), numbers

    return measure


def estimates(value):
    """Every estimate in what `to_json` gave."""
    if isinstance(value, dict):
        if "low" in value:
            yield value
        for part in value.values():
            yield from estimates(part)
    elif isinstance(value, list):
        for part in value:
            yield from estimates(part)


def named(finding):
    """The numbers of the pairs that a finding names, in its order; None if it names none."""
    names = [field for field in ("networks", "groups", "couples") if not isinstance(finding.get(field, 0), int)]
    return np.ravel(finding[names[0]]).tolist() if names else None


@EVERY
def test_measure_takes_networks_data_and_options_by_name(name):
    function = PHENOMENA[name].measure
    assert function.__name__ == "measure"
    networks, data, *options = signature(function).parameters.values()
    assert (networks.name, data.name) == ("networks", "data")
    assert networks.default is Parameter.empty
    assert all(option.kind == Parameter.KEYWORD_ONLY and option.default is not Parameter.empty for option in options)
    assert signature(function).parameters["progress"].default is ignore
    assert list(signature(PHENOMENA[name].draw).parameters) == ["findings"]


@EVERY
@TREATMENT
def test_findings_are_json_of_finite_numbers_with_intervals_around_their_means(zoo, measured, name, treatment):
    findings, _ = measured(name, treatment)
    assert findings
    assert all(isinstance(finding, Finding) for finding in findings)
    values = json.loads(json.dumps(to_json(findings), allow_nan=False))
    for finding, value in zip(findings, values, strict=True):
        assert finding.treatment == value["treatment"] == treatment
        assert value["zoo"] == {"name": "small", "digest": zoo.manifest.digest}
        assert finding.headline().strip()
        assert "\n" not in finding.headline()
        found = list(estimates(value))
        assert found or name == "planes"  # of which there is one
        assert all(each["low"] <= each["mean"] <= each["high"] for each in found if each["low"] is not None)
        assert all(each["varies"] and each["n"] > 0 for each in found)


@EVERY
@TREATMENT
def test_findings_name_pairs_and_not_positions(measured, name, treatment):
    for finding in to_json(measured(name, treatment)[0]):
        names = named(finding)
        assert names == PAIRS[: len(names)] if name != "optimisation" else names is None


@EVERY
def test_progress_counts_what_has_been_measured(measured, name):
    _, numbers = measured(name, "w_asymmetric")
    assert numbers
    assert all(type(number) is int and number > 0 for number in numbers)


@EVERY
def test_findings_do_not_depend_on_networks_that_diverged(zoo, data, diverge, tmp_path, name):
    damaged = diverge(shutil.copytree(zoo.folder, tmp_path / "zoo"), "standard", 3)
    measure = PHENOMENA[name].measure
    found, expected = (
        [{field: value for field, value in finding.items() if field not in COUNTED} for finding in to_json(findings)]
        for findings in (
            measure(damaged.networks("standard", diverged=True), data),
            measure(zoo["standard"][np.arange(10) != 3], data),
        )
    )
    assert found == expected


@EVERY
def test_findings_of_several_treatments_are_drawn_with_their_names(measured, name, tmp_path):
    findings = [finding for treatment in TREATMENTS[:2] for finding in measured(name, treatment)[0]]
    with styled():
        figure = PHENOMENA[name].draw(findings)
        save(figure, tmp_path / "figure.png")
    assert isinstance(figure, Figure)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    texts = {text.get_text() for text in figure.findobj(Text)}
    assert texts >= set(TREATMENTS[:2])
    assert any(ax.lines or ax.collections for ax in figure.axes)
