import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset
from torch_geometric.transforms import Constant

from metanets.datasets import ZooGraphs, ZooRows
from metanets.examples import InMemory
from metanets.inputs import READERS, fit_reader
from metanets.metanet import Metanet
from metanets.metrics import accuracy, r2
from metanets.models import MODELS, Metanetwork
from metanets.settings import Settings
from metanets.training import build, fit, train
from tests.metanets.scenarios import GraphRegressor, ask
from tests.scenarios import some_thetas, treat
from zoo.errors import TaskError
from zoo.store.columns import SPLITS

FEW = Settings(epochs=2, batch_size=32)


def data_sets(kind, zoo, **options):
    return (kind(zoo["standard"].split(split), **options) for split in SPLITS)


def some_task(networks=60, classes=0):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(networks, 5, generator=generator)
    y = torch.arange(networks) % classes if classes else x.sum(1)
    return [InMemory(*parts) for parts in zip(x.chunk(2), y.chunk(2), strict=True)]


def test_a_users_own_module_is_trained_on_flat_rows_in_three_lines(planted_zoo):
    learnt, validation, test = data_sets(ZooRows, planted_zoo)
    module = nn.Sequential(nn.Linear(learnt.num_features, 1))
    metanet = fit(module, learnt, validation, Settings(epochs=40, learning_rate=1e-3))
    assert isinstance(metanet, Metanet)
    assert metanet.module is module
    assert metanet.evaluate(test)["r2"] > 0.8
    networks = planted_zoo["standard"].split("test")
    torch.testing.assert_close(metanet.predict(networks), metanet.predict(test))
    assert metanet.evaluate(networks) == pytest.approx(metanet.evaluate(test))


def test_a_users_own_module_is_trained_on_batches_of_pyg_in_three_lines(plant_zoo):
    def change(arrays):
        arrays["weights"] += arrays["test_accuracy"][:, None] - 0.5

    zoo = plant_zoo(change)
    learnt, validation, test = data_sets(ZooGraphs, zoo)
    module = build(lambda: GraphRegressor(learnt.num_node_features, learnt.num_edge_features), 0)
    metanet = fit(module, learnt, validation, Settings(epochs=15, batch_size=16, learning_rate=1e-2))
    assert metanet.evaluate(test)["r2"] > 0.3
    networks = zoo["standard"].split("test")
    torch.testing.assert_close(metanet.predict(networks), metanet.predict(test))


def test_networks_of_several_architectures_are_learned_together(plant_zoo):
    def change(arrays):
        arrays["weights"] += 3 * (arrays["test_accuracy"][:, None] - 0.5)

    zoos = [plant_zoo(change, widths=widths) for widths in ([8, 16, 8, 4], [8, 10, 4])]
    learnt, validation, _ = (ConcatDataset(each) for each in zip(*(data_sets(ZooGraphs, z) for z in zoos), strict=True))
    gmn = build(lambda: MODELS["gmn"](fit_reader("tensors", zoos[0]["standard"].split("train"))), 0)
    metanet = fit(gmn, learnt, validation, Settings(epochs=8, batch_size=16, learning_rate=1e-2))
    for zoo in zoos:
        assert metanet.evaluate(ZooGraphs(zoo["standard"].split("test")))["r2"] > 0.5


@pytest.mark.parametrize("kind", [ZooRows, ZooGraphs])
def test_transforms_run_at_every_access_in_training_too(planted_zoo, kind):
    seen = {"train": 0, "validation": 0}

    def count(split):
        def transform(item):
            seen[split] += 1
            (item[1] if isinstance(item, tuple) else item.y).mul_(100)  # in place, as people write them
            return item

        return transform

    learnt, validation = (kind(planted_zoo["standard"].split(split), transform=count(split)) for split in seen)
    whole = {"train": learnt, "validation": validation}
    module = nn.Linear(learnt.num_features, 1) if kind is ZooRows else GraphRegressor(11, 1)
    metanet = fit(module, learnt, validation, Settings(epochs=3))
    for split, scored in (("train", 3), ("validation", 5)):  # validation: the start, three epochs, and the end
        assert seen[split] == (1 + scored) * len(whole[split])
    predicted = metanet.predict(validation)
    assert 5 < predicted.mean() < 95  # per cent, not per myriad


def test_a_transform_decides_what_a_trained_module_reads(planted_zoo):
    networks = planted_zoo["standard"].split("test")
    plain, changed = (tuple(data_sets(ZooGraphs, planted_zoo, transform=t)) for t in (None, Constant()))
    for learnt, reads in ((plain, True), (changed, False)):
        metanet = fit(GraphRegressor(learnt[0].num_node_features, 1), *learnt[:2], Settings(epochs=1))
        assert metanet.predict(learnt[2]).shape == (len(networks),)
        assert (metanet.reader is not None) == reads
    with pytest.raises(
        TaskError, match=r"^networks: Metanet\(.*\) reads a data set like the one that it was trained on"
    ):
        metanet.predict(networks)
    noise = ZooGraphs(planted_zoo["standard"].split("train"), transform=lambda graph: graph)
    augmented = fit(GraphRegressor(11, 1), noise, plain[1], Settings(epochs=1))  # of training alone
    assert augmented.predict(networks).shape == (len(networks),)


def test_a_module_of_raw_rows_reads_data_sets_alone(planted_zoo):
    learnt, validation, test = data_sets(ZooRows, planted_zoo, raw=True)
    metanet = fit(nn.Linear(learnt.num_features, 1), learnt, validation, Settings(epochs=1))
    assert metanet.predict(test).shape == (len(test),)
    with pytest.raises(TaskError, match=r"reads a data set like the one that it was trained on"):
        metanet.predict(planted_zoo["standard"])


@pytest.mark.parametrize(
    ("target", "link"),
    [
        ("test_accuracy", "sigmoid"),
        ("test_loss", "identity"),
        ("learning_rate", "logarithm"),
        ("generalisation_gap", "sigmoid"),
        ("epochs", "sigmoid"),
    ],
)
def test_the_link_and_the_target_follow_from_the_column_of_the_data_set(planted_zoo, target, link):
    learnt, validation, _ = data_sets(ZooRows, planted_zoo, target=target)
    task = ask(target=target)
    metanets = (
        fit(nn.Linear(learnt.num_features, 1), learnt, validation, FEW),
        train(task, planted_zoo, "linear", settings=FEW)[0],
    )
    for metanet in metanets:
        assert (metanet.link.kind, metanet.target) == (link, target)
        networks = planted_zoo["standard"].split("test")
        assert metanet.evaluate(networks) == pytest.approx(metanet.evaluate(ZooRows(networks, target)), rel=1e-5)


def test_classes_of_a_users_own_are_learnt(planted_zoo):
    learnt, validation, test = (
        [(x, int(y > 0.5)) for x, y in ZooRows(planted_zoo["standard"].split(split))] for split in SPLITS
    )
    metanet = fit(nn.Linear(len(learnt[0][0]), 2), learnt, validation, Settings(epochs=20, learning_rate=1e-2))
    probabilities = metanet.predict(test)
    assert probabilities.shape == (len(test), 2)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(test)))
    assert accuracy(np.array([y for _, y in test]), probabilities.numpy()) > 0.8
    assert metanet.evaluate(test).keys() == {"accuracy", "log_loss"}


@pytest.mark.parametrize(
    ("y", "validation_y", "fact"),
    [
        (torch.ones(6), torch.rand(6), "all networks to learn from have the same target; there is nothing to predict"),
        (torch.full((6,), torch.nan), torch.rand(6), "targets: some are not finite; leave out these networks"),
        (torch.rand(6).index_fill(0, torch.tensor(1), torch.inf), torch.rand(6), "targets: some are not finite"),
        (torch.rand(6), torch.rand(6).index_fill(0, torch.tensor(1), torch.nan), "targets: some are not finite"),
        (torch.arange(6) % 2, torch.arange(6) % 3, "targets: the validation networks have classes that no network"),
        (torch.rand(0), torch.rand(6), "the data set is empty"),
        (torch.rand(6), torch.rand(0), "the data set is empty"),
    ],
)
def test_what_cannot_be_learnt_is_one_clear_error(y, validation_y, fact):
    learnt, validation = ([(torch.randn(3), each) for each in part] for part in (y, validation_y))
    with pytest.raises(TaskError, match=f"^{fact}"):
        fit(nn.Linear(3, 2 if not y.is_floating_point() else 1), learnt, validation, FEW)


def test_predictions_that_are_not_finite_are_no_result():
    class Broken(nn.Linear):
        def forward(self, x):
            return super().forward(x) * torch.nan

    for classes in (0, 3):
        with pytest.raises(TaskError, match="predicts values that are not finite"):
            fit(Broken(5, classes or 1), *some_task(classes=classes), FEW)


def test_global_random_states_are_neither_read_nor_moved():
    learnt, validation = some_task()

    def predict():
        return fit(build(lambda: nn.Linear(5, 1), 0), learnt, validation, Settings(epochs=2)).predict(validation)

    torch.manual_seed(1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = predict()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    torch.manual_seed(2)
    assert torch.equal(predict(), first)


def test_a_metanetwork_s_own_settings_and_learning_rate_are_the_default():
    class Slow(Metanetwork):
        settings = Settings(epochs=2)
        learning_rate = 1e-9

        def __init__(self):
            super().__init__(None)
            self.output = nn.Linear(5, 1)

        def forward(self, x):
            return self.output(x)

    moved, epochs = [], []
    for module in (Slow(), nn.Linear(5, 1)):
        start = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
        epochs.append(fit(module, *some_task()).origin.epochs[0])
        end = nn.utils.parameters_to_vector(module.parameters()).detach()
        moved.append(float((end - start).abs().max()))
    assert epochs == [2, Settings().epochs]
    assert moved[0] < 1e-6 < moved[1]


@pytest.mark.parametrize("classes", [0, 3])
def test_boosted_trees_fit_themselves_and_each_seed_its_own_way(classes):
    treated = treat("standard", "mlp")
    rows = some_thetas(treated, 150, dtype=torch.float32)
    y = rows[:, treated.layout.slices["output.bias"]].mean(1)
    if classes:
        y = torch.bucketize(y, y.quantile(torch.tensor([1 / 3, 2 / 3])))
    x = READERS["statistics"].of(treated).fit(rows)(rows)
    learnt, validation, test = (InMemory(*parts) for parts in zip(x.chunk(3), y.chunk(3), strict=True))
    trees = [MODELS["boosted"](outputs=classes or 1, trees=60) for _ in range(3)]
    metanets = [fit(each, learnt, validation, seed=seed) for each, seed in zip(trees, (0, 0, 1), strict=True)]
    first, again, other = (metanet.predict(test) for metanet in metanets)
    assert metanets[0].link.kind == ("softmax" if classes else "identity")
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    score = accuracy if classes else r2
    assert score(test.y.numpy(), first.numpy()) > (0.45 if classes else 0.2)


def test_dropout_depends_on_the_seed_alone(planted_zoo):
    train, validation = (ZooRows(planted_zoo["standard"].split(name)) for name in ("train", "validation"))

    def predict(state, seed):
        layers = nn.Linear(train.num_features, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1)
        module = build(lambda: nn.Sequential(*layers), 0)
        for layer in (0, 3):
            nn.init.constant_(module[layer].weight, 0.01)
            nn.init.zeros_(module[layer].bias)
        torch.manual_seed(state)
        return fit(module, train, validation, Settings(epochs=3), seed=seed).predict(validation)

    assert torch.equal(predict(1, 0), predict(2, 0))
    assert not torch.equal(predict(1, 0), predict(1, 1))
