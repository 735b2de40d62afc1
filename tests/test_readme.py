import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from benchmark.cli import app
from zoo.data import load_data
from zoo.generation import check_fit
from zoo.recipe import Recipe

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec("\n".join(blocks("python")), names)
    assert len(names["zoo"]) == 32
    assert len(names["predictor"](names["test"])) == len(names["test"])


def test_recipe_of_the_readme_fits_its_data():
    (source,) = blocks("toml")
    recipe = Recipe.read(tomllib.loads(source))
    for treatment in recipe.treatments:
        check_fit(recipe, treatment, load_data(recipe.data.name))


def test_commands_of_the_readme_are_understood():
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("asymzoo")]
    assert len(lines) >= 8
    for line in lines:
        command, words = typer.main.get_command(app), shlex.split(line, comments=True)[1:]
        context = typer.Context(command)
        while hasattr(command, "get_command"):
            word = words.pop(0)
            command = command.get_command(context, word)
            assert command is not None, f"{line}: no command {word}"
        command.make_context("asymzoo", words)
