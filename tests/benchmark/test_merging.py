import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmark.phenomena.merging import greedy_soup, in_one_order, mean_of, measure
from tests.benchmark.conftest import TREATMENTS
from tests.benchmark.test_alignment import shuffled, some_stack
from tests.benchmark.test_predictive import plainly
from tests.scenarios import NETWORKS
from zoo.errors import TaskError

REFERENCES = {"single", "best", "ensemble"}


@pytest.mark.parametrize("treatment", TREATMENTS)
@pytest.mark.parametrize("size", [2, 4])
def test_every_way_is_that_of_plain_modules(replicas, data, treatment, size):
    networks = replicas[treatment]
    (result,) = measure(networks, data, sizes=[size])
    assert result.groups == np.arange(9 // size * size).reshape(-1, size).tolist()
    expected = {"mean": [], **{way: [] for way in REFERENCES}}
    for group in result.groups:
        modules = [networks.module(k) for k in group]
        mean = networks.module(group[0])
        states = [module.state_dict() for module in modules]
        mean.load_state_dict({name: sum(state[name] for state in states) / size for name in states[0]})
        with torch.no_grad():
            p = torch.stack([module(data.test_x).softmax(1) for module in modules])
            losses = [functional.cross_entropy(module(data.train_x), data.train_y) for module in modules]
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
    copies = shuffled(stack.repeat(3))
    logits = stack.logits(x)
    torch.testing.assert_close(mean_of(in_one_order(copies, 3, x), 3).logits(x), logits)
    assert (mean_of(copies, 3).logits(x) - logits).abs().max() > 0.1


def test_a_greedy_soup_is_no_worse_on_the_train_split_than_its_best_network(replicas, data):
    for treatment in TREATMENTS:
        stack = replicas[treatment].stack(range(8))
        loss = stack.evaluate(data.train_x, data.train_y).loss.view(2, 4)
        soup = greedy_soup(stack, 4, loss, data).evaluate(data.train_x, data.train_y).loss
        assert (soup <= loss.amin(1) + 1e-6).all()
    copies = stack.take(0).repeat(4)
    loss = copies.evaluate(data.train_x, data.train_y).loss.view(1, 4)
    torch.testing.assert_close(greedy_soup(copies, 4, loss, data).rows[0], stack.rows[0])


def test_portions_change_nothing(replicas, data, monkeypatch):
    (whole,), portions = measure(replicas["standard"], data, sizes=[2]), []
    monkeypatch.setattr("benchmark.selection.stack_size", lambda *network: 5)
    monkeypatch.setattr("benchmark.phenomena.merging.rng_for", lambda *key: np.random.default_rng(0))
    (parts,) = measure(replicas["standard"], data, sizes=[2], progress=portions.append)
    assert portions == [4, 4]
    for way in ("mean", "greedy_soup", *REFERENCES):
        for name, estimate in whole.ways[way].items():
            found = parts.ways[way][name]
            assert (found.low, found.mean, found.high) == pytest.approx(
                (estimate.low, estimate.mean, estimate.high), abs=1e-4
            )


def test_sizes_of_which_there_are_two_groups_are_merged(replicas, data):
    assert [result.size for result in measure(replicas["w_asymmetric"], data)] == [2, 4]
    with pytest.raises(TaskError, match="w_asymmetric has 3 good networks; 4 or more are needed"):
        measure(replicas["w_asymmetric"][:3], data)


def test_groups_are_named_by_their_pairs(replicas, data):
    (result,) = measure(replicas["w_asymmetric"][[8, 3, 5, 2, 0]], data)
    assert result.groups == [[8, 3], [5, 2]]
