import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.scenarios import NETWORKS, SETTINGS, some_data, some_thetas, treat, treatment_of
from zoo.data.augmentation import Augmentation
from zoo.errors import AsymZooError
from zoo.networks.architectures import ARCHITECTURES
from zoo.networks.architectures.base import Architecture, sites_of
from zoo.networks.parameters import ParameterLayout
from zoo.recipes.optimizer import Optimizer
from zoo.recipes.recipe import Recipe, built_in_recipes
from zoo.training.compiled.checking import program_for
from zoo.training.compiled.lowering import lower
from zoo.training.compiled.training import train_compiled
from zoo.training.engines import engine_for
from zoo.training.results import Draws
from zoo.training.stacked import train_stacked
from zoo.treatments import Treated


class Network(Architecture):
    """A network of 6 inputs, 10 units and 4 classes around whatever lies between."""

    def __init__(self, body, bias=True):
        super().__init__()
        self.first, self.body, self.last = nn.Linear(6, 10, bias=bias), body, nn.Linear(10, 4)
        self.axes = {name: (None,) * parameter.ndim for name, parameter in self.named_parameters()}
        self.sites = {}

    def forward(self, x):
        return self.last(self.body(self.first(x.flatten(1))))


class Body(nn.Module):
    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def residual(self, x):
    x = functional.relu(self.one(x)) + x
    y = torch.tanh(self.two(x))
    return torch.add(y.add(x), self.norm(x))


def linear():
    return nn.Linear(10, 10)


BODIES = {
    "nothing": nn.Identity(),
    "modules": nn.Sequential(nn.LayerNorm(10), nn.GELU(), nn.Flatten(), linear(), nn.ReLU(inplace=True), nn.Tanh()),
    "residual sums": Body(residual, one=linear(), two=nn.Linear(10, 10, bias=False), norm=nn.LayerNorm(10, eps=1e-3)),
    "a value used three times": Body(lambda self, x: self.one(x) + functional.gelu(x) + x, one=linear()),
    "a sum of the same value": Body(lambda self, x: x + x),
    "a residual sum around an activation": Body(lambda self, x: torch.relu(x) + x.relu()),
}
REFUSED = {
    "an unknown module": nn.Softplus(),
    "an unknown function": Body(lambda self, x: torch.sin(x)),
    "a product": Body(lambda self, x: x * x),
    "a number": Body(lambda self, x: x + 1),
    "a parameter outside a module": Body(lambda self, x: x + self.one.bias, one=linear()),
    "another GELU": nn.GELU(approximate="tanh"),
    "a GELU by an argument": Body(lambda self, x: functional.gelu(x, approximate="tanh")),
    "a scaled sum": Body(lambda self, x: torch.add(x, x, alpha=2)),
    "a module used twice": Body(lambda self, x: self.one(self.one(x)), one=linear()),
    "a norm without parameters": nn.LayerNorm(10, elementwise_affine=False),
    "a norm without shift": nn.LayerNorm(10, bias=False),
    "a change of a value that is used elsewhere": Body(lambda self, x: self.act(x) + x, act=nn.ReLU(inplace=True)),
    "a choice by a value": Body(lambda self, x: x if x.sum() > 0 else -x),
    "an unused value": Body(lambda self, x: (self.one(x), x)[1], one=linear()),
    "a flattened batch": Body(lambda self, x: x.flatten()),
}


HYPERPARAMETERS = Draws(
    torch.tensor([3, 0]),
    torch.tensor([0.05, 0.02], dtype=torch.float64),
    torch.tensor([0.01, 0.0], dtype=torch.float64),
    torch.tensor([0.1, 0.0], dtype=torch.float64),
    torch.tensor([2, 1]),
)


def treated(network):
    return Treated(ParameterLayout.of(network), sites_of(network), {}, lambda: network)


@pytest.mark.parametrize("batch", [5, 16, 40])
@pytest.mark.parametrize("body", BODIES)
def test_a_program_trains_like_the_module(body, batch):
    subject, data = treated(Network(BODIES[body])), some_data((2, 3))
    settings = Optimizer(optimizer="sgd", batch_size=batch, momentum=0.5)
    start = some_thetas(subject, 2, dtype=torch.float32)
    found = train_compiled(subject, start, HYPERPARAMETERS, data, settings, seed=1)
    expected = train_stacked(subject, start.double(), HYPERPARAMETERS, data, settings, seed=1)
    torch.testing.assert_close(found.rows, expected.rows.float(), rtol=1e-4, atol=1e-5)
    assert (found.rows != start).double().mean() > 0.9
    for name, values in expected.metrics.items():
        torch.testing.assert_close(found.metrics[name], values.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("body", REFUSED)
def test_a_module_with_an_unknown_operation_is_not_lowered(body):
    network = Network(nn.Identity())
    network.body = REFUSED[body]
    subject = Treated(ParameterLayout(()), {}, {}, lambda: network)
    assert lower(subject, (6,), 16) is None


def test_layers_that_have_hooks_are_not_lowered():
    network = Network(nn.ReLU())
    assert lower(treated(network), (6,), 16) is not None
    network.body.register_forward_hook(lambda module, inputs, output: 2 * output)
    assert lower(treated(network), (6,), 16) is None


class Unseen(Network):
    """Networks of which tracing misses a part."""

    def __init__(self, part):
        super().__init__(nn.Sequential(linear(), nn.ReLU()))
        self.part = part

    def forward(self, x):
        x = self.first(x)
        if self.part == "a part without gradient":
            with torch.no_grad():
                x = self.body(x)
        elif self.part == "a choice by type" and isinstance(x, torch.Tensor):
            x = self.body(x)
        elif self.part == "a change in place":
            kept = y = torch.relu(x)
            y += x
            return self.last(kept + y)
        return self.last(x)


@pytest.mark.parametrize("part", ["a part without gradient", "a choice by type", "a change in place"])
def test_what_tracing_misses_is_found_by_the_gradient(part):
    assert program_for(treated(Unseen("nothing")), (6,), 16) is not None
    subject = treated(Unseen(part))
    assert lower(subject, (6,), 16) is not None
    assert program_for(subject, (6,), 16) is None


def test_hooks_of_the_whole_network_are_found_by_the_gradient():
    network = Network(nn.ReLU())
    network.register_forward_hook(lambda module, inputs, output: 2 * output)
    assert program_for(treated(network), (6,), 16) is None


class Shared(Architecture):
    """A network that uses the same activation twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 10), linear(), nn.Linear(10, 4)
        self.act = nn.ReLU()
        hidden = {"a.weight": ("h", "input"), "a.bias": ("h",), "b.weight": ("h", "h"), "b.bias": ("h",)}
        self.axes = {**hidden, "c.weight": ("output", "h"), "c.bias": ("output",)}
        self.sites = {"act": "h"}

    def forward(self, x):
        h = self.act(self.a(x))
        return self.c(self.act(self.b(h) + h))


@pytest.mark.parametrize("setting", ["standard", "sigma_asymmetric"])
def test_an_activation_may_be_used_several_times(setting, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "shared", Shared)
    subject, data = Treated.of(treatment_of(setting), "shared", {}), some_data((6,))
    start = some_thetas(subject, 2, dtype=torch.float32)
    settings = Optimizer(optimizer="sgd", batch_size=16)
    found = train_compiled(subject, start, HYPERPARAMETERS, data, settings, seed=1)
    expected = train_stacked(subject.to("cpu", torch.float64), start.double(), HYPERPARAMETERS, data, settings, seed=1)
    torch.testing.assert_close(found.rows, expected.rows.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, 1e-40])
def test_a_norm_whose_epsilon_is_not_a_float32_number_is_not_lowered(epsilon):
    assert lower(treated(Network(nn.LayerNorm(10, eps=epsilon))), (6,), 16) is None


def test_a_network_of_inputs_of_another_size_is_not_lowered():
    assert lower(treated(Network(nn.ReLU())), (7,), 16) is None


@pytest.mark.parametrize("network", ["cnn", "resnet8", "gnn"])
def test_networks_with_convolutions_and_graphs_are_not_lowered(network):
    assert lower(treat("standard", network), NETWORKS[network].shape, 16) is None
    with pytest.raises(AsymZooError, match="cannot compile this architecture"):
        train_compiled(
            treat("standard", "cnn"), torch.zeros(1, 9), HYPERPARAMETERS, some_data((2, 8, 8)), Optimizer(), seed=0
        )


@pytest.mark.parametrize("name", built_in_recipes())
def test_the_built_in_recipes_of_multilayer_perceptrons_are_lowered_and_no_others(name):
    recipe = Recipe.load(name)
    arguments = recipe.architecture.arguments
    shape = (arguments["widths"][0],) if recipe.architecture.name == "mlp" else (3, 32, 32)
    for treatment in recipe.treatments:
        lowered = lower(recipe.treat(treatment), shape, recipe.training.batch_size) is not None
        assert lowered == (recipe.architecture.name == "mlp")


@pytest.mark.parametrize("setting", SETTINGS)
def test_multilayer_perceptrons_are_lowered_under_every_treatment(setting):
    for network in ("mlp", "mlp_plain"):
        assert lower(treat(setting, network), NETWORKS[network].shape, 16) is not None


def test_without_numba_and_where_augmentation_is_wanted_torch_trains(monkeypatch):
    subject, data = treat("standard"), some_data()
    assert engine_for(subject, data, Optimizer(), "cpu").name == "compiled"
    assert engine_for(subject, data, Optimizer(augmentation=Augmentation(flip=True)), "cpu").name == "torch"
    assert engine_for(subject, data, Optimizer(precision="bfloat16"), "cpu").name == "torch"
    monkeypatch.setitem(sys.modules, "numba", None)  # so that its import fails
    assert engine_for(subject, data, Optimizer(), "cpu").name == "torch"
