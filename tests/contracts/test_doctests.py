"""What stands after `>>>` in docstrings runs, and prints what is said there."""

import doctest
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import metanets
import zoo
from zoo.recipes.distribution import Distribution

ROOT = Path(__file__).parents[2]
PACKAGES = ("zoo", "metanets", "benchmark")
FILES = [
    path.relative_to(ROOT)
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text()
]
# What a reader has imported: the public names.
PUBLIC = {name: getattr(package, name) for package in (zoo, metanets) for name in package.__all__}
WITH_EXAMPLES = (zoo.ParameterLayout, zoo.Stack, zoo.Zoo, zoo.Networks, zoo.Treatment, metanets.Task, metanets.Metanet)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small `zoos/digits-mlp`."""
    recipe = zoo.Recipe.load("digits-mlp").only(["standard", "w_asymmetric"])
    training = recipe.training.model_copy(update={"epochs": Distribution(constant=2)})
    folder = tmp_path_factory.mktemp("reader")
    zoo.generate(recipe.model_copy(update={"pairs": 24, "training": training}), folder / "zoos" / "digits-mlp")
    return folder


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_example_in_a_docstring_prints_what_it_says(path, folder, monkeypatch):
    monkeypatch.chdir(folder)
    module = import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
    failed, attempted = doctest.testmod(module, extraglobs={"np": np, "torch": torch} | PUBLIC)
    assert not failed
    assert attempted == (ROOT / path).read_text().count(">>> ")


@pytest.mark.parametrize("public", WITH_EXAMPLES, ids=lambda public: public.__name__)
def test_the_central_classes_begin_with_an_example(public):
    assert ">>> " in public.__doc__
