import json
import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import cross_entropy

from benchmark.findings import to_json
from benchmark.inference import evaluator, langevin, local
from benchmark.phenomena import bayesian, run
from tests.benchmark.test_predictive import plainly
from zoo.errors import TaskError

TREATMENTS = ("standard", "w_asymmetric", "w_initialised")


@pytest.fixture(scope="module")
def findings(replicas, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "SAMPLES", 5)
        patch.setattr(bayesian, "NETWORKS", 3)
        patch.setattr(bayesian, "GOAL", 2.5)
        patch.setattr(bayesian, "CHAIN", langevin.Settings(burn_in=20, every=2, batch_size=50))
        chosen = [replicas[treatment][2:] for treatment in TREATMENTS]
        return [finding for networks in chosen for finding in bayesian.measure(networks, data)]


def one_of(findings, treatment, method):
    (finding,) = [f for f in findings if (f.treatment, f.method) == (treatment, method)]
    return finding


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_every_method_is_applied_and_quiet_to_networks_without_fixed_entries(findings, treatment):
    methods = {finding.method for finding in findings if finding.treatment == treatment}
    everywhere = {"single", "ensemble", "low_rank", "mean_field", "swag", "laplace", "langevin"}
    assert methods == everywhere | ({"quiet"} if treatment != "w_asymmetric" else set())


def test_quiet_posteriors_have_no_variance_just_where_w_asymmetric_networks_are_fixed(replicas, data):
    _, random = bayesian._choices(replicas["w_initialised"], data, 0)["quiet"]
    assert torch.equal(random, replicas["w_asymmetric"].mask)


def test_single_networks_and_their_ensemble_are_measured_as_plain_modules(replicas, data, findings):
    x, y = data.test_x, data.test_y
    with torch.no_grad():
        p = torch.stack([replicas["standard"].module(k)(x).softmax(-1) for k in range(2, 9)])
    singles = [plainly(own, y) for own in p.double()]
    for name, found in one_of(findings, "standard", "single").final.items():
        if name != "detection":
            assert found.mean == pytest.approx(np.mean([own[name] for own in singles]), rel=1e-4)
    groups = [plainly(p[k : k + 3].mean(0).double(), y) for k in (0, 3)]  # of three each, so the last is left out
    for name, found in one_of(findings, "standard", "ensemble").final.items():
        if name != "detection":
            assert found.mean == pytest.approx(np.mean([own[name] for own in groups]), rel=1e-4)


def test_test_examples_are_told_from_another_data_set_if_there_is_one(replicas, data):
    noise, networks = torch.randn(50, *data.shape, generator=torch.Generator().manual_seed(0)), replicas["standard"][:3]
    measuring = evaluator.Evaluator(networks, replace(data, outside=noise))
    with torch.no_grad():
        each = [[networks.module(k)(x).softmax(-1).amax(-1) for x in (data.test_x, noise)] for k in range(3)]
    of_data = np.repeat([1, 0], [len(data.test_x), len(noise)])
    areas = [roc_auc_score(of_data, torch.cat(confidence).double()) for confidence in each]
    single = measuring.trained_networks(networks)[0]
    assert single.final["detection"].mean == pytest.approx(np.mean(areas), rel=1e-4)


@pytest.mark.parametrize("method", ["low_rank", "mean_field"])
def test_curves_show_how_the_bound_grew(findings, method):
    finding = one_of(findings, "standard", method)
    curves = finding.curves
    np.testing.assert_allclose(curves["bound"], -curves["expected_loss"] - curves["divergence"])
    assert curves["bound"].shape == (3, len(finding.steps))
    assert (curves["bound"][:, -1] > curves["bound"][:, 0]).all()
    assert len(finding.steps_needed.known) == 3
    assert 0 < max(finding.steps_needed.known) < finding.steps[-1] <= finding.steps_needed.limit


def test_steps_are_counted_until_loss_and_growth_of_the_divergence_are_a_nat():
    loss = np.array([[3.0, 1.9], [1.5, 1.9], [0.9, 1.9], [0.5, 1.9], [0.5, 0.1]])
    divergence = 20 + np.array([[0.0, 0.0], [0.1, 0.0], [0.2, 0.0], [0.3, 0.0], [0.4, 0.0]])
    assert bayesian.steps_needed(loss, divergence, 1).tolist() == [4, 5]  # 3, 1.6, 1.1, .8, .9
    assert np.array_equal(bayesian.steps_needed(loss, divergence, 2), [4, 5])  # means 2.3, 1.35, .95
    assert np.array_equal(bayesian.steps_needed(loss, divergence, 4), [np.nan, np.nan], equal_nan=True)


def test_the_bound_is_logged_while_posteriors_train_and_progress_counts_networks(replicas, data, monkeypatch):
    lines, numbers, measured = [], [], []
    monkeypatch.setattr(bayesian, "NETWORKS", 2)
    monkeypatch.setattr(bayesian, "AROUND", 0)  # nothing around trained networks
    monkeypatch.setattr(bayesian, "CHECKPOINTS", 2)
    monkeypatch.setattr(evaluator, "SAMPLES", 1)
    bayesian.measure(replicas["w_asymmetric"], data, progress=numbers.append, log=lines.append)
    assert numbers == [2, 2]  # low rank and mean field
    line = r"low_rank, \d+ of \d+ steps, ELBO -\d+\.\d{3} nats per example"
    assert re.fullmatch(line, lines[0])
    lines.clear()
    run(bayesian.measure, replicas, data, progress=measured.append, log=lines.append)
    assert measured == [1] * len(replicas.treatments)
    assert re.fullmatch(f"standard: {line}", lines[0])


def test_findings_name_the_pairs_that_posteriors_start_from(findings):
    assert all(finding.networks == [2, 3, 4] for finding in findings)


def test_posteriors_near_one_another_predict_the_same(findings):
    standard, masked = (one_of(findings, t, "swag").apart for t in ("standard", "w_asymmetric"))
    assert masked["barrier"].mean < standard["barrier"].mean
    assert {"temperature", "rhat"} < one_of(findings, "standard", "langevin").apart.keys()
    assert all(value.mean >= 0 for finding in findings for value in finding.apart.values())


def test_posteriors_are_compared_two_by_two_and_both_they_and_the_examples_vary(findings, replicas, data):
    finding = one_of(findings, "standard", "swag")
    assert (finding.apart["barrier"].n, finding.apart["barrier"].method) == (3, "jackknife")
    assert finding.final["loss"].varies == "posteriors and test examples"
    single = one_of(findings, "standard", "single")
    with torch.no_grad():
        predicted = [replicas["standard"].module(k)(data.test_x).argmax(-1) for k in range(2, 9)]
    expected = [(a != b).double().mean().item() for a, b in combinations(predicted, 2)]
    assert single.apart["disagreement"].mean == pytest.approx(np.mean(expected))
    assert single.apart["disagreement"].n == 7


def test_intervals_of_test_losses_are_as_wide_as_the_sample_of_test_examples_makes_them(findings, replicas, data):
    with torch.no_grad():
        logits = [replicas["standard"].module(k)(data.test_x) for k in range(2, 9)]
    losses = torch.stack([cross_entropy(each, data.test_y, reduction="none") for each in logits]).mean(0)
    found = one_of(findings, "standard", "single").final["loss"]
    assert (found.high - found.low) / 2 > 1.8 * losses.std() / len(losses) ** 0.5


def test_findings_are_drawn_and_written(findings):
    figure = bayesian.draw(findings)
    assert [ax.get_title() for ax in figure.axes] == ["low_rank", "mean_field", "quiet", "test loss at the end"]
    assert json.loads(json.dumps(to_json(findings)))[0]["method"] == "single"


def test_networks_that_nothing_can_make_random_are_refused(replicas, data, monkeypatch):
    monkeypatch.setattr(local, "LAYERS", ())
    with pytest.raises(TaskError, match="no linear maps or convolutions"):
        bayesian.measure(replicas["standard"], data)
