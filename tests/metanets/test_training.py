import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from scipy.stats import kendalltau
from torch import nn
from torch.utils.data import ConcatDataset
from torch_geometric.nn import GraphConv, global_mean_pool

from metanets.datasets import Examples, ZooDataset, ZooRows, fit_reader
from metanets.inputs import READERS
from metanets.metrics import r2
from metanets.models import MODELS
from metanets.settings import Settings
from metanets.training import Head, build, fit
from tests.scenarios import some_thetas, treat
from zoo.seeds import rng_for

FEATURES = 14


def some_task(networks=120, noise=0.5, seed=0):
    """Inputs in general position and a noisy target linear in them, for training, validation and test."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(networks, FEATURES, generator=generator)
    y = x @ torch.randn(FEATURES, generator=generator) / 4 + noise * torch.randn(networks, generator=generator)
    return [Examples(*parts) for parts in zip(x.chunk(3), (0.5 + 0.1 * y).chunk(3), strict=True)]


def perceptron():
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 1))


def some_perceptrons(seeds):
    return [build(perceptron, seed) for seed in seeds]


def vector(module):
    return nn.utils.parameters_to_vector(module.parameters()).detach()


SETTINGS = {
    "cosine": Settings(epochs=6, batch_size=16, learning_rate=1e-2, clip=0.3),
    "constant": Settings(epochs=4, batch_size=7, learning_rate=3e-3, schedule="constant", weight_decay=0.3),
    "patience": Settings(epochs=40, batch_size=8, learning_rate=3e-2, patience=1),
    "steps": Settings(epochs=3, steps=14, batch_size=16, learning_rate=1e-2, huber=1e9),  # each epoch two passes
}
EVERY_SETTINGS = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


@EVERY_SETTINGS
@pytest.mark.parametrize("share", [False, True])
def test_seeds_trained_together_are_what_each_is_alone(settings, share):
    examples, validation, test = some_task()
    together = fit(some_perceptrons(range(4)), examples, validation, settings, seeds=range(4), share=share)
    for seed, predictor in enumerate(together):
        (alone,) = fit(some_perceptrons([seed]), examples, validation, settings, seeds=[seed], share=share)
        torch.testing.assert_close(predictor(test), alone(test), rtol=0, atol=1e-5)
        assert predictor.epochs[1] == alone.epochs[1]
    predictions = torch.stack([predictor(test) for predictor in together])
    assert torch.pdist(predictions).min() > 1e-3


@EVERY_SETTINGS
def test_training_is_adamw_with_a_clipped_gradient_as_pytorch_has_them(settings):
    examples, validation, _ = some_task()
    network, mean, std, true = build(perceptron, 3), examples.y.mean(), examples.y.std(), validation.y.numpy()
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    path, scores = [vector(network)], []

    def validate():
        with torch.no_grad():
            predicted = (mean + std * network(validation.x).flatten()).numpy()
        scores.append(1 - np.square(predicted - true).mean() / true.var() + kendalltau(predicted, true).statistic)

    validate()
    passes = 2 if settings.steps else 1
    for epoch in range(1, settings.epochs + 1):
        for number in range(passes * (epoch - 1) + 1, passes * epoch + 1):
            order = rng_for(3, "metanetwork/order", number).permutation(len(examples))
            for begin in range(0, len(order), settings.batch_size):
                some = order[begin : begin + settings.batch_size]
                error = (network(examples.x[some]).flatten() - (examples.y[some] - mean) / std).abs()
                near = error < settings.huber
                loss = torch.where(near, error**2 / (2 * settings.huber), error - settings.huber / 2).mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
                optimizer.step()
        if settings.schedule == "cosine":
            scheduler.step()
        path.append(vector(network))
        validate()
        if settings.patience is not None and epoch - np.argmax(scores) >= settings.patience:
            break
    (predictor,) = fit(build(perceptron, 3), examples, validation, settings, seeds=[3])
    best = int(np.argmax(scores))
    assert predictor.epochs == (epoch, best)
    torch.testing.assert_close(vector(predictor.network), path[best], rtol=0, atol=1e-5)


def test_training_ends_when_none_of_the_seeds_has_got_better_for_as_long_as_patience_lasts():
    examples, validation, _ = some_task(noise=3)
    settings = Settings(epochs=60, learning_rate=3e-2, patience=3)
    together = fit(some_perceptrons(range(3)), examples, validation, settings, seeds=range(3))
    ran, best = {p.epochs[0] for p in together}, [p.epochs[1] for p in together]
    assert ran == {max(best) + 3}
    assert max(best) < 57
    assert len(set(best)) > 1


def test_the_epoch_is_the_one_best_on_validation_the_start_included():
    examples, validation, test = some_task(noise=0)
    contrary = Examples(validation.x, 2 * validation.y.mean() - validation.y)
    zero = nn.Linear(FEATURES, 1)
    nn.init.zeros_(zero.weight), nn.init.zeros_(zero.bias)
    (start,) = fit(zero, examples, contrary, Settings(epochs=5))
    assert start.epochs == (5, 0)
    torch.testing.assert_close(start(test), examples.y.mean().expand_as(test.y))
    (learned,) = fit(nn.Linear(FEATURES, 1), examples, validation, Settings(epochs=5))
    assert learned.epochs == (5, 5)


def test_an_epoch_between_first_and_last_can_be_the_best():
    examples, validation, _ = some_task(noise=0.5)
    settings = Settings(epochs=40, batch_size=8, learning_rate=1e-2)
    (kept,) = fit(build(perceptron, 0), examples, validation, settings)
    (start,) = fit(build(perceptron, 0), examples, validation, Settings(epochs=0))
    (last,) = fit(build(perceptron, 0), examples, examples, settings)  # whose best is near the end
    errors = [float((predictor(validation) - validation.y).square().mean()) for predictor in (start, kept, last)]
    assert 0 < kept.epochs[1] < last.epochs[1]
    assert errors[1] < min(errors[0], errors[2]) - 1e-4


def test_a_network_whose_training_overflows_is_left_at_its_best():
    examples, validation, test = some_task()
    (wild,) = fit(build(perceptron, 0), examples, validation, Settings(epochs=3, learning_rate=1e38, clip=1e38))
    assert wild(test).isfinite().all()


@pytest.mark.parametrize("mean", [0.03, 0.5, 0.9])
def test_a_share_stays_between_0_and_1_and_rises_as_the_identity_at_the_mean(mean):
    y = mean + torch.tensor([-0.02, -0.01, 0.01, 0.02])
    head = Head.of(y, share=True)
    z = torch.linspace(-200, 200, 401, dtype=torch.float64)
    predicted = head(z)
    assert ((predicted >= 0) & (predicted <= 1)).all()
    moderate = predicted[z.abs() < 5]
    assert ((moderate > 0) & (moderate < 1)).all()
    assert (predicted.diff() >= 0).all()
    assert head(torch.zeros(())) == pytest.approx(mean)
    plain, small = Head.of(y, share=False), torch.tensor([-1e-3, 1e-3], dtype=torch.float64)
    assert float(head(small).diff()) == pytest.approx(float(plain(small).diff()), rel=1e-4)
    assert float(plain(small).diff()) == pytest.approx(2e-3 * float(y.std()))
    expected = expit(logit(head.mean) + head.std / (head.mean * (1 - head.mean)) * z.numpy())
    assert np.allclose(predicted, expected)


def test_what_is_no_share_is_predicted_without_bounds():
    y = torch.tensor([0.1, 0.2, 0.4])
    assert Head.of(y, share=False).link == "identity"
    assert Head.of(10 * y, share=True).link == "identity"  # not within 0 and 1, whatever it is called
    assert float(Head.of(y, share=False)(torch.tensor(-100.0))) < 0


def test_boosted_trees_fit_themselves_and_each_seed_its_own_way():
    treated = treat("standard", "mlp")
    rows = some_thetas(treated, 90, dtype=torch.float32)
    y = rows[:, treated.layout.slices["output.bias"]].mean(1)
    x = READERS["statistics"].of(treated).fit(rows)(rows)
    examples, validation, test = (Examples(*parts) for parts in zip(x.chunk(3), y.chunk(3), strict=True))
    networks = [MODELS["boosted"](READERS["statistics"].of(treated), trees=60) for _ in range(3)]
    first, again, other = fit(networks, examples, validation, seeds=[0, 0, 1], share=True)
    assert first.head.link == "identity"
    assert torch.equal(first(test), again(test))
    assert not torch.equal(first(test), other(test))
    assert r2(test.y.numpy(), first(test).numpy()) > 0.2


class GraphRegressor(nn.Module):
    """As any user of PyG would write it."""

    def __init__(self, nodes, edges):
        super().__init__()
        self.conv, self.output = GraphConv(nodes, 16), nn.Linear(16, 1)
        self.weight = nn.Linear(edges, 1)

    def forward(self, batch):
        x = self.conv(batch.x, batch.edge_index, self.weight(batch.edge_attr).flatten()).relu()
        return self.output(global_mean_pool(x, batch.batch))


def test_a_users_own_module_is_trained_on_flat_rows_in_three_lines(planted_zoo):
    train, validation, test = (ZooRows(planted_zoo, "standard", s) for s in ("train", "validation", "test"))
    network = nn.Sequential(nn.Linear(train[0][0].numel(), 1))
    (predictor,) = fit(network, train, validation, Settings(epochs=40, learning_rate=1e-3))
    assert r2(test.y.numpy(), predictor(Examples.of(test)).numpy()) > 0.8


def test_a_users_own_module_is_trained_on_batches_of_pyg_in_three_lines(plant_zoo):
    def change(arrays):
        arrays["weights"] += arrays["test_accuracy"][:, None] - 0.5

    zoo = plant_zoo(change)
    train, validation, test = (ZooDataset(zoo, "standard", split) for split in ("train", "validation", "test"))
    network = build(lambda: GraphRegressor(train.num_node_features, train.num_edge_features), 0)
    (predictor,) = fit(network, train, validation, Settings(epochs=15, batch_size=16, learning_rate=1e-2))
    assert r2(test.y.numpy(), predictor(Examples.of(test)).numpy()) > 0.3


def test_networks_of_several_architectures_are_learned_together(plant_zoo):
    def change(arrays):
        arrays["weights"] += 3 * (arrays["test_accuracy"][:, None] - 0.5)

    zoos = [plant_zoo(change, widths=widths) for widths in ((8, 16, 8, 4), (8, 10, 4))]
    train, validation = (
        ConcatDataset([ZooDataset(zoo, "standard", split) for zoo in zoos]) for split in ("train", "validation")
    )
    gmn = build(lambda: MODELS["gmn"](fit_reader(zoos[0], "standard", "tensors")), 0)
    (predictor,) = fit(gmn, train, validation, Settings(epochs=8, batch_size=16, learning_rate=1e-2))
    for zoo in zoos:
        test = ZooDataset(zoo, "standard", "test")
        assert r2(test.y.numpy(), predictor(test).numpy()) > 0.5


def test_a_column_of_predictions_is_as_good_as_a_vector():
    examples, validation, test = some_task()
    settings = Settings(epochs=2)
    columns = fit(some_perceptrons(range(2)), examples, validation, settings, seeds=range(2))
    vectors = [nn.Sequential(*network, nn.Flatten(0)) for network in some_perceptrons(range(2))]
    for column, flat in zip(columns, fit(vectors, examples, validation, settings, seeds=range(2)), strict=True):
        torch.testing.assert_close(column(test), flat(test))


def test_global_random_states_are_neither_read_nor_moved():
    examples, validation, test = some_task()

    def predict():
        (predictor,) = fit(build(perceptron, 0), examples, validation, Settings(epochs=2))
        return predictor(test)

    torch.manual_seed(1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = predict()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    torch.manual_seed(2)
    assert torch.equal(predict(), first)
