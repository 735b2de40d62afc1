"""How many times faster stacks train than networks one at a time. Prints JSON; run it on an idle machine.

Both sides run as two processes of one thread each, train the same networks of a built-in recipe in turns, and measure
train and test loss after each epoch. One at a time means an ordinary module, `torch.optim.AdamW(fused=True)` and,
for convolutions, channels-last.
"""

import json
import multiprocessing
import sys
import time
from typing import Any

import numpy as np
import torch

from zoo.data import Data, load_data
from zoo.networks.stack import is_convolutional
from zoo.recipes.recipe import Recipe
from zoo.seeds import rng_for
from zoo.training.generation import start_rows, train_pairs

ROUNDS = 5


def train_one(recipe: Recipe, pair: int, data: Data) -> None:
    """Train a standard network as anyone would."""
    drawn, treated = recipe.draw(pair), recipe.treat("standard")
    module = treated.stack(start_rows(recipe, "standard", treated, [pair])).network(0)
    layout = torch.channels_last if is_convolutional(module) else torch.contiguous_format
    module = module.to(memory_format=layout)
    train_x, test_x = (x.contiguous(memory_format=layout) for x in (data.train_x, data.test_x))
    epochs, batch = int(drawn["epochs"]), recipe.training.batch_size
    steps = len(data.train_y) // batch
    rates = drawn["learning_rate"] * recipe.training.factors(epochs, steps)
    optimizer = torch.optim.AdamW(module.parameters(), weight_decay=drawn["weight_decay"], fused=True)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=drawn["label_smoothing"])
    for epoch in range(epochs):
        order = torch.from_numpy(rng_for(recipe.seed, "order", pair, epoch).permutation(len(data.train_y)))
        for step, index in enumerate(order[: steps * batch].split(batch)):
            optimizer.param_groups[0]["lr"] = rates[epoch * steps + step]
            optimizer.zero_grad()
            loss_of(module(train_x[index]), data.train_y[index]).backward()
            optimizer.step()
        with torch.no_grad():
            for x, y in ((train_x, data.train_y), (test_x, data.test_y)):
                logits = torch.cat([module(images) for images in x.split(256)])
                torch.nn.functional.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


def work(name: str, data_dir: str | None, first: int, alone: int, together: int, barrier: Any, results: Any) -> None:
    """Train networks both ways in turns, while another process does the same; report the seconds a network."""
    torch.set_num_threads(1)
    recipe = Recipe.load(name)
    data = load_data(recipe.data.name, data_dir=data_dir, train_limit=recipe.data.train_limit)

    def one_at_a_time(pairs: range) -> None:
        for pair in pairs:
            train_one(recipe, pair, data)

    def stacked(pairs: range) -> None:
        train_pairs(recipe, "standard", pairs, data)

    seconds = []
    for turn in range(ROUNDS + 1):  # the first warms up
        for train, networks in ((one_at_a_time, alone), (stacked, together)):
            begin = first + turn * max(alone, together)
            barrier.wait()
            began = time.perf_counter()
            train(range(begin, begin + networks))
            seconds.append((time.perf_counter() - began) / networks)
    results.put((seconds[2::2], seconds[3::2]))


def compare(name: str, data_dir: str | None, alone: int, together: int) -> dict[str, object]:
    """Measure both ways; each figure is the sum of two processes, the ratio the median over rounds."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.SimpleQueue()
    processes = [
        context.Process(target=work, args=(name, data_dir, 1000 * i, alone, together, barrier, results))
        for i in range(2)
    ]
    for process in processes:
        process.start()
    one, stacked = (1 / np.array([results.get() for _ in processes])).sum(0)  # (ways, rounds) networks a second
    for process in processes:
        process.join()
    return {
        "recipe": name,
        "one_at_a_time": one.round(3).tolist(),
        "stacked": stacked.round(3).tolist(),
        "ratio": round(float(np.median(stacked / one)), 2),
    }


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else None
    figures = [compare("digits-mlp", None, 16, 128)]
    if folder is not None:  # a folder with MNIST's files
        figures.append(compare("mnist-cnn", folder, 2, 2))
    print(json.dumps(figures, indent=1))
