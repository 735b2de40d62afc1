"""How many times faster lines between networks are measured as stacks than the plain way. Prints JSON.

The plain way is that of the paper's code: for every line and every point `load_state_dict` with the interpolated
weights, then a loop over batches of 64, train and test. The paper's MLP is given noise. Also: the seconds that it takes
to align 100 networks of it, each with another one. Each side in turns, one thread.
"""

import copy
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from benchmark.alignment import weight_matching
from benchmark.lines import measure_lines
from zoo.data import Data, load_data
from zoo.networks.stack import Stack, stack_size
from zoo.recipes.recipe import Recipe
from zoo.training.generation import start_rows

ROUNDS = 5
LINES = {"digits-mlp": 64, "digits-mlp-replicas": 64, "mnist-mlp-replicas": 2}
POINTS = 25
ALIGNED = 100  # networks whose seconds are reported
MEASURED = 10  # of these, the first

Curves = dict[str, np.ndarray]


def networks(name: str, count: int) -> Stack:
    """Networks at their start; how well they do does not matter here."""
    recipe = Recipe.load(name)
    treated = recipe.treat("standard")
    return treated.stack(start_rows(recipe, "standard", treated, range(count)))


def ours(a: Stack, b: Stack, data: Data) -> Curves:
    """Lines as stacks, as many at once as phenomena take."""
    portion = max(1, stack_size(a.module, a.layout, "cpu") // POINTS)
    parts = [
        measure_lines(a.take(slice(k, k + portion)), b.take(slice(k, k + portion)), data, POINTS)
        for k in range(0, len(a), portion)
    ]
    return {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}


@torch.no_grad()
def plain(a: Stack, b: Stack, data: Data) -> Curves:
    """One network after the other, in batches of 64."""
    network = copy.deepcopy(a.module)
    splits = {"train": (data.train_x, data.train_y), "test": (data.test_x, data.test_y)}
    curves = {f"{split}_{name}": np.zeros((len(a), POINTS)) for split in splits for name in ("loss", "accuracy")}
    for k in range(len(a)):
        ends = [stack.layout.unflatten(stack.rows[k]) for stack in (a, b)]
        for point, t in enumerate(np.linspace(0, 1, POINTS)):
            network.load_state_dict({name: (1 - t) * ends[0][name] + t * ends[1][name] for name in ends[0]})
            for split, (x, y) in splits.items():
                loss = correct = 0.0
                for images, labels in zip(x.split(64), y.split(64), strict=True):
                    logits = network(images)
                    loss += functional.cross_entropy(logits, labels, reduction="sum").item()
                    correct += (logits.argmax(1) == labels).sum().item()
                curves[f"{split}_loss"][k, point] = loss / len(y)
                curves[f"{split}_accuracy"][k, point] = correct / len(y)
    return curves


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def noise(examples: int = 2000) -> Data:
    """Of the shape of MNIST."""
    x, y = torch.randn(2 * examples, 784), torch.randint(10, (2 * examples,))
    return Data("noise", x[:examples], y[:examples], x[examples:], y[examples:], 10)


def compare_lines(name: str) -> dict[str, object]:
    """Both ways on the same lines."""
    data = noise() if name.startswith("mnist") else load_data("digits")
    ends = networks(name, 2 * LINES[name])
    a, b = ends.take(slice(0, None, 2)), ends.take(slice(1, None, 2))
    one, other = ours(a, b, data), plain(a, b, data)
    rounds = np.array([(seconds(lambda: ours(a, b, data)), seconds(lambda: plain(a, b, data))) for _ in range(ROUNDS)])
    return {
        "what": "lines",
        "recipe": name,
        "lines": len(a),
        "seconds": np.median(rounds, 0).round(2).tolist(),
        "ratio": round(float(np.median(rounds[:, 1] / rounds[:, 0])), 2),
        "greatest_difference": max(float(np.abs(one[curve] - other[curve]).max()) for curve in one),
    }


def align_many() -> dict[str, object]:
    """The paper's MLP, 784-512-512-512-10, each network with another, one after the other as phenomena do."""
    stack, rng = networks("mnist-mlp-replicas", 2 * MEASURED), np.random.default_rng(0)
    ends = stack.rows.unflatten(0, (-1, 2)).unbind()
    taken = seconds(lambda: [weight_matching(stack.layout, a[None], b[None], rng) for a, b in ends])
    return {"what": "alignment", "networks": ALIGNED, "seconds_of_one_core": round(taken * ALIGNED / MEASURED, 1)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([*map(compare_lines, LINES), align_many()], indent=1))
