"""How many times as fast the engines train networks as ordinary modules train one at a time.

One at a time means an ordinary module, `torch.optim.AdamW(fused=True)` and, for convolutions, channels-last. It trains
all entries, which is quicker than to keep some of them constant. All sides train with the same hyperparameters and
measure both splits after the same epochs, in turns, in one thread of one process. Speed is epochs, over all networks,
in a second of processor time, which other processes disturb little.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from tests.performance.figures import Figure, Section
from zoo.data import Data
from zoo.networks.stack import is_convolutional
from zoo.recipes.distribution import Distribution
from zoo.recipes.recipe import Recipe
from zoo.seeds import rng_for
from zoo.training.engines import Engine, engine_for
from zoo.training.generation import start_rows, train_pairs

ROUNDS = 5
BATCH = 1000  # examples that are evaluated at once
DIGITS = {"epochs": Distribution(integers=(5, 20))}  # half of the recipe's, to save time
NOISE = {"epochs": Distribution(constant=2), "learning_rate": Distribution(constant=1e-3)}
TREATMENTS = ("standard", "w_asymmetric", "sigma_asymmetric")
WIDE = {"architecture": {"name": "mlp", "widths": [40, 64, 64, 10]}, "treatments": {"standard": {"kind": "standard"}}}
Train = Callable[[range], object]


@dataclass(frozen=True)
class Case:
    """Networks to train.

    Arguments:
        name: Name in tables.
        recipe: Recipe of the networks.
        data: Data that they learn.
        networks: Number of networks in a round: one at a time, in stacks, and compiled.
        treatment: Treatment of the networks that the engines train.
    """

    name: str
    recipe: Recipe
    data: Data
    networks: tuple[int, int, int]
    treatment: str = "standard"


def measure() -> Section:
    """Measure every case."""
    return {case.name: compare(case) for case in cases()}


def cases() -> list[Case]:
    """Return digits under treatments, MLPs of other sizes, and the other architectures."""
    digits, seldom = change("digits-mlp", **DIGITS), change("digits-mlp", **DIGITS, curves=10)
    mlp, mnist, cnn = change("digits-mlp", WIDE, **NOISE), change("mnist-mlp", **NOISE), change("mnist-cnn", **NOISE)
    resnet = change("cifar10-resnet8", augmentation=None, batch_size=128, **NOISE)
    gnn = change("sbm-gnn-replicas", epochs=Distribution(constant=10))
    data = digits.load_data()
    return [
        *(Case(f"digits-mlp, {name}", digits, data, (4, 128, 64), name) for name in TREATMENTS),
        Case("digits-mlp, standard, measured every 10 epochs", seldom, data, (4, 128, 64)),
        Case("MLP 40-64-64-10", mlp, noise((40,), 4000, 1000), (6, 48, 48)),
        Case("MLP 784-64-64-10", mnist, noise((784,), 12000, 2000), (2, 16, 16)),
        Case("CNN", cnn, noise((1, 28, 28), 1000, 500), (2, 2, 0)),
        Case("ResNet8", resnet, noise((3, 32, 32), 256, 64), (1, 1, 0)),
        Case("GNN", gnn, gnn.load_data(), (2, 4, 0)),
    ]


def change(name: str, fields: dict[str, Any] | None = None, **training: Any) -> Recipe:
    """Return a built-in recipe with other fields, and other settings of training."""
    recipe = Recipe.load(name)
    recipe = Recipe.read(recipe.to_json() | (fields or {}))
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=training)})


def noise(shape: tuple[int, ...], train: int, test: int) -> Data:
    """Return random examples of ten classes, since no file of a data set may be at hand."""
    rng = rng_for(0, "noise")
    x = torch.from_numpy(rng.standard_normal((train + test, *shape), "float32"))
    y = torch.from_numpy(rng.integers(0, 10, train + test))
    return Data("noise", x[:train], y[:train], x[train:], y[train:], 10)


def compare(case: Case) -> dict[str, Figure | None]:
    """Measure all sides of a case in turns."""
    recipe, data = case.recipe, case.data
    engine = partial(train_pairs, recipe, case.treatment, data=data)
    sides: dict[str, Train] = {"one at a time": partial(train_ordinary, recipe, data=data)}
    sides["stacks"] = partial(engine, engine=Engine("torch"))
    if engine_for(recipe.treat(case.treatment), data, recipe.training, "cpu").name == "compiled":
        sides["compiled"] = partial(engine, engine=Engine("compiled"))
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for train in sides.values():
        train(range(1))
    for turn in range(ROUNDS):
        for (name, train), networks in zip(sides.items(), case.networks, strict=False):
            first = turn * max(case.networks)
            speeds[name].append(speed(train, recipe, range(first, first + networks)))
    one = speeds["one at a time"]
    figures: dict[str, Figure | None] = {"one at a time, epochs a second": Figure.of("a second", one)}
    for name in ("stacks", "compiled"):
        ratios = [ours / theirs for ours, theirs in zip(speeds.get(name, ()), one, strict=False)]
        figures[name] = Figure.of("ratio", ratios) if ratios else None
    return figures


def speed(train: Train, recipe: Recipe, pairs: range) -> float:
    """Return how many epochs were trained in a second."""
    epochs = sum(int(recipe.draw(pair)["epochs"]) for pair in pairs)
    began = time.process_time()
    train(pairs)
    return epochs / (time.process_time() - began)


def train_ordinary(recipe: Recipe, pairs: range, data: Data) -> None:
    """Train networks one after the other as anyone would."""
    for pair in pairs:
        train_one(recipe, pair, data)


def train_one(recipe: Recipe, pair: int, data: Data) -> None:
    """Train a standard network as anyone would, on the device of the data."""
    drawn, treated = recipe.draw(pair), recipe.treat("standard")
    module = treated.stack(start_rows(recipe, "standard", treated, [pair])).network(0)
    layout = torch.channels_last if is_convolutional(module) else torch.contiguous_format
    module = module.to(data.train_y.device, memory_format=layout)
    train_x, test_x = (x.contiguous(memory_format=layout) for x in (data.train_x, data.test_x))
    epochs, batch = int(drawn["epochs"]), recipe.training.batch_size
    steps = len(data.train_y) // batch
    rates = drawn["learning_rate"] * recipe.training.factors(epochs, steps)
    optimizer = torch.optim.AdamW(module.parameters(), weight_decay=drawn["weight_decay"], fused=True)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=drawn["label_smoothing"])
    for epoch in range(epochs):
        order = torch.from_numpy(rng_for(recipe.seed, "order", pair, epoch).permutation(len(data.train_y)))
        for step, index in enumerate(order[: steps * batch].to(data.train_y.device).split(batch)):
            optimizer.param_groups[0]["lr"] = rates[epoch * steps + step]
            optimizer.zero_grad()
            loss_of(module(train_x[index]), data.train_y[index]).backward()
            optimizer.step()
        if (epoch + 1) % recipe.training.curves == 0 or epoch + 1 == epochs:
            for x, y in ((train_x, data.train_y), (test_x, data.test_y)):
                evaluate(module, x, y)


@torch.no_grad()
def evaluate(module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Return loss and accuracy."""
    logits = torch.cat([module(some) for some in x.split(BATCH)])
    return functional.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()
