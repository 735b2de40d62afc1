"""Imports run one way: zoo <- metanets <- benchmark."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "zoo": {"metanets", "benchmark", "tests"},
    "metanets": {"benchmark", "tests"},
    "benchmark": {"tests"},
}


def imported(source: str) -> set[str]:
    """The top-level packages that a source file imports, wherever in it and by whatever statement."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            first = next(ast.walk(node.args[0]))
            names |= {part.value for part in ast.walk(first) if isinstance(part, ast.Constant)}
    return {str(name).split(".")[0] for name in names}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_never_run_back(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(f.relative_to(ROOT)): imported(f.read_text()) & FORBIDDEN[package] for f in files}
    assert not {name: packages for name, packages in wrong.items() if packages}


@pytest.mark.parametrize(
    "statement",
    [
        "import benchmark",
        "import os, benchmark.cli as c",
        "from benchmark.cli import main",
        "def f():\n    from benchmark import cli",
        "if TYPE_CHECKING:\n    import benchmark.cli",
        "importlib.import_module('benchmark.cli')",
        "import_module(f'benchmark.{name}')",
    ],
)
def test_every_way_to_import_is_seen(statement):
    assert "benchmark" in imported(statement)
