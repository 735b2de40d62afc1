"""How many times faster networks train than at an earlier commit. Run it on an idle machine, with a worktree of that one:

    git worktree add ../earlier 96c04a7
    python tests/performance/against.py ../earlier

Both sides run in turns, each in a new process of one thread, on the same networks and data. Figures are user CPU time
for one training step of one network, with evaluation after every epoch; ratios are medians over the rounds. The result
is stored under `against` in `benchmark/results/performance.json`.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

HERE = Path(__file__).parents[2]
RESULTS = HERE / "benchmark/results/performance.json"
ROUNDS = 5
BATCH, PAIRS = 64, 200  # pairs of the recipe
# By case: widths, training and test examples, networks, epochs, and fixed entries of W-Asymmetric networks.
CASES: dict[str, tuple[list[int], int, int, int, int, list[int]]] = {
    "64-32-32-10": ([64, 32, 32, 10], 1437, 360, 128, 3, [16, 8, 8]),
    "40-64-64-10": ([40, 64, 64, 10], 4000, 1000, 128, 2, [8, 16, 16]),
    "784-64-64-10": ([784, 64, 64, 10], 12000, 2000, 37, 2, [64, 16, 16]),
}
SPARSE = {"64-32-32-10": 128, "40-64-64-10": 32, "784-64-64-10": 4}  # networks, with curves measured every 10 epochs


def examples(case: str) -> tuple[Any, ...]:
    """Return random examples and labels that a linear map gives them, of both splits."""
    import torch

    widths, train, test, *_ = CASES[case]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(train + test, widths[0], generator=generator)
    y = (x @ torch.randn(widths[0], 10, generator=generator)).argmax(1)
    return x[:train], y[:train], x[train:], y[train:]


def hyperparameters(networks: int, epochs: int) -> dict[str, Any]:
    """Return hyperparameters of networks that train for equally many epochs."""
    import torch

    rng = np.random.default_rng(0)
    return {
        "learning_rate": torch.from_numpy(10 ** rng.uniform(-3.8, -1.5, networks)),
        "weight_decay": torch.from_numpy(10 ** rng.uniform(-5, -1, networks)),
        "label_smoothing": torch.from_numpy(rng.uniform(0, 0.2, networks)),
        "epochs": torch.full((networks,), epochs),
    }


def time_of(train: Callable[[], Any], steps: int) -> float:
    """Return microseconds of user CPU time for one step."""
    began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    train()
    return 1e6 * (resource.getrusage(resource.RUSAGE_SELF).ru_utime - began) / steps


def earlier() -> SimpleNamespace:
    """Return what is needed of the package at commit 96c04a7."""
    from zoo import data, generation, recipe, training, treatments

    def train(treated: Any, starts: Any, drawn: dict[str, Any], examples: Any, settings: Any) -> Any:
        drawn = training.Hyperparameters(**drawn)
        return training.train(treated, starts, drawn, examples, settings, seed=0, pairs=range(len(starts)))

    return SimpleNamespace(
        data=data, recipe=recipe, generation=generation, optimizer=training, treatments=treatments, train=train
    )


def now() -> SimpleNamespace:
    """Return what is needed of the package here."""
    import torch

    from zoo import data, treatments
    from zoo.recipes import optimizer, recipe
    from zoo.training import engines, generation, results

    def train(treated: Any, starts: Any, drawn: dict[str, Any], examples: Any, settings: Any) -> Any:
        draws = results.Draws(torch.arange(len(starts)), **drawn)
        return engines.train(treated, starts, draws, examples, settings, seed=0)

    return SimpleNamespace(
        data=data, recipe=recipe, generation=generation, optimizer=optimizer, treatments=treatments, train=train
    )


SIDES = {"earlier": earlier, "now": now}


def time_of_recipe(zoo: SimpleNamespace) -> float:
    """Return the time of a step in the recipe `digits-mlp`, whose networks train for 2 to 40 epochs."""
    recipe, data = zoo.recipe.Recipe.load("digits-mlp"), zoo.data.load_data("digits")
    epochs = sum(int(recipe.draw(pair)["epochs"]) for pair in range(PAIRS))
    steps = epochs * (len(data.train_y) // BATCH)
    return time_of(lambda: zoo.generation.train_pairs(recipe, "standard", range(PAIRS), data), steps)


def time_of_case(zoo: SimpleNamespace, case: str, treatment: dict[str, Any], networks: int, **settings: int) -> float:
    """Return the time of a step of networks that train for equally many epochs; `settings` are epochs and curves."""
    import torch

    data, epochs = zoo.data.Data(case, *examples(case), 10), settings.pop("epochs")
    treated = zoo.treatments.Treated.of(
        zoo.treatments.TREATMENTS[treatment["kind"]](**treatment), "mlp", {"widths": CASES[case][0]}
    )
    starts = torch.stack([treated.layout.draw_initial(np.random.default_rng(k)) for k in range(networks)])
    optimizer = zoo.optimizer.Optimizer(batch_size=BATCH, schedule="triangular", **settings)
    drawn, steps = hyperparameters(networks, epochs), networks * epochs * (len(data.train_y) // BATCH)
    return time_of(lambda: zoo.train(treated, starts, drawn, data, optimizer), steps)


def measure(side: str) -> dict[str, float]:
    """Return microseconds a step of every case on one side."""
    import torch

    torch.set_num_threads(1)
    zoo = SIDES[side]()
    standard = {"kind": "standard"}
    time_of_case(zoo, "40-64-64-10", standard, 8, epochs=1)  # to compile, and to warm up
    figures = {"digits-mlp": time_of_recipe(zoo)}
    for case, (*_, networks, epochs, n_fix) in CASES.items():
        treatments = {"standard": standard}
        if case == "64-32-32-10":
            treatments["w_asymmetric"] = {"kind": "w_asymmetric", "n_fix": n_fix, "kappa": [1.0, 1.0, 0.5]}
            treatments["sigma_asymmetric"] = {"kind": "sigma_asymmetric"}
        for name, treatment in treatments.items():
            figures[f"{case} {name}"] = time_of_case(zoo, case, treatment, networks, epochs=epochs)
        if side == "now":
            figures[f"{case} curves 10"] = time_of_case(zoo, case, standard, SPARSE[case], epochs=20, curves=10)
    return figures


def run(folder: Path, side: str) -> dict[str, float]:
    """Measure one side in a new process, in its folder."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    command = [sys.executable, __file__, "--measure", side]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(folder: Path) -> None:
    """Run both sides in turns, and store the ratios."""
    rounds = [(run(folder, "earlier"), run(HERE, "now")) for _ in range(ROUNDS)]
    ratios = {
        name: [before[name.replace("curves 10", "standard")] / now[name] for before, now in rounds]
        for name in rounds[0][1]
    }
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True)
    result = {
        "commit": commit.stdout.strip(),
        "command": "python tests/performance/against.py WORKTREE",
        "date": datetime.now(UTC).date().isoformat(),
        "unit": "microseconds of user CPU time a training step of a network, evaluation included",
        "now": {name: round(float(np.median([now[name] for _, now in rounds])), 1) for name in rounds[0][1]},
        "earlier": {name: round(float(np.median([then[name] for then, _ in rounds])), 1) for name in rounds[0][0]},
        "ratios": {name: round(float(np.median(values)), 2) for name, values in ratios.items()},
    }
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(stored | {"against": result}, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        sys.path = [path for path in sys.path if not path.endswith("performance")]
        print(json.dumps(measure(sys.argv[2])))
    else:
        main(Path(sys.argv[1]).resolve())
