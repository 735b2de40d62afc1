import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset
from torch.utils.data import Dataset as TorchDataset
from torch_geometric.data import Data

from metanets.datasets import ZooGraphs, ZooRows
from metanets.examples import InMemory, ItemByItem, Permuted, examples_of, read_examples
from metanets.inputs import fit_reader
from metanets.selection import label
from tests.scenarios import NETWORKS
from zoo.errors import TaskError
from zoo.networks.stack import Stack

INDEX = torch.tensor([[4, 0], [2, 2]])
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


class Pairs(TorchDataset):
    """A data set of somebody else's, which counts how often it is read."""

    def __init__(self, x, y):
        self.x, self.y, self.read = x, y, 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        self.read += 1
        return self.x[i], self.y[i]


class Stream(IterableDataset):
    """A data set without a length."""

    def __iter__(self):
        yield from zip(X, X.sum(1), strict=True)


def split_of(zoo, split, treatment="standard"):
    return zoo[treatment].split(split)


@pytest.mark.parametrize(
    "data",
    [
        list(zip(X, X.sum(1), strict=True)),
        [(x.numpy(), float(x.sum())) for x in X],
        [[x.tolist(), x.sum()] for x in X],
        TensorDataset(X, X.sum(1)),
        TensorDataset(X, X.sum(1, keepdim=True).double()),
        Pairs(X, X.sum(1)),
        Pairs(X, X.sum(1).numpy()),
        Subset(TensorDataset(X.flip(0), X.sum(1).flip(0)), range(5, -1, -1)),
        ConcatDataset([Pairs(X[:2], X[:2].sum(1)), Pairs(X[2:], X[2:].sum(1))]),
        InMemory(X, X.sum(1)),
    ],
)
def test_data_sets_of_every_kind_give_the_same_batches(data):
    examples = examples_of(data)
    assert examples.y.dtype == torch.float32
    torch.testing.assert_close(examples.y, X.sum(1))
    for index in (INDEX, INDEX[0]):
        x, y = examples.batch(index)
        torch.testing.assert_close(x, X[index])
        torch.testing.assert_close(y, X.sum(1)[index])


@pytest.mark.parametrize(
    "y", [[0, 1, 2, 0, 1, 1], np.array([0, 1, 2, 0, 1, 1], np.uint8), torch.tensor([0, 1, 2, 0, 1, 1])]
)
def test_integer_targets_are_classes(y):
    examples = examples_of([*zip(X, y, strict=True)])
    assert examples.y.dtype == torch.int64
    assert examples.y.tolist() == list(y)


def test_items_are_read_anew_for_every_batch():
    data = Pairs(X, X.sum(1))
    examples = examples_of(data)
    before = data.read
    for _ in range(3):
        examples.batch(INDEX)
    assert data.read == before + 3 * INDEX.numel()


def test_examples_stay_what_they_are():
    examples = InMemory(X, X.sum(1))
    assert examples_of(examples) is examples


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        ([], "the data set is empty; give it networks"),
        (TensorDataset(X[:0], X[:0]), "the data set is empty"),
        ([X], "the data set holds Tensor; metanetworks take graphs with a `y`, or (x, y)"),
        ([(X[0],)], "the data set holds tuple"),
        ([{"x": X[0], "y": 1.0}], "the data set holds dict"),
        ([(X[0], X[0])], "the data set gives 3 targets for each network; metanetworks predict one"),
        (Stream(), "the data set, of Stream, has no length"),
        ([Data(x=X)], "the data set holds graphs without a `y`"),
    ],
)
def test_what_cannot_be_learnt_from_is_one_line(data, fact):
    with pytest.raises(TaskError) as error:
        examples_of(data)
    assert str(error.value).startswith(fact)
    assert "\n" not in str(error.value)


def test_rows_of_a_zoo_are_collected_in_their_order(planted_zoo):
    rows = ZooRows(split_of(planted_zoo, "test"))
    some = rows[[4, 0, 2]]
    assert torch.equal(examples_of(some).x, rows.x[[4, 0, 2]])
    assert torch.equal(examples_of(some).y, rows.y[[4, 0, 2]])
    with pytest.raises(TaskError, match="the data set is empty"):
        examples_of(rows[:0])


def test_graphs_of_a_zoo_come_as_a_disjoint_union(planted_zoo):
    graphs = ZooGraphs(split_of(planted_zoo, "test"))
    examples, index = examples_of(graphs), torch.tensor([4, 0, 2])
    union, y = examples.batch(index)
    assert isinstance(examples, ItemByItem)
    assert torch.equal(examples.y, graphs.y)
    assert torch.equal(y, graphs.y[index])
    assert torch.equal(union.y, y)
    assert union.num_graphs == 3
    assert torch.equal(union[1].edge_attr, graphs[0].edge_attr)


def test_examples_of_a_task_are_what_its_reader_gives(planted_zoo):
    networks = split_of(planted_zoo, "test", "w_asymmetric")
    reader = fit_reader("statistics", split_of(planted_zoo, "train", "w_asymmetric"))
    examples = read_examples(label([networks], "test_loss"), reader)
    assert torch.equal(examples.x, reader(networks.weights[:]))
    assert torch.equal(examples.y, torch.from_numpy(networks["test_loss"]))


@pytest.fixture(scope="module")
def orbits(planted_zoo):
    networks = split_of(planted_zoo, "train")
    return read_examples(label([networks], "test_accuracy"), fit_reader("tensors", networks), augment=True)


def generators(*seeds):
    return [np.random.default_rng(seed) for seed in seeds]


def test_augmented_examples_are_other_networks_of_the_same_function(planted_zoo, orbits):
    assert isinstance(orbits, Permuted)
    reader, index = orbits.reader, torch.arange(6).view(2, 3)
    shown, y = orbits.batch(index, generators(0, 1))
    assert shown.shape == (2, 3, reader.features)
    assert torch.equal(y, orbits.y[index])
    assert (shown - reader(orbits.rows)[index]).abs().flatten(2).mean(2).min() > 0.1  # each is elsewhere on its orbit
    treated, inputs = planted_zoo.shared("standard"), NETWORKS["mlp"].examples().float()
    stacks = [treated.stack(rows) for rows in (orbits.rows[:6], reader.invert(shown.flatten(0, 1)))]
    assert all(isinstance(stack, Stack) for stack in stacks)
    before, after = (stack.logits(inputs) for stack in stacks)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    assert (before[0] - before[1]).abs().max() > 0.1


def test_augmentation_is_driven_by_each_seed_and_absent_without(orbits):
    index = torch.arange(4)[None]
    first, again, other = (orbits.batch(index, generators(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    twice = orbits.batch(torch.zeros(1, 2, dtype=torch.int64), generators(0))[0][0]
    assert not torch.equal(*twice)  # each showing of a network has an order of its own
    assert torch.equal(orbits.batch(index)[0], orbits.reader(orbits.rows[index[0]])[None])


def test_augmentation_needs_a_treatment_that_holds_nothing_constant(planted_zoo):
    networks = split_of(planted_zoo, "train", "w_asymmetric")
    with pytest.raises(TaskError, match="augment: w_asymmetric networks hold entries constant"):
        read_examples(label([networks], "test_accuracy"), fit_reader("tensors", networks), augment=True)
