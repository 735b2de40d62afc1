import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from benchmark.findings import to_json
from benchmark.inference import langevin, local
from benchmark.phenomena import bayesian as phenomenon
from benchmark.phenomena import measure
from benchmark.phenomena.bayesian import bayesian, draw
from tests.benchmark.test_predictive import plainly
from tests.scenarios import small_recipe
from zoo import generate
from zoo.data import load_data
from zoo.errors import TaskError

TREATMENTS = ("standard", "w_asymmetric", "w_initialised")


@pytest.fixture(scope="module")
def data():
    return load_data("digits", train_limit=200)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    training = {"batch_size": 32, "learning_rate": 1e-2, "epochs": 8}
    return generate(small_recipe(7, training=training).only(TREATMENTS), tmp_path_factory.mktemp("zoos") / "replicas")


@pytest.fixture(scope="module")
def findings(replicas, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phenomenon, "NETWORKS", 3)
        patch.setattr(phenomenon, "GOAL", 2.5)
        patch.setattr(phenomenon, "CHAIN", langevin.Settings(burn_in=20, every=2, batch_size=50))
        return [finding for treatment in TREATMENTS for finding in bayesian(replicas, treatment, data)]


def of(findings, treatment, method):
    (finding,) = [f for f in findings if (f.treatment, f.method) == (treatment, method)]
    return finding


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_every_method_is_applied_and_quiet_where_w_asymmetric_networks_could_be(findings, treatment):
    methods = {finding.method for finding in findings if finding.treatment == treatment}
    everywhere = {"single", "ensemble", "low_rank", "mean_field", "swag", "laplace", "langevin"}
    assert methods == everywhere | ({"quiet"} if treatment != "w_asymmetric" else set())


def test_quiet_posteriors_have_no_variance_just_where_w_asymmetric_networks_are_fixed(replicas, data):
    _, random = phenomenon._choices(replicas, "w_initialised", data)["quiet"]
    assert torch.equal(random, replicas.treated("w_asymmetric").trainable)


def test_single_networks_and_their_ensemble_are_measured_as_plain_modules(replicas, data, findings):
    x, y = data.test_x, data.test_y
    with torch.no_grad():
        p = torch.stack([replicas.module("standard", k)(x).softmax(-1) for k in range(7)])
    singles = [plainly(own, y) for own in p.double()]
    for name, found in of(findings, "standard", "single").final.items():
        if name != "detection":
            assert found.mean == pytest.approx(np.mean([own[name] for own in singles]), rel=1e-4)
    groups = [plainly(p[k : k + 3].mean(0).double(), y) for k in (0, 3)]  # three of them each, the last is left over
    for name, found in of(findings, "standard", "ensemble").final.items():
        if name != "detection":
            assert found.mean == pytest.approx(np.mean([own[name] for own in groups]), rel=1e-4)


def test_what_is_told_from_the_data_is_another_data_set_if_there_is_one(replicas, data):
    noise = torch.randn(50, *data.shape, generator=torch.Generator().manual_seed(0))
    judge = phenomenon.Judge(replicas, "standard", replace(data, outside=noise), [0, 1, 2])
    with torch.no_grad():
        each = [
            [replicas.module("standard", k)(x).softmax(-1).amax(-1) for x in (data.test_x, noise)] for k in range(3)
        ]
    of_data = np.repeat([1, 0], [len(data.test_x), len(noise)])
    areas = [roc_auc_score(of_data, torch.cat(confidence).double()) for confidence in each]
    single = judge.trained_networks(np.arange(3))[0]
    assert single.final["detection"].mean == pytest.approx(np.mean(areas), rel=1e-4)


@pytest.mark.parametrize("method", ["low_rank", "mean_field"])
def test_curves_tell_how_the_bound_grew(findings, method):
    finding = of(findings, "standard", method)
    curves = finding.curves
    np.testing.assert_allclose(curves["bound"], -curves["expected_loss"] - curves["divergence"])
    assert curves["bound"].shape == (3, len(finding.steps))
    assert (curves["bound"][:, -1] > curves["bound"][:, 0]).all()
    assert finding.succeeded == 3
    assert 0 < finding.steps_needed.mean < finding.steps[-1]


def test_steps_needed_are_those_until_what_is_lost_and_paid_is_a_nat():
    loss = np.array([[3.0, 1.9], [1.5, 1.9], [0.9, 1.9], [0.5, 1.9], [0.5, 0.1]])
    divergence = 20 + np.array([[0.0, 0.0], [0.1, 0.0], [0.2, 0.0], [0.3, 0.0], [0.4, 0.0]])
    assert phenomenon.steps_needed(loss, divergence, 1).tolist() == [4, 5]  # 3, 1.6, 1.1, .8, .9
    assert np.array_equal(phenomenon.steps_needed(loss, divergence, 2), [4, 5])  # means 2.3, 1.35, .95
    assert np.array_equal(phenomenon.steps_needed(loss, divergence, 4), [np.nan, np.nan], equal_nan=True)


def test_the_bound_is_told_while_posteriors_train(replicas, data, monkeypatch):
    told = []
    monkeypatch.setattr(phenomenon, "NETWORKS", 2)
    monkeypatch.setattr(phenomenon, "AROUND", 0)  # nothing around trained networks
    monkeypatch.setattr(phenomenon, "CHECKPOINTS", 2)
    measure("bayesian", replicas, data, advance=told.append)
    words = [word for word in told if isinstance(word, str)]
    assert sum(number for number in told if isinstance(number, int)) == len(TREATMENTS)
    assert re.fullmatch(r"standard: low_rank, \d+ of \d+ steps, ELBO -\d+\.\d{3} nats an example", words[0])


def test_posteriors_near_one_another_predict_the_same(findings):
    standard, masked = (of(findings, t, "swag").apart for t in ("standard", "w_asymmetric"))
    assert masked["barrier"].mean < standard["barrier"].mean
    assert {"temperature", "rhat"} < of(findings, "standard", "langevin").apart.keys()
    assert all(value.mean >= 0 for finding in findings for value in finding.apart.values())


def test_findings_are_drawn_and_written(findings):
    figure = draw(findings)
    assert [ax.get_title() for ax in figure.axes] == ["low_rank", "mean_field", "quiet", "test loss at the end"]
    assert json.loads(json.dumps(to_json(findings)))[0]["method"] == "single"


def test_networks_that_nothing_can_make_random_are_refused(replicas, data, monkeypatch):
    monkeypatch.setattr(local, "LAYERS", ())
    with pytest.raises(TaskError, match="no linear maps or convolutions"):
        bayesian(replicas, "standard", data)
