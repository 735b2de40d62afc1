"""Measures what only a GPU can show: `make gpu`, within eight minutes on one H100 or H200.

Parts run in order of importance, each in a process of its own that ends at its time limit. What is known after each is
in `benchmark/results/gpu.json`. It needs no installation of this project, neither `datasets` nor Numba, but what the
project itself imports: next to torch, `pydantic`, `h5py`, `safetensors`, `torch_geometric`, `scikit-learn`, `pyarrow`,
`jaxtyping`, `tqdm`. Packages that a machine lacks can lie in a folder of `PYTHONPATH`.

    python -m tests.performance.gpu            # everything
    python -m tests.performance.gpu agreement  # one part, printed and not stored
    python -m tests.performance.gpu --device cpu --tiny
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmark.evidence import evidence
from tests.performance import gpu_parts as parts
from tests.performance.gpu_parts import Result, Scale, name_of
from zoo.devices import use_device
from zoo.files import write_whole

STORED = Path(__file__).parents[2] / "benchmark/results/gpu.json"
GOALS = {
    "digits-mlp": {"times one at a time": 1000},
    "MLP 40-64-64-10": {"times one at a time": 1000},
    "CNN": {"times one at a time": 20},
    "ResNet8": {"times one at a time": 8, "GPU-seconds of a network of the recipe": 2},
}
# All of it. Each part with its time limit in seconds; together 470.
PARTS: dict[str, tuple[Callable[[Scale], Result], int]] = {
    "agreement": (parts.agreement, 60),
    "digits-mlp": (parts.digits, 60),
    "ResNet8": (parts.resnet, 80),
    "CNN": (parts.cnn, 60),
    "MLP 40-64-64-10": (parts.wide, 50),
    "profile": (parts.profile, 30),
    "repeated": (parts.repeated, 50),
    "bfloat16": (parts.precision, 40),
    "metanetworks": (parts.metanetworks, 20),
    "phenomena": (parts.phenomena, 20),
}


def run(part: str, arguments: list[str], limit: int) -> Result:
    """Run a part in a process of its own; what went wrong is its result, too."""
    command, began = [sys.executable, "-m", "tests.performance.gpu", part, *arguments], time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {limit} s"}
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-8:]}
    return json.loads(done.stdout.splitlines()[-1]) | {"wall seconds": round(time.perf_counter() - began, 1)}


def main(words: list[str], stored: Path = STORED) -> int:
    """Measure one part and print it, or all and store them; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.performance.gpu")
    parser.add_argument("part", nargs="?", choices=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    chosen = parser.parse_args(words)
    use_device(chosen.device)
    if chosen.part:
        print(json.dumps(PARTS[chosen.part][0](Scale(chosen.device, chosen.tiny)), default=float))
        return 0
    made = evidence() | {"command": "make gpu", "device": name_of(chosen.device), "cuda": str(torch.version.cuda)}
    results: dict[str, Result] = {}
    for part, (_, limit) in PARTS.items():
        results[part] = run(part, words, limit)
        print(part, json.dumps(results[part], indent=1), flush=True)
        write_whole(stored, f"{json.dumps({'made': made, 'goals': GOALS, 'parts': results}, indent=1)}\n".encode())
    return int(any("failed" in result for result in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
