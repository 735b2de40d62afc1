"""Architectures from outside the repository: registered, trained by workers, and read without their code."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from metanets import ParameterGraph, Settings, Task, train
from zoo import Architecture, Recipe, generate, open_zoo, register, verify
from zoo.errors import RecipeError, ZooError
from zoo.networks.architectures import ARCHITECTURES, BUILT_IN, architecture_of, is_importable, provide

ROOT = Path(__file__).parents[3]
CODE = """
from collections.abc import Sequence

from torch import nn
from zoo import Architecture


class Net(Architecture):
    def __init__(self, hidden: Sequence[int]) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Linear(64, hidden[0]), nn.ReLU(), nn.Linear(hidden[0], 10)
        self.axes = {"a.weight": ("h", "input"), "a.bias": ("h",), "b.weight": ("output", "h"), "b.bias": ("output",)}
        self.sites = {"act": "h"}

    def forward(self, x):
        return self.b(self.act(self.a(x.flatten(1))))


class NotOne(nn.Module):
    pass
"""
MINE = f"from __future__ import annotations\n{CODE}"
SCRIPT = f"""{CODE}

import sys
from zoo import Recipe, generate, register
from zoo.networks.architectures import provide

if __name__ == "__main__":
    folder, workers, *names = sys.argv[1:]
    register(Net, "scripted")
    provide("named=elsewhere/theirs.py:Net")
    for name in names:
        recipe = Recipe.load(f"{{name}}.toml")
        generate(recipe, f"{{folder}}/{{name}}", workers=workers if workers == "ray" else int(workers), shard_pairs=20)
"""
RECIPE = """
name = "outside"
pairs = 40
data = {{ name = "digits", train_limit = 100 }}
architecture = {{ name = "{name}", hidden = [6] }}
training = {{ learning_rate = {{ log_uniform = [1e-3, 1e-1] }}, epochs = 1 }}
treatments.standard.kind = "standard"
treatments.w_asymmetric = {{ kind = "w_asymmetric", n_fix = 2 }}
"""
KNOWN_NOWHERE = r"unknown name 'Net'; use one of .*, or give your own code with --architecture FILE.py:CLASS"


class Other(Architecture):
    """An architecture with the name of the one that made the zoo, but with one layer less."""

    def __init__(self, hidden: list[int]) -> None:
        super().__init__()
        self.b = nn.Linear(64, 10)
        self.axes, self.sites = {"b.weight": ("output", "input"), "b.bias": ("output",)}, {}


class Curved(Architecture):
    """An architecture with the same parameters, but with another activation."""

    def __init__(self, hidden: list[int]) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Linear(64, hidden[0]), nn.Tanh(), nn.Linear(hidden[0], 10)
        self.axes = {"a.weight": ("h", "input"), "a.bias": ("h",), "b.weight": ("output", "h"), "b.bias": ("output",)}
        self.sites = {"act": "h"}


@pytest.fixture(autouse=True)
def _forget():
    """Remove the architectures that a test registered."""
    known, path = dict(ARCHITECTURES), list(sys.path)
    yield
    forget(known, path)


def forget(known, path):
    ARCHITECTURES.clear()
    ARCHITECTURES.update(known)
    sys.path[:] = path
    sys.modules.pop("mine", None)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A user's folder: a file with an architecture, a script, recipes, and a package with an entry point."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "mine.py").write_text(MINE)
    (folder / "script.py").write_text(SCRIPT)
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "theirs.py").write_text(MINE)
    for name in ("Net", "scripted", "named", "packaged", "broken"):
        (folder / f"{name}.toml").write_text(RECIPE.format(name=name))
    info = folder / "installed" / "outside-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[asymzoo.architectures]\npackaged = package:Net\nbroken = absent:Net\n")
    (folder / "installed" / "package.py").write_text(MINE)
    return folder


@pytest.fixture
def installed(desk, monkeypatch):
    monkeypatch.syspath_prepend(desk / "installed")
    yield
    sys.modules.pop("package", None)


@pytest.fixture(scope="module")
def zoo(desk, tmp_path_factory):
    """A zoo of the architecture in `mine.py`, which is no longer registered; for reading only."""
    known, path = dict(ARCHITECTURES), list(sys.path)
    provide(f"{desk}/mine.py:Net")
    made = generate(Recipe.load(desk / "Net.toml"), tmp_path_factory.mktemp("zoos") / "outside")
    forget(known, path)
    return open_zoo(made.folder)


def assert_same(zoo, reference):
    for treatment in reference.treatments:
        assert torch.equal(zoo[treatment].weights[:], reference[treatment].weights[:])


# --- Made known


def test_a_class_is_registered_under_its_own_name_or_a_given_one():
    register(Other)
    register(Other, "second")
    register(Other, "second")
    assert architecture_of("Other") is architecture_of("second") is Other
    recipe = {"architecture": {"name": "second", "hidden": [3]}}
    assert Recipe.read(values(recipe)).architecture.arguments == {"hidden": [3]}


def values(changes):
    return {
        "name": "tiny",
        "pairs": 2,
        "data": {"name": "digits", "train_limit": 100},
        "training": {"learning_rate": 0.01, "epochs": 1},
        "treatments": {"standard": {"kind": "standard"}},
    } | changes


def test_a_class_in_a_file_is_provided_under_its_own_name_or_a_given_one(desk):
    assert provide(f"{desk}/mine.py:Net") == "Net"
    assert provide(f"own={desk}/mine.py:Net") == "own"
    assert architecture_of("own") is architecture_of("Net")
    assert provide("tests.zoo.networks.test_outside:Other") == "Other"


def test_a_class_of_an_installed_package_is_known_by_its_entry_point(desk, installed):
    assert Recipe.load(desk / "packaged.toml").treat("standard").layout.size == 64 * 6 + 6 + 60 + 10


def test_the_error_names_a_package_that_cannot_be_imported_in_one_line(desk, installed):
    with pytest.raises(RecipeError, match=r"architecture: absent:Net cannot be imported .*No module named 'absent'"):
        architecture_of("broken")


@pytest.mark.parametrize("name", ["mlp", "gnn"])
def test_the_name_of_a_built_in_architecture_is_refused(desk, name):
    for attempt in (lambda: register(Other, name), lambda: provide(f"{name}={desk}/mine.py:Net")):
        with pytest.raises(RecipeError, match=f"'{name}' is the name of zoo.networks.architectures.*; choose another"):
            attempt()
    assert ARCHITECTURES[name].__module__.startswith("zoo.")


@pytest.mark.parametrize(
    ("source", "fact"),
    [
        ("mine.py", "does not name a class; write FILE.py:CLASS"),
        (":Net", "does not name a class; write FILE.py:CLASS"),
        ("absent.py:Net", "there is no file .*absent.py"),
        ("mine.py:Absent", "has no Absent"),
        ("mine.py:NotOne", "is not a subclass of zoo.Architecture"),
        ("broken.py:Net", "broken.py cannot be imported .IndentationError: "),
        ("failing.py:Net", "failing.py cannot be imported .ZeroDivisionError: "),
        ("json.py:Net", "json.py has the name of another module"),
        ("no_such_package.module:Net", "cannot be imported .ModuleNotFoundError: "),
    ],
)
def test_code_that_cannot_be_provided_is_an_error_in_one_line(desk, tmp_path, monkeypatch, source, fact):
    monkeypatch.chdir(tmp_path)
    shutil.copy(desk / "mine.py", tmp_path / "mine.py")
    shutil.copy(desk / "mine.py", tmp_path / "json.py")
    (tmp_path / "broken.py").write_text("class Net:\n  pass\n pass")
    (tmp_path / "failing.py").write_text("1 / 0")
    with pytest.raises(RecipeError, match=f"^architecture: .*{fact}") as caught:
        provide(source)
    assert "\n" not in str(caught.value)


def test_a_file_in_a_zoos_folder_is_never_run(zoo, tmp_path):
    folder = Path(shutil.copytree(zoo.folder, tmp_path / "zoo"))
    for path in (folder / "mine.py", folder / "standard" / "mine.py"):
        path.write_text("raise SystemExit('it was run')")
        with pytest.raises(RecipeError, match="is in a zoo's folder, whose files are never run; copy it elsewhere"):
            provide(f"{path}:Net")
    assert "mine" not in sys.modules


# --- Trained by workers


def run_script(desk, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "script.py", *map(str, arguments)]
    done = subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["Net", "own", "packaged"])
def test_unpickling_a_recipe_registers_its_architecture(desk, installed, name):
    if name != "packaged":
        provide(f"{name}={desk}/mine.py:Net")
    recipe = Recipe.read(values({"architecture": {"name": name, "hidden": [6]}}))
    content, path = pickle.dumps(recipe), list(sys.path)
    forget(dict(BUILT_IN), path)  # as a worker process, which is given the path
    assert pickle.loads(content).to_json() == recipe.to_json()
    assert architecture_of(name).__qualname__ == "Net"


def test_unpickling_a_zoo_registers_its_architecture(desk, zoo):
    bare = len(pickle.dumps(open_zoo(zoo.folder)))
    provide(f"{desk}/mine.py:Net")
    content, path = pickle.dumps(open_zoo(zoo.folder)["standard"]), list(sys.path)
    forget(dict(BUILT_IN), path)  # as a worker process, which is given the path
    assert pickle.loads(content).stack([0, 1]).logits(torch.zeros(3, 64)).shape == (2, 3, 10)
    assert bare < 500


@pytest.mark.slow
def test_the_command_line_measures_networks_of_a_class_in_a_file_with_workers(desk, zoo, tmp_path, asymzoo):
    code, output, errors = asymzoo(
        *("benchmark", "run", zoo.folder, "--out", tmp_path, "--only", "planes"),
        *("--architecture", f"{desk}/mine.py:Net", "--workers", 2),
    )
    assert code == 0, errors
    assert [line.split()[0] for line in output.splitlines()[:2]] == ["standard", "w_asymmetric"]


@pytest.mark.slow
def test_worker_processes_train_the_class_of_a_script(desk, zoo, tmp_path):
    run_script(desk, tmp_path, 2, "scripted")
    assert_same(open_zoo(tmp_path / "scripted"), zoo)


@pytest.mark.slow
def test_ray_trains_the_class_of_a_script_and_of_a_file(desk, zoo, tmp_path):
    pytest.importorskip("ray")
    run_script(desk, tmp_path, "ray", "scripted", "named")
    for name in ("scripted", "named"):
        assert_same(open_zoo(tmp_path / name), zoo)


@pytest.mark.slow
def test_the_command_line_trains_a_class_in_a_file_with_workers(desk, zoo, tmp_path, asymzoo):
    code, output, errors = asymzoo(
        *("zoo", "generate", desk / "Net.toml", "--out", tmp_path / "z"),
        *("--architecture", f"{desk}/mine.py:Net", "--workers", 2, "--shard-pairs", 20),
    )
    assert (code, output) == (0, f"{tmp_path / 'z'}: 40 pairs of standard, w_asymmetric\n"), errors
    assert_same(open_zoo(tmp_path / "z"), zoo)


def test_a_class_that_workers_cannot_import_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    class Local(Other):
        pass

    notebook = type("Notebook", (Other,), {"__module__": "__main__", "__qualname__": "Notebook"})
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "<stdin>", raising=False)
    for architecture in (Local, notebook):
        assert not is_importable(architecture)
        register(architecture, "nowhere")
        recipe = Recipe.read(values({"architecture": {"name": "nowhere", "hidden": [3]}}))
        with pytest.raises(
            RecipeError, match=r"worker processes cannot import 'nowhere' .*; put the class in its own file"
        ):
            generate(recipe, tmp_path / "zoo", workers=2)
        del ARCHITECTURES["nowhere"]
    assert not (tmp_path / "zoo").exists()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__)
    assert is_importable(notebook)  # then it is in a script


# --- Read without the code


def test_rows_columns_and_permutations_need_no_code(zoo):
    with pytest.raises(RecipeError):
        architecture_of("Net")
    layout, rows = zoo["standard"].layout, zoo["standard"].weights[:]
    permutations = layout.random_permutations(np.random.default_rng(0))
    permuted = layout.permute(rows, permutations)
    assert layout.hidden_axes == ("h",)
    assert not torch.equal(permuted, rows)
    tensors, moved, order = layout.unflatten(rows), layout.unflatten(permuted), permutations["h"]
    assert torch.equal(moved["a.weight"], tensors["a.weight"][:, order])
    assert torch.equal(moved["b.weight"], tensors["b.weight"][:, :, order])
    assert zoo["standard"]["test_accuracy"].shape == (40,)
    splits = [zoo["standard"].split(split).pairs for split in ("train", "validation", "test")]
    assert sorted(np.concatenate(splits).tolist()) == zoo["standard"].pairs.tolist()
    assert int((~zoo["w_asymmetric"].mask).sum()) == 2 * (6 + 10)


def test_metanetworks_read_a_zoo_without_the_code(zoo):
    graph = ParameterGraph(zoo["w_asymmetric"].layout, zoo["w_asymmetric"].mask)
    assert set(range(graph.columns.max())) <= set(graph.columns.flatten().tolist())
    for model in ("statnn", "gmn"):
        task = Task(recipe=zoo.name, learn_from="standard")
        (metanet,) = train(task, zoo, model, settings=Settings(epochs=1, batch_size=8))
        assert metanet.predict(zoo["standard"].weights[[0, 1]]).shape == (2,)


@pytest.mark.parametrize(
    "run",
    [lambda zoo: zoo["standard"].stack(), lambda zoo: zoo["w_asymmetric"].module(3), verify, Recipe.of],
    ids=["stack", "module", "verify", "recipe"],
)
def test_running_networks_without_the_code_is_an_error_that_says_how_to_give_it(zoo, run):
    with pytest.raises((ZooError, RecipeError), match=KNOWN_NOWHERE) as caught:
        run(zoo)
    assert str(caught.value).startswith(f"{zoo.folder}: ")
    assert "\n" not in str(caught.value)


def test_commands_need_the_code_only_to_run_networks(zoo, desk, asymzoo):
    code, output, errors = asymzoo("zoo", "info", zoo.folder)
    assert (code, errors) == (0, "")
    assert output.startswith("outside\n")
    code, output, errors = asymzoo("zoo", "verify", zoo.folder)
    assert (code, errors.count("\n")) == (2, 1)
    assert "unknown name 'Net'" in errors
    code, output, errors = asymzoo(
        "zoo", "verify", zoo.folder, "--sample", 4, "--retrain", 2, "--architecture", f"{desk}/mine.py:Net"
    )
    assert (code, errors) == (0, "")
    assert "8 networks measure as recorded" in output


@pytest.mark.parametrize(("architecture", "what"), [(Other, "parameters"), (Curved, "activations")])
def test_a_different_class_with_the_same_name_is_refused(zoo, architecture, what):
    register(architecture, "Net")
    again = open_zoo(zoo.folder)
    with pytest.raises(ZooError, match=f"'Net' known here has other {what} than the standard networks; give"):
        again["standard"].stack()
    assert torch.equal(again["standard"].weights[:], zoo["standard"].weights[:])


def test_given_code_runs_the_stored_networks(zoo, desk):
    provide(f"{desk}/mine.py:Net")
    module, x = open_zoo(zoo.folder)["standard"].module(3), torch.randn(5, 64)
    parts = zoo["standard"].layout.unflatten(zoo["standard"].weights[3])
    hidden = (x @ parts["a.weight"].T + parts["a.bias"]).relu()
    torch.testing.assert_close(module(x), hidden @ parts["b.weight"].T + parts["b.bias"])
