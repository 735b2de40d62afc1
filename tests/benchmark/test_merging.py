import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmark.phenomena.merging import greedy_soup, in_one_order, mean_of, merging
from tests.benchmark.test_alignment import shuffled, some_stack
from tests.benchmark.test_predictive import plainly
from tests.scenarios import NETWORKS, small_recipe
from zoo import generate
from zoo.data import load_data
from zoo.errors import TaskError
from zoo.networks.stack import Stack

TREATMENTS = ("standard", "w_asymmetric", "sigma_asymmetric")
REFERENCES = {"single", "best", "ensemble"}


@pytest.fixture(scope="module")
def data():
    return load_data("digits", train_limit=200)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    training = {"batch_size": 32, "learning_rate": 1e-2, "epochs": 4}
    return generate(small_recipe(9, training=training).only(TREATMENTS), tmp_path_factory.mktemp("zoos") / "replicas")


@pytest.mark.parametrize("treatment", TREATMENTS)
@pytest.mark.parametrize("size", [2, 4])
def test_every_way_is_that_of_plain_modules(replicas, data, treatment, size):
    (result,) = merging(replicas, treatment, data, sizes=[size])
    assert result.groups == np.arange(9 // size * size).reshape(-1, size).tolist()
    expected = {"mean": [], **{way: [] for way in REFERENCES}}
    for group in result.groups:
        networks = [replicas.module(treatment, k) for k in group]
        mean = replicas.module(treatment, group[0])
        states = [network.state_dict() for network in networks]
        mean.load_state_dict({name: sum(state[name] for state in states) / size for name in states[0]})
        with torch.no_grad():
            p = torch.stack([network(data.test_x).softmax(1) for network in networks])
            losses = [functional.cross_entropy(network(data.train_x), data.train_y) for network in networks]
            expected["mean"].append(plainly(mean(data.test_x).softmax(1), data.test_y))
        own = [plainly(each, data.test_y) for each in p]
        expected["single"].append({name: np.mean([each[name] for each in own]) for name in own[0]})
        expected["best"].append(own[int(np.argmin(losses))])
        expected["ensemble"].append(plainly(p.mean(0), data.test_y))
    for way, groups in expected.items():
        for name in ("accuracy", "loss", "calibration_error"):
            assert result.ways[way][name].mean == pytest.approx(np.mean([each[name] for each in groups]), abs=1e-4)
    assert result.ways.keys() - {"aligned_mean"} == {"mean", "greedy_soup", *REFERENCES}
    assert ("aligned_mean" in result.ways) == (treatment != "sigma_asymmetric")


def test_the_mean_of_copies_in_one_order_is_the_network_and_of_shuffled_ones_is_not():
    stack, x = some_stack("mlp", 2), NETWORKS["mlp"].examples()
    copies = shuffled(Stack(stack.rows.repeat_interleave(3, 0), stack.module, stack.layout))
    logits = stack.logits(x)
    torch.testing.assert_close(mean_of(in_one_order(copies, 3, x), 3).logits(x), logits)
    assert (mean_of(copies, 3).logits(x) - logits).abs().max() > 0.1


def test_a_greedy_soup_is_no_worse_on_the_train_split_than_its_best_network(replicas, data):
    for treatment in TREATMENTS:
        stack = replicas.stack(treatment, range(8))
        loss = stack.evaluate(data.train_x, data.train_y).loss.view(2, 4)
        soup = greedy_soup(stack, 4, loss, data).evaluate(data.train_x, data.train_y).loss
        assert (soup <= loss.amin(1) + 1e-6).all()
    (first, *_), copies = stack.rows, Stack(stack.rows[:1].repeat(4, 1), stack.module, stack.layout)
    loss = copies.evaluate(data.train_x, data.train_y).loss.view(1, 4)
    torch.testing.assert_close(greedy_soup(copies, 4, loss, data).rows[0], first)


def test_groups_are_measured_in_portions_that_change_nothing(replicas, data, monkeypatch):
    (whole,), portions = merging(replicas, "standard", data, sizes=[2]), []
    monkeypatch.setattr("benchmark.phenomena.merging.stack_size", lambda *network: 5)
    monkeypatch.setattr("benchmark.phenomena.merging.rng_for", lambda *key: np.random.default_rng(0))
    (parts,) = merging(replicas, "standard", data, sizes=[2], progress=portions.append)
    assert portions == [4, 4]
    for way in ("mean", "greedy_soup", *REFERENCES):
        for name, estimate in whole.ways[way].items():
            assert parts.ways[way][name] == pytest.approx(estimate, abs=1e-4)


def test_sizes_of_which_there_are_two_groups_are_merged(replicas, data, monkeypatch):
    assert [result.size for result in merging(replicas, "w_asymmetric", data)] == [2, 4]
    monkeypatch.setattr(replicas, "index", lambda treatment: np.arange(3))
    with pytest.raises(TaskError, match="w_asymmetric has 3 good networks; 4 or more are needed"):
        merging(replicas, "w_asymmetric", data)
