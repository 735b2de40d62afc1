"""What holds for every metanetwork in `MODELS`."""

import pytest
import torch

from metanets.inputs import READERS, Examples
from metanets.metrics import r2
from metanets.models import MODELS, Metanetwork
from metanets.training import Settings, train

EVERY = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
SETTINGS = Settings(epochs=30, learning_rate=1e-2)


def linear_task(networks=400, features=14, seed=0):
    """Inputs in general position and a target linear in them, in halves and quarters."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(networks, features, generator=generator)
    y = 0.5 + 0.1 * x @ torch.randn(features, generator=generator)
    sizes = [networks // 2, networks // 4, networks // 4]
    return [Examples(*parts) for parts in zip(x.split(sizes), y.split(sizes), strict=True)]


@EVERY
def test_a_metanetwork_says_what_it_reads(model):
    assert issubclass(model, Metanetwork)
    assert model.reads in READERS
    assert model.learning_rate > 0


@EVERY
@pytest.mark.parametrize("networks", [1, 2, 5])
def test_a_metanetwork_gives_one_number_for_each_network(model, networks):
    x = torch.randn(networks, 14, generator=torch.Generator().manual_seed(0))
    network = model(14)
    predicted = network(x)
    assert predicted.shape == (networks,)
    torch.testing.assert_close(predicted, torch.cat([network(one) for one in x.split(1)]))


@EVERY
def test_a_metanetwork_learns_what_is_linear_in_its_input(model):
    examples, validation, test = linear_task()
    predicted = train(model, examples, validation, SETTINGS, seed=0)(test.x)
    mean = examples.y.mean().expand_as(test.y)
    assert r2(test.y.numpy(), predicted.numpy()) > 0.8 > 0 >= r2(test.y.numpy(), mean.numpy())


@EVERY
def test_every_parameter_of_a_metanetwork_learns(model):
    examples, validation, _ = linear_task()
    one, two = (train(model, examples, validation, SETTINGS, seed=seed) for seed in (0, 1))
    start = dict(train(model, examples, validation, Settings(epochs=0), seed=0).network.named_parameters())
    for name, parameter in one.network.named_parameters():
        assert not torch.equal(parameter, start[name])
        assert not torch.equal(parameter, dict(two.network.named_parameters())[name])


@EVERY
def test_a_metanetwork_of_one_seed_predicts_the_same_every_time(model):
    examples, validation, test = linear_task()
    settings = Settings(epochs=3)
    first, again, other = (train(model, examples, validation, settings, seed=seed)(test.x) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
