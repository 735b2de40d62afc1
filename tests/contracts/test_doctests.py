"""What stands after `>>>` in docstrings runs, and gives what is said there."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("zoo", "metanets", "benchmark")
FILES = [
    path.relative_to(ROOT)
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_example_in_a_docstring_gives_what_it_says(path):
    module = import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
    failed, attempted = doctest.testmod(module)
    assert not failed
    assert attempted == (ROOT / path).read_text().count(">>> ")


def test_there_are_examples():
    assert FILES
