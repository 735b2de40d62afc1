"""README and the examples: what they show runs and prints what stands there, and the program knows their commands.

Of a page, `python` and the commands in `sh` run in order, in a process of its own, as a reader's would; `toml` is a
recipe, kept in a file of its name. `text` is what the block before it has printed, with `...` for what need not be the
same. `console` is only to be understood, for it wants what tests have not; README's commands, too, are for large zoos.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

import pytest
import typer

from benchmark.cli import app
from tests.zoo.sharing.hub_server import Repository, serve
from tests.zoo.sharing.test_hub import contents
from zoo import Recipe, generate
from zoo.recipes.distribution import Distribution
from zoo.sharing.export import export_zoo

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "concepts.md", *sorted((ROOT / "docs" / "examples").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)

PROGRAM = """
import contextlib, io, json, shlex, sys, tomllib
from pathlib import Path
from benchmark.cli import app

names, printed = {"__name__": "__main__"}, []
for language, source in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        match language:
            case "python":
                exec(source, names)
            case "sh":
                for line in source.splitlines():
                    app(shlex.split(line, comments=True)[1:], standalone_mode=False)
            case "toml":
                Path(tomllib.loads(source)["name"]).with_suffix(".toml").write_text(source)
    printed.append(output.getvalue())
json.dump(printed, sys.stdout)
"""


def blocks(page):
    """The language and the source of each block, and what it is said to print."""
    found = BLOCK.findall(page.read_text())
    assert {language for language, _, _ in found} <= {"python", "sh", "toml", "console"}
    return found


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub that has, by the name that the pages give it, few networks of short training."""
    recipe = Recipe.load("digits-mlp").only(["standard", "w_asymmetric"])
    training = recipe.training.model_copy(update={"epochs": Distribution(integers=(2, 8))})
    folder = tmp_path_factory.mktemp("zoos")
    zoo = generate(recipe.model_copy(update={"pairs": 20, "training": training}), folder / "zoo")
    exported = export_zoo(zoo, folder / "exported")
    with serve() as hub:
        hub.repositories["OWNER/asymzoo-digits-mlp"] = repository = Repository()
        repository.commit("main", contents(exported))
        yield hub


def run(chosen, hub, folder):
    """Run blocks as a program that reads and writes in a folder, and return what each has printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": hub.token,
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([block[:2] for block in chosen]),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert program.returncode == 0, program.stderr
    assert "Warning" not in program.stderr, program.stderr
    return json.loads(program.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_runs_and_prints_what_stands_there(page, hub, tmp_path):
    languages = {"python"} if page.stem == "README" else {"python", "sh", "toml"}
    chosen = [block for block in blocks(page) if block[0] in languages]
    assert chosen
    for (_, source, shown), printed in zip(chosen, run(chosen, hub, tmp_path), strict=True):
        same = OutputChecker().check_output(shown, printed, ELLIPSIS | NORMALIZE_WHITESPACE)
        assert same, f"{source}\nprints\n{printed}\nbut there stands\n{shown}"


def test_commands_of_the_pages_are_understood():
    commands = [source for page in PAGES for language, source, _ in blocks(page) if language in ("sh", "console")]
    lines = [line for line in "\n".join(commands).splitlines() if line.startswith("asymzoo")]
    assert len(lines) >= 30
    for line in lines:
        command, words = typer.main.get_command(app), shlex.split(line, comments=True)[1:]
        context = typer.Context(command)
        while hasattr(command, "get_command"):
            word = words.pop(0)
            command = command.get_command(context, word)
            assert command is not None, f"{line}: no command {word}"
        command.make_context("asymzoo", words)
