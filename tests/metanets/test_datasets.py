import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch_geometric.loader import DataLoader as GraphLoader
from torch_geometric.transforms import Compose, Constant

from metanets.datasets import ZooGraphs, ZooRows
from metanets.inputs import READERS, fit_reader
from metanets.selection import fit_task_reader, select, select_all
from metanets.tasks import Task
from tests.conftest import PLANTED
from zoo.errors import TaskError
from zoo.store.columns import SPLITS

TREATMENT = pytest.mark.parametrize("treatment", PLANTED)
EVERY_SPLIT = pytest.mark.parametrize("split", SPLITS)
KIND = pytest.mark.parametrize("kind", [ZooRows, ZooGraphs])


def some(zoo, split, treatment="standard"):
    return zoo[treatment].split(split)


def targets(zoo, split, target="test_accuracy", treatment="standard"):
    return torch.from_numpy(some(zoo, split, treatment)[target])


def target_of(item):
    return item[1] if isinstance(item, tuple) else item.y


def tensors_of(item):
    return list(item) if isinstance(item, tuple) else [value for _, value in item if isinstance(value, torch.Tensor)]


def assert_equal(dataset, other):
    for items in zip(dataset, other, strict=True):
        assert all(torch.equal(*both) for both in zip(*map(tensors_of, items), strict=True))


# Values


@TREATMENT
@pytest.mark.parametrize("reads", READERS)
def test_rows_go_through_the_loader_of_torch(planted_zoo, treatment, reads):
    dataset = ZooRows(some(planted_zoo, "validation", treatment), reads=reads)
    x, y = zip(*DataLoader(dataset, batch_size=7), strict=True)
    reader = fit_reader(reads, some(planted_zoo, "train", treatment))
    assert [len(part) for part in y[:-1]] == [7] * (len(dataset) // 7)
    assert torch.equal(torch.cat(x), reader(some(planted_zoo, "validation", treatment).weights[:]))
    assert torch.equal(torch.cat(y), targets(planted_zoo, "validation", treatment=treatment))
    assert dataset.num_features == reader.features


@TREATMENT
@EVERY_SPLIT
def test_graphs_have_the_weights_and_targets_of_the_zoo(planted_zoo, treatment, split):
    networks = some(planted_zoo, split, treatment)
    dataset = ZooGraphs(networks, "test_loss")
    assert len(dataset) == len(networks)
    assert all(graph.validate() for graph in dataset)
    read_back = dataset.reader.invert(torch.stack([dataset.graph.rows(graph) for graph in dataset]))
    torch.testing.assert_close(read_back, networks.weights[:], rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.cat([graph.y for graph in dataset]), targets(planted_zoo, split, "test_loss", treatment))


@KIND
def test_raw_data_sets_hold_the_weights_themselves(planted_zoo, kind):
    networks = some(planted_zoo, "test", "w_asymmetric")
    dataset = kind(networks, raw=True)
    if kind is ZooRows:
        assert torch.equal(dataset.x, networks.weights[:])
    else:
        assert torch.equal(torch.stack([dataset.graph.rows(graph) for graph in dataset]), networks.weights[:])


@KIND
def test_a_reader_can_be_shared_between_splits(planted_zoo, kind):
    train, test = (kind(some(planted_zoo, split)) for split in ("train", "test"))
    shared = kind(some(planted_zoo, "test"), reader=train.reader)
    assert shared.reader is train.reader
    assert_equal(shared, test)
    own = kind(some(planted_zoo, "test"), reader=fit_reader(train.reads, some(planted_zoo, "test")))
    with pytest.raises(AssertionError):
        assert_equal(own, test)


def test_rows_read_what_the_reader_that_is_given_reads(planted_zoo):
    networks = some(planted_zoo, "train", "w_asymmetric")
    size, trainable = networks.layout.size, int(networks.mask.sum())
    assert ZooRows(networks).num_features == trainable
    reader = fit_reader("rows", networks, include_fixed=True)
    assert ZooRows(networks, reader=reader).num_features == size
    assert ZooRows(networks, reader=fit_reader("statistics", networks)).reads == "statistics"


@KIND
@pytest.mark.parametrize("target", ["learning_rate", "generalisation_gap"])
def test_targets_are_on_their_scale(planted_zoo, kind, target):
    networks = some(planted_zoo, "test")
    dataset = kind(networks, target)
    true = {
        "learning_rate": np.log(networks["learning_rate"]),
        "generalisation_gap": networks["train_accuracy"] - networks["test_accuracy"],
    }
    assert np.allclose(dataset.y, true[target], atol=1e-6)
    assert [float(target_of(item)) for item in dataset] == dataset.y.tolist()


@KIND
def test_networks_without_a_target_are_left_out(plant_zoo, kind):
    def change(arrays):
        arrays["test_loss"][np.flatnonzero(arrays["split"] == "test")[:2]] = np.nan

    networks = plant_zoo(change)["standard"].split("test")
    with pytest.warns(UserWarning, match="2 of"):
        dataset = kind(networks, "test_loss")
    assert dataset.pairs.tolist() == networks.pairs[2:].tolist()
    assert dataset.y.isfinite().all()


@KIND
def test_an_unknown_target_is_named(planted_zoo, kind):
    with pytest.raises(TaskError, match="has no target 'beauty'"):
        kind(some(planted_zoo, "test"), "beauty")


# Data sets of a task


@KIND
@pytest.mark.parametrize(
    "task",
    [
        Task(recipe="small", learn_from="standard", target="test_loss", max_train=9, test_where=("epochs > 1",)),
        Task(recipe="small", learn_from="w_asymmetric", permuted=False, among="above_median"),
        Task(recipe="small", learn_from="standard", test_on="w_asymmetric", target="learning_rate"),
        Task(recipe="small", learn_from=PLANTED, target="treatment"),
    ],
)
def test_data_sets_of_a_task_are_its_networks_read_by_one_reader(planted_zoo, kind, task):
    reader = fit_task_reader(task, planted_zoo, kind.reads)
    for split, found in select_all(task, planted_zoo).items():
        dataset = kind.of(task, planted_zoo, split)
        assert torch.equal(dataset.y, found.y)
        assert dataset.pairs.tolist() == found.pairs.tolist()
        x = dataset.x if kind is ZooRows else torch.stack([dataset.graph.rows(graph) for graph in dataset])
        assert torch.equal(x, reader(found.rows))


def test_data_sets_of_a_task_take_the_options_of_others(planted_zoo):
    task = Task(recipe="small", learn_from="standard")
    train = ZooRows.of(task, planted_zoo, "train", reads="statistics", transform=lambda item: (item[0] * 0, item[1]))
    assert train[0][0].shape == (train.reader.features,)
    assert not train[0][0].any()
    assert ZooRows.of(task, planted_zoo, "test", reader=train.reader).reader is train.reader
    raw = ZooGraphs.of(task, planted_zoo, "test", raw=True)
    assert torch.equal(raw.graph.rows(raw[0]), select(task, planted_zoo, "test").rows[0])


# Slices, shuffles, loaders


@KIND
def test_targets_pairs_and_length_follow_slices_and_shuffles(planted_zoo, kind):
    whole = kind(some(planted_zoo, "train"))
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
    mask = whole.y > whole.y.median()
    twice = whole[order][2:7]
    some_ = {torch.arange(3, 8): whole[3:8], order: whole[order], mask.nonzero()[:, 0]: whole[mask]}
    for places, part in some_.items():
        assert len(part) == len(part.y) == len(places)
        assert part.y.tolist() == [float(target_of(item)) for item in part] == whole.y[places].tolist()
        assert part.pairs.tolist() == whole.pairs[places].tolist()
    assert twice.y.tolist() == whole.y[order[2:7]].tolist() == [float(target_of(item)) for item in twice]
    shuffled = whole.shuffle()
    assert shuffled.y.tolist() == [float(target_of(item)) for item in shuffled]
    assert sorted(shuffled.pairs.tolist()) == sorted(whole.pairs.tolist())
    assert len(whole.y) == len(whole)


def test_inputs_follow_slices_and_shuffles(planted_zoo):
    whole = ZooRows(some(planted_zoo, "train"))
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole[order].x, whole.x[order])
    assert torch.equal(whole[order].x, torch.stack([x for x, _ in whole[order]]))


def test_graphs_go_through_the_loader_of_pyg(planted_zoo):
    dataset = ZooGraphs(some(planted_zoo, "test"))
    graphs, last = dataset[0], len(dataset) % 8
    *batches, end = GraphLoader(dataset, batch_size=8)
    assert (batches[0].num_graphs, end.num_graphs) == (8, last or 8)
    assert batches[0].num_edges == 8 * graphs.num_edges
    assert batches[0].num_nodes == 8 * graphs.num_nodes
    assert torch.equal(batches[0][3].edge_attr, dataset[3].edge_attr)
    assert torch.equal(torch.cat([batch.y for batch in (*batches, end)]), targets(planted_zoo, "test"))


@KIND
def test_data_sets_can_be_pickled_for_workers(planted_zoo, kind):
    part = kind(some(planted_zoo, "test"))[4:9]
    again = pickle.loads(pickle.dumps(part))
    assert torch.equal(again.y, part.y)
    assert_equal(again, part)


# Edits and transforms


@KIND
def test_editing_an_item_in_place_changes_no_other_and_not_itself_when_read_again(planted_zoo, kind):
    dataset = kind(some(planted_zoo, "test"))
    before = [[tensor.clone() for tensor in tensors_of(dataset[i])] for i in (0, 1)]
    for tensor in tensors_of(dataset[1]):
        tensor.zero_()
    for i in (0, 1):
        assert all(torch.equal(*both) for both in zip(before[i], tensors_of(dataset[i]), strict=True))
    assert dataset.y.std() > 0


@KIND
def test_editing_the_targets_in_place_changes_no_data_set(planted_zoo, kind):
    dataset = kind(some(planted_zoo, "test"))
    dataset.y.zero_(), dataset.pairs.zero_()
    assert dataset.y.std() > 0
    assert dataset.pairs.tolist() == some(planted_zoo, "test").pairs.tolist()


def percent(item):
    """Targets in per cent, in place."""
    target_of(item).mul_(100)
    return item


@KIND
def test_a_transform_sees_each_item_fresh_at_every_access(planted_zoo, kind):
    seen = []
    dataset = kind(some(planted_zoo, "test"), transform=lambda item: seen.append(1) or percent(item))
    for _ in range(3):
        assert float(target_of(dataset[2])) == pytest.approx(100 * float(dataset.y[2]))
    assert len(seen) == 3
    assert float(target_of(dataset[2:][0])) == pytest.approx(100 * float(dataset.y[2]))


def test_graphs_go_through_transforms_of_pyg(planted_zoo):
    plain, constant = (ZooGraphs(some(planted_zoo, "test"), transform=t) for t in (None, Compose([Constant()])))
    assert constant[0].num_node_features == plain[0].num_node_features + 1
    assert (constant[0].x[:, -1] == 1).all()
    assert constant.num_node_features == plain.num_node_features + 1


def test_graphs_share_one_structure_in_memory(planted_zoo):
    dataset = ZooGraphs(some(planted_zoo, "train"))
    held = [value for value in vars(dataset).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.numel() for tensor in held) == len(dataset) * (dataset.reader.layout.size + 2)
    assert dataset[3:].graph is dataset.graph
    assert dataset[3:]._x.data_ptr() == dataset._x.data_ptr()
