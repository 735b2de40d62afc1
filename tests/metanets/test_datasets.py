import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch_geometric.loader import DataLoader as GraphLoader
from torch_geometric.transforms import Constant

from metanets.datasets import Examples, OrbitExamples, ZooDataset, ZooRows, fit_reader, read_split
from metanets.inputs import READERS
from metanets.metanet import train_model
from metanets.settings import Settings
from tests.conftest import PLANTED as TREATMENTS
from tests.scenarios import NETWORKS
from zoo.errors import TaskError, ZooError
from zoo.networks.stack import Stack
from zoo.store.columns import SPLITS

TREATMENT = pytest.mark.parametrize("treatment", TREATMENTS)
EVERY_SPLIT = pytest.mark.parametrize("split", SPLITS)


def read(zoo, split, treatment="standard", reads="rows", **options):
    return read_split(zoo, treatment, split, fit_reader(zoo, treatment, reads), **options)


def targets(zoo, treatment, split, task="test_accuracy"):
    return torch.from_numpy(zoo.field(treatment, task)[zoo.index(treatment, split)])


@TREATMENT
@pytest.mark.parametrize("task", ["test_accuracy", "test_loss"])
def test_splits_have_the_networks_and_targets_of_the_zoo(planted_zoo, treatment, task):
    reader, networks = fit_reader(planted_zoo, treatment, "rows"), 0
    for split in SPLITS:
        examples = read(planted_zoo, split, treatment, task=task)
        assert torch.equal(examples.y, targets(planted_zoo, treatment, split, task))
        assert torch.equal(examples.x, reader(planted_zoo.rows(treatment, planted_zoo.index(treatment, split))))
        networks += len(examples)
    assert networks == len(planted_zoo)


def test_fewer_networks_are_the_first_of_them(planted_zoo):
    all_, few = read(planted_zoo, "train"), read(planted_zoo, "train", networks=7)
    assert torch.equal(few.x, all_.x[:7])
    assert torch.equal(few.y, all_.y[:7])


def test_diverged_networks_are_left_out(plant_zoo, planted_zoo):
    def change(arrays):
        for split in SPLITS:
            first = np.flatnonzero(arrays["split"] == split)[0]
            arrays["status"][first] = "diverged"
            arrays["weights"][first] = np.nan
            arrays["test_accuracy"][first] = np.nan

    zoo = plant_zoo(change)
    for split in SPLITS:
        kept = read(zoo, split)
        assert kept.x.isfinite().all()
        assert torch.equal(kept.y, read(planted_zoo, split).y[1:])


@EVERY_SPLIT
@pytest.mark.parametrize("networks", [0, 1])
def test_a_split_without_networks_to_compare_is_too_small(plant_zoo, split, networks):
    def change(arrays):
        arrays["status"][np.flatnonzero(arrays["split"] == split)[networks:]] = "diverged"

    zoo = plant_zoo(change, pairs=40)
    reader = READERS["rows"].of(zoo.treated("standard"))
    with pytest.raises(TaskError, match=f"standard has {networks} networks in its {split} split; generate more pairs"):
        read_split(zoo, "standard", split, reader)
    for dataset in (ZooRows, ZooDataset):
        with pytest.raises(TaskError, match=f"standard has {networks} networks in its {split} split"):
            dataset(zoo, "standard", split)


@EVERY_SPLIT
@pytest.mark.parametrize("value", [0.1, 0.5])  # the mean of many float32 of 0.1 is not 0.1
def test_targets_that_are_all_the_same_are_no_task(plant_zoo, split, value):
    def change(arrays):
        arrays["test_accuracy"][arrays["split"] == split] = value

    zoo = plant_zoo(change)
    with pytest.raises(TaskError, match=f"{split} networks all have the same test_accuracy"):
        read(zoo, split)
    assert read(zoo, split, task="test_loss").y.std() > 0


def test_unknown_treatments_and_metrics_are_named(planted_zoo):
    with pytest.raises(ZooError, match="has no treatment 'syre'; it has standard, w_asymmetric"):
        fit_reader(planted_zoo, "syre", "rows")
    with pytest.raises(ZooError, match="has no column 'beauty'"):
        read(planted_zoo, "train", task="beauty")


@TREATMENT
@pytest.mark.parametrize("reads", READERS)
def test_rows_go_through_the_loader_of_torch(planted_zoo, treatment, reads):
    examples = read(planted_zoo, "validation", treatment, reads)
    dataset = ZooRows(planted_zoo, treatment, "validation", reads=reads)
    x, y = zip(*DataLoader(dataset, batch_size=7), strict=True)
    assert [len(part) for part in y[:-1]] == [7] * (len(dataset) // 7)
    assert torch.equal(torch.cat(x), examples.x)
    assert torch.equal(torch.cat(y), targets(planted_zoo, treatment, "validation"))


def test_rows_have_fixed_entries_when_asked_for(planted_zoo):
    treated = planted_zoo.treated("w_asymmetric")
    own, all_ = (ZooRows(planted_zoo, "w_asymmetric", "test", "test_loss", fixed=fixed) for fixed in (False, True))
    assert own[0][0].shape == (int(treated.trainable.sum()),)
    assert all_[0][0].shape == (treated.layout.size,)
    assert torch.equal(own.y, targets(planted_zoo, "w_asymmetric", "test", "test_loss"))


@TREATMENT
@EVERY_SPLIT
def test_graphs_have_the_weights_and_targets_of_the_zoo(planted_zoo, treatment, split):
    dataset = ZooDataset(planted_zoo, treatment, split)
    rows = planted_zoo.rows(treatment, planted_zoo.index(treatment, split))
    reader = fit_reader(planted_zoo, treatment, "tensors")
    assert len(dataset) == len(rows)
    assert all(graph.validate() for graph in dataset)
    read_back = reader.invert(torch.stack([dataset.graph.rows(graph) for graph in dataset]))
    torch.testing.assert_close(read_back, rows, rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.cat([graph.y for graph in dataset]), targets(planted_zoo, treatment, split))


def test_graphs_go_through_the_loader_of_pyg(planted_zoo):
    dataset = ZooDataset(planted_zoo, "standard", "test")
    graphs, last = dataset[0], len(dataset) % 8
    *batches, end = GraphLoader(dataset, batch_size=8)
    assert (batches[0].num_graphs, end.num_graphs) == (8, last or 8)
    assert batches[0].num_edges == 8 * graphs.num_edges
    assert batches[0].num_nodes == 8 * graphs.num_nodes
    assert torch.equal(batches[0][3].edge_attr, dataset[3].edge_attr)
    assert torch.equal(torch.cat([batch.y for batch in (*batches, end)]), targets(planted_zoo, "standard", "test"))


def test_graphs_go_through_transforms_and_selection_of_pyg(planted_zoo):
    plain, constant = (ZooDataset(planted_zoo, "standard", "test", transform=t) for t in (None, Constant()))
    assert constant[0].num_node_features == plain[0].num_node_features + 1
    assert (constant[0].x[:, -1] == 1).all()
    order = torch.randperm(len(plain), generator=torch.Generator().manual_seed(0))
    assert [float(graph.y) for graph in plain[order]] == plain.y[order].tolist()


def test_examples_collect_pairs_and_graphs(planted_zoo):
    rows, graphs = (kind(planted_zoo, "standard", "test") for kind in (ZooRows, ZooDataset))
    pairs, disjoint = Examples.of(rows), Examples.of(graphs)
    assert torch.equal(pairs.x, rows.x)
    assert torch.equal(pairs.y, disjoint.y)
    index = torch.tensor([4, 0, 2])
    assert torch.equal(pairs.take(index), rows.x[index])
    assert torch.equal(disjoint.take(index).y, rows.y[index])
    with pytest.raises(TaskError, match="the data set is empty"):
        Examples.of(torch.utils.data.TensorDataset(torch.zeros(0, 3), torch.zeros(0)))


def test_augmented_examples_are_other_networks_of_the_same_function(planted_zoo):
    reader = fit_reader(planted_zoo, "standard", "tensors")
    examples = read_split(planted_zoo, "standard", "train", reader, augment=True)
    assert isinstance(examples, OrbitExamples)
    index = torch.arange(6).view(2, 3)
    shown = examples.take(index, [np.random.default_rng(seed) for seed in (0, 1)])
    assert shown.shape == (2, 3, reader.features)
    assert (shown - examples.x[index]).abs().flatten(2).mean(2).min() > 0.1  # each is elsewhere on its orbit
    treated, inputs = planted_zoo.treated("standard"), NETWORKS["mlp"].examples().float()
    stacks = [
        Stack(rows, treated.module, treated.layout) for rows in (examples.rows[:6], reader.invert(shown.flatten(0, 1)))
    ]
    before, after = (stack.logits(inputs) for stack in stacks)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    assert (before[0] - before[1]).abs().max() > 0.1


def test_augmentation_is_driven_by_each_seed_and_absent_without(planted_zoo):
    examples = read(planted_zoo, "train", reads="tensors", augment=True)
    index = torch.arange(4)[None]
    first, again, other = (examples.take(index, [np.random.default_rng(seed)]) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(examples.take(index), examples.x[index])


def test_augmentation_needs_a_treatment_that_holds_nothing_fixed(planted_zoo):
    settings = Settings(epochs=1, augment="permute")
    train_model(planted_zoo, "standard", "mlp", settings=settings)
    with pytest.raises(TaskError, match="augment: what w_asymmetric holds fixed has its place"):
        train_model(planted_zoo, "w_asymmetric", "mlp", settings=settings)


def test_augmented_training_differs_only_for_what_sees_the_order_of_units(planted_zoo):
    rows = planted_zoo.rows("standard", planted_zoo.index("standard", "test"))
    for model, alike in (("statnn", True), ("mlp", False)):
        plain, augmented = (
            train_model(planted_zoo, "standard", model, settings=Settings(epochs=2, augment=augment))[0].predict(rows)
            for augment in (None, "permute")
        )
        assert ((plain - augmented).abs().max() < 1e-4) == alike


@pytest.mark.parametrize("kind", [ZooRows, ZooDataset])
def test_a_misspelt_split_is_named(planted_zoo, kind):
    with pytest.raises(ZooError, match=r"split: there is no 'val' \(did you mean 'validation'\?\)"):
        kind(planted_zoo, "standard", "val")
