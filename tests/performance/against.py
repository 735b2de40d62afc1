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
from datetime import UTC, datetime
from pathlib import Path
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


def time_of(train: Any, steps: int) -> float:
    """Return microseconds of user CPU time for one step."""
    began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    train()
    return 1e6 * (resource.getrusage(resource.RUSAGE_SELF).ru_utime - began) / steps


class Earlier:
    """The package at commit 96c04a7."""

    curves = (1,)

    def recipe(self) -> tuple[Any, int]:
        from zoo.generation import train_pairs
        from zoo.recipe import Recipe

        from zoo.data import load_data

        recipe, data = Recipe.load("digits-mlp"), load_data("digits")
        epochs = sum(int(recipe.draw(pair)["epochs"]) for pair in range(PAIRS))
        return lambda: train_pairs(recipe, "standard", range(PAIRS), data), epochs

    def case(self, case: str, treatment: dict[str, Any], networks: int, epochs: int, curves: int) -> Any:
        import torch

        from zoo.data import Data
        from zoo.training import Hyperparameters, Optimizer, train
        from zoo.treatments import TREATMENTS, Treated

        data = Data(case, *examples(case), 10)
        treated = Treated.of(TREATMENTS[treatment["kind"]](**treatment), "mlp", {"widths": CASES[case][0]})
        starts = torch.stack([treated.layout.draw_initial(np.random.default_rng(k)) for k in range(networks)])
        drawn = Hyperparameters(**hyperparameters(networks, epochs))
        settings = Optimizer(batch_size=BATCH, schedule="triangular")
        return lambda: train(treated, starts, drawn, data, settings, seed=0, pairs=range(networks))


class Now:
    """The package here."""

    curves = (1, 10)

    def recipe(self) -> tuple[Any, int]:
        from zoo.data import load_data
        from zoo.recipes.recipe import Recipe
        from zoo.training.generation import train_pairs

        recipe, data = Recipe.load("digits-mlp"), load_data("digits")
        epochs = sum(int(recipe.draw(pair)["epochs"]) for pair in range(PAIRS))
        return lambda: train_pairs(recipe, "standard", range(PAIRS), data), epochs

    def case(self, case: str, treatment: dict[str, Any], networks: int, epochs: int, curves: int) -> Any:
        import torch

        from zoo.data import Data
        from zoo.recipes.optimizer import Optimizer
        from zoo.training.engines import train
        from zoo.training.results import Draws
        from zoo.treatments import TREATMENTS, Treated

        data = Data(case, *examples(case), 10)
        treated = Treated.of(TREATMENTS[treatment["kind"]](**treatment), "mlp", {"widths": CASES[case][0]})
        starts = torch.stack([treated.layout.draw_initial(np.random.default_rng(k)) for k in range(networks)])
        drawn = Draws(torch.arange(networks), **hyperparameters(networks, epochs))
        settings = Optimizer(batch_size=BATCH, schedule="triangular", curves=curves)
        return lambda: train(treated, starts, drawn, data, settings, seed=0)


def measure(side: Any) -> dict[str, float]:
    """Return microseconds a step of every case on one side."""
    import torch

    torch.set_num_threads(1)
    side.case("40-64-64-10", {"kind": "standard"}, 8, 1, 1)()  # to compile, and to warm up
    train, epochs = side.recipe()
    figures = {"digits-mlp": time_of(train, epochs * (1437 // BATCH))}
    for case, (_, examples, _, networks, epochs, n_fix) in CASES.items():
        treatments = {"standard": {"kind": "standard"}}
        if case == "64-32-32-10":
            treatments["w_asymmetric"] = {"kind": "w_asymmetric", "n_fix": n_fix, "kappa": [1.0, 1.0, 0.5]}
            treatments["sigma_asymmetric"] = {"kind": "sigma_asymmetric"}
        for name, treatment in treatments.items():
            train = side.case(case, treatment, networks, epochs, 1)
            figures[f"{case} {name}"] = time_of(train, networks * epochs * (examples // BATCH))
        if 10 in side.curves:
            train = side.case(case, treatments["standard"], SPARSE[case], 20, 10)
            figures[f"{case} curves 10"] = time_of(train, SPARSE[case] * 20 * (examples // BATCH))
    return figures


def run(folder: Path, side: str) -> dict[str, float]:
    """Measure one side in a new process, in its folder."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    command = [sys.executable, __file__, "--measure", side]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(earlier: Path) -> None:
    """Run both sides in turns, and store the ratios."""
    rounds = [(run(earlier, "Earlier"), run(HERE, "Now")) for _ in range(ROUNDS)]
    ratios = {
        name: [before[name.replace("curves 10", "standard")] / now[name] for before, now in rounds]
        for name in rounds[0][1]
    }
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=earlier, capture_output=True, text=True)
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
        print(json.dumps(measure({"Earlier": Earlier, "Now": Now}[sys.argv[2]]())))
    else:
        main(Path(sys.argv[1]).resolve())
