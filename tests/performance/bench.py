"""Measures speed, and names what has become slower: `make bench`, in less than ten minutes.

The figures are compared with those in `benchmark/results/performance.json`: ratios of two sides of the same run, which
depend less on the machine than seconds do. If none is more than 15 % slower, that file is replaced, except for what
else stands in it, and README's section on speed is filled from it. Otherwise each of them is named, the exit code is 1,
and the new figures stand beside, in `performance.new.json`, until you remove it or accept it:

    python -m tests.performance accept

Run it on an idle machine with two cores.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmark.cli import keep_freed_memory
from benchmark.docs import RESULTS
from benchmark.evidence import evidence
from tests.performance import generation, reading, startup, zoos
from tests.performance.figures import Section, fill, from_json, name_slower, tabulate, to_json
from zoo.files import write_whole
from zoo.training.workers import fix_rounding

README = Path(__file__).parents[2] / "README.md"
STORED = RESULTS / "performance.json"
NEW = STORED.with_suffix(".new.json")
PARTS: dict[str, Callable[[], Section]] = {
    "start": startup.measure,
    "reading": reading.measure,
    "zoo": zoos.measure,
    "generation": generation.measure,
}


def main(arguments: Sequence[str]) -> int:
    """Measure, compare and write, or accept what was measured before; return the exit code."""
    if arguments == ["accept"]:
        NEW.replace(STORED)
        fill_readme()
        return 0
    keep_freed_memory()  # as the command line does
    fix_rounding()
    torch.set_num_threads(1)
    made = evidence() | {"command": "make bench", "numba": version("numba"), "load": f"{os.getloadavg()[0]:.1f}"}
    sections, began = {}, time.perf_counter()
    for name, measure in PARTS.items():
        sections[name] = measure()
        print(f"{name}\n\n{tabulate(sections[name])}\n", flush=True)
    made["seconds"] = f"{time.perf_counter() - began:.0f}"
    stored = json.loads(STORED.read_bytes()) if STORED.exists() else {}
    slower = name_slower(from_json(stored.get("figures", {})), sections)
    write(NEW if slower else STORED, stored | {"made": made, "figures": to_json(sections)})
    for line in slower:
        print(f"slower: {line}")
    if slower:
        print(f"{NEW} has the new figures; {STORED.name}, of {stored['made']['processor']}, is as it was")
        return 1
    fill_readme()
    return 0


def write(path: Path, values: dict[str, Any]) -> None:
    """Write a file of figures."""
    write_whole(path, f"{json.dumps(values, indent=1)}\n".encode())


def fill_readme() -> None:
    """Fill README's tables from the stored figures."""
    page = fill(README.read_text(), json.loads(STORED.read_bytes()))
    write_whole(README, page.encode())
