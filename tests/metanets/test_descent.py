import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from sklearn.metrics import log_loss
from torch import nn

from metanets.descent import descend, run
from metanets.examples import InMemory
from metanets.links import Link
from metanets.settings import Settings
from metanets.training import build
from zoo.errors import TaskError
from zoo.seeds import rng_for
from zoo.store.columns import KNOWN

FEATURES, CLASSES = 14, 3
LINKS = {"fractions": KNOWN["test_accuracy"], "classes": None}


def some_task(networks=120, noise=0.5, seed=0, classes=False):
    """Inputs in general position and a noisy target linear in them, for training, validation and test."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(networks, FEATURES, generator=generator)
    y = x @ torch.randn(FEATURES, generator=generator) / 4 + noise * torch.randn(networks, generator=generator)
    y = torch.bucketize(y, y.quantile(torch.tensor([1 / 3, 2 / 3]))) if classes else 0.5 + 0.1 * y
    return [InMemory(*parts) for parts in zip(x.chunk(3), y.chunk(3), strict=True)]


def perceptron(outputs=1):
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, outputs))


def some_perceptrons(seeds, outputs=1):
    return [build(lambda: perceptron(outputs), seed) for seed in seeds]


def train(modules, train, validation, settings, seeds=(0,), column=None):
    """Train modules in place; return what predicts with each, and the numbers of epochs."""
    link = Link.of(train.y, column)
    epochs = descend(modules, train, validation, link, settings, seeds)
    predict = [torch.no_grad()(lambda x, module=module: link(run(module, x, link.outputs))) for module in modules]
    return predict, epochs


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
@pytest.mark.parametrize("link", LINKS)
def test_seeds_trained_together_are_what_each_is_alone(settings, link):
    examples, validation, test = some_task(classes=link == "classes")
    outputs = CLASSES if link == "classes" else 1
    options = {"settings": settings, "column": LINKS[link]}
    together, epochs = train(some_perceptrons(range(4), outputs), examples, validation, seeds=range(4), **options)
    predictions = torch.stack([predict(test.x) for predict in together])
    for seed in range(4):
        (alone,), (own,) = train(some_perceptrons([seed], outputs), examples, validation, seeds=[seed], **options)
        torch.testing.assert_close(predictions[seed], alone(test.x), rtol=0, atol=1e-5)
        assert epochs[seed][1] == own[1]
    assert torch.pdist(predictions.flatten(1)).min() > 1e-3


def epochs_by_pytorch(settings, examples, score, loss_of):
    """Train by AdamW with a clipped gradient, a plain loop; return weights and score at the start and each epoch's end."""
    network = build(lambda: perceptron(CLASSES if not examples.y.is_floating_point() else 1), 3)
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    path, scores, passes = [vector(network)], [score(network)], 2 if settings.steps else 1
    for epoch in range(1, settings.epochs + 1):
        for number in range(passes * (epoch - 1) + 1, passes * epoch + 1):
            order = rng_for(3, "metanetwork/order", number).permutation(len(examples.y))
            for begin in range(0, len(order), settings.batch_size):
                some = order[begin : begin + settings.batch_size]
                optimizer.zero_grad()
                loss_of(network(examples.x[some]), examples.y[some]).backward()
                nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
                optimizer.step()
        if settings.schedule == "cosine":
            scheduler.step()
        path.append(vector(network))
        scores.append(score(network))
        if settings.patience is not None and epoch - np.argmax(scores) >= settings.patience:
            break
    return path, scores


def assert_trained_alike(settings, examples, validation, path, scores):
    (network,) = some_perceptrons([3], 1 if examples.y.is_floating_point() else CLASSES)
    _, (epochs,) = train([network], examples, validation, settings, seeds=[3])
    best = int(np.argmax(scores))
    assert epochs == (len(path) - 1, best)
    torch.testing.assert_close(vector(network), path[best], rtol=0, atol=1e-5)


@EVERY_SETTINGS
def test_training_is_adamw_with_a_clipped_gradient_as_pytorch_has_them(settings):
    examples, validation, _ = some_task()
    mean, std, true = examples.y.mean(), examples.y.std(), validation.y.numpy()

    def score(network):
        with torch.no_grad():
            predicted = (mean + std * network(validation.x).flatten()).numpy()
        return 1 - np.square(predicted - true).mean() / true.var() + kendalltau(predicted, true).statistic

    def loss_of(z, y):
        error = (z.flatten() - (y - mean) / std).abs()
        near = error < settings.huber
        return torch.where(near, error**2 / (2 * settings.huber), error - settings.huber / 2).mean()

    assert_trained_alike(settings, examples, validation, *epochs_by_pytorch(settings, examples, score, loss_of))


@EVERY_SETTINGS
def test_classes_are_learnt_by_cross_entropy_and_the_epoch_is_chosen_by_log_loss(settings):
    examples, validation, _ = some_task(classes=True)

    def score(network):
        with torch.no_grad():
            return -log_loss(
                validation.y.numpy(), network(validation.x).double().softmax(1).numpy(), labels=range(CLASSES)
            )

    path, scores = epochs_by_pytorch(settings, examples, score, nn.CrossEntropyLoss())
    assert_trained_alike(settings, examples, validation, path, scores)


def test_parts_of_a_batch_run_one_after_the_other_give_the_same_step():
    examples, validation, test = some_task()
    settings, link = Settings(epochs=3, batch_size=16, learning_rate=1e-2), Link.of(examples.y)
    whole, parts = (build(perceptron, 0) for _ in range(2))
    descend([whole], examples, validation, link, settings, [0])
    descend([parts], examples, validation, link, settings, [0], at_once=5)
    torch.testing.assert_close(parts(test.x), whole(test.x), rtol=0, atol=1e-5)


def test_training_ends_when_none_of_the_seeds_has_got_better_for_as_long_as_patience_lasts():
    examples, validation, _ = some_task(noise=3)
    settings = Settings(epochs=60, learning_rate=3e-2, patience=3)
    _, epochs = train(some_perceptrons(range(3)), examples, validation, settings, seeds=range(3))
    ran, best = zip(*epochs, strict=True)
    assert {*ran} == {max(best) + 3}
    assert max(best) < 57
    assert len({*best}) > 1


def test_the_epoch_is_the_one_best_on_validation_the_start_included():
    examples, validation, test = some_task(noise=0)
    contrary = InMemory(validation.x, 2 * validation.y.mean() - validation.y)
    zero = nn.Linear(FEATURES, 1)
    nn.init.zeros_(zero.weight), nn.init.zeros_(zero.bias)
    (start,), epochs = train([zero], examples, contrary, Settings(epochs=5))
    assert epochs == [(5, 0)]
    torch.testing.assert_close(start(test.x), examples.y.mean().expand_as(test.y))
    _, epochs = train([build(lambda: nn.Linear(FEATURES, 1), 0)], examples, validation, Settings(epochs=5))
    assert epochs == [(5, 5)]


def test_an_epoch_between_first_and_last_can_be_the_best():
    examples, validation, _ = some_task(noise=0.5)
    settings = Settings(epochs=40, batch_size=8, learning_rate=1e-2)
    (kept,), ((_, best),) = train(some_perceptrons([0]), examples, validation, settings)
    (start,), _ = train(some_perceptrons([0]), examples, validation, Settings(epochs=0))
    (last,), ((_, end),) = train(some_perceptrons([0]), examples, examples, settings)  # whose best is near the end
    errors = [float((predict(validation.x) - validation.y).square().mean()) for predict in (start, kept, last)]
    assert 0 < best < end
    assert errors[1] < min(errors[0], errors[2]) - 1e-4


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_network_whose_training_overflows_is_left_at_its_best(seeds):
    examples, validation, test = some_task()
    wild = Settings(epochs=3, learning_rate=1e38, clip=1e38)
    with pytest.warns(UserWarning, match="training diverged, the initial weights are kept"):
        trained = train(some_perceptrons(range(seeds)), examples, validation, wild, seeds=range(seeds))[0]
    for predict in trained:
        assert predict(test.x).isfinite().all()


def test_a_column_of_outputs_is_as_good_as_a_vector():
    examples, validation, test = some_task()
    settings = Settings(epochs=2)
    vectors = [nn.Sequential(*network, nn.Flatten(0)) for network in some_perceptrons(range(2))]
    pairs = (
        train(modules, examples, validation, settings, seeds=range(2))[0]
        for modules in (some_perceptrons(range(2)), vectors)
    )
    for column, flat in zip(*pairs, strict=True):
        torch.testing.assert_close(column(test.x), flat(test.x))


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("classes", [False, True])
def test_another_number_of_outputs_is_one_clear_error(seeds, classes):
    examples, validation, _ = some_task(classes=classes)
    wanted = CLASSES if classes else 1
    with pytest.raises(TaskError, match=rf"^module: gives \(\d+, 2\) for a batch, not \(networks, {wanted}\)"):
        train(some_perceptrons(range(seeds), 2), examples, validation, Settings(epochs=1), seeds=range(seeds))
