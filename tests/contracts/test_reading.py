"""A zoo is read with few libraries, and importing these packages changes nothing of the process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("zoo", "metanets", "benchmark")
NOT_TO_READ = (
    *("datasets", "huggingface_hub", "jinja2", "matplotlib", "networkx", "pandas", "pyarrow", "ray", "scipy"),
    *("sklearn", "torch_geometric", "tqdm", "typer"),
)
NOT_FOR_HELP = (*set(NOT_TO_READ) - {"typer"}, "h5py", "numpy", "safetensors", "torch")

BLOCK = """
import json, sys
from importlib.abc import MetaPathFinder

blocked, arguments = json.loads(sys.argv[1]), sys.argv[2:]

class Blocker(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
"""

READ = """
import zoo
found = {"after import zoo": sorted({"torch", "numpy", "pydantic"} & sys.modules.keys())}
import numpy as np

opened = zoo.open_zoo(arguments[0])
for treatment in opened.treatments:
    networks = opened[treatment]
    rows, layout = networks.weights[:], networks.layout
    permuted = layout.permute(rows, layout.random_permutations(np.random.default_rng(0)))
    found[treatment] = {
        "rows": float(rows.double().sum()),
        "permuted": float(permuted.double().sum()),
        "column": float(networks["test_accuracy"].sum()),
        "train": networks.split("train").pairs.tolist(),
        "trainable": [int(mask.sum()) for mask in (networks.mask, networks[[0]].treated.mask)],
    }
print(json.dumps(found))
"""

HELP = """
sys.argv = ["asymzoo", *arguments]
from benchmark.cli import main
main()
"""

IMPORT_ALL = """
import ctypes, json, os, sys, warnings
from importlib import import_module

import numpy, sklearn.metrics, torch, torch_geometric.nn  # some set variables of their own

asked = []
sys.addaudithook(lambda event, values: asked.append(values[1]) if event == "ctypes.dlsym" else None)

def process():
    return os.environ | {
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "type": str(torch.get_default_dtype()),
        "errors": str(numpy.geterr()),
        "state": torch.get_rng_state().tolist(),
        "allocator": [name for name in asked if name == "mallopt"],
    }

before = process()
for module in sys.argv[1:]:
    import_module(module)
after = process()
print(json.dumps(sorted(name for name in before | after if before.get(name) != after.get(name))))
"""


def python(program, *arguments):
    command = [sys.executable, "-B", "-W", "ignore", "-c", program, *map(str, arguments)]
    bare = {name: value for name, value in os.environ.items() if name in ("HOME", "PATH")}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=bare)


def modules():
    """The names of all modules of the packages."""
    paths = [path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [name for name in names if all(part.isidentifier() for part in name.split("."))]


@pytest.fixture(scope="module")
def read(planted_zoo):
    """What a process finds in a zoo that cannot import the libraries of `NOT_TO_READ`."""
    done = python(BLOCK + READ, json.dumps(NOT_TO_READ), planted_zoo.folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_zoo_is_read_without_the_libraries_that_make_and_share_zoos(read, planted_zoo):
    for treatment in planted_zoo.treatments:
        rows, found = planted_zoo[treatment].weights[:], read[treatment]
        assert found["rows"] == float(rows.double().sum())
        assert found["permuted"] == pytest.approx(found["rows"])
        assert found["column"] == float(planted_zoo[treatment]["test_accuracy"].sum())
        assert found["train"] == planted_zoo[treatment].split("train").pairs.tolist()
        assert found["trainable"] == [int(planted_zoo[treatment].mask.sum())] * 2


def test_import_zoo_imports_no_library(read):
    assert read["after import zoo"] == []


@pytest.mark.parametrize("arguments", [[], ["zoo", "generate"]], ids=["program", "command"])
def test_help_needs_nothing_but_typer(arguments):
    done = python(BLOCK + HELP, json.dumps(NOT_FOR_HELP), *arguments, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage: asymzoo" in done.stdout


def test_importing_every_module_changes_nothing_of_the_process():
    names = modules()
    assert {"zoo", "metanets.training", "benchmark.cli", "benchmark.phenomena.bayesian"} <= set(names)
    done = python(IMPORT_ALL, *names)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
