"""Functions fit on a screen."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("zoo", "metanets", "benchmark")
LONGEST, SHORT = 50, 25
LINES = {
    f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
}


def test_no_function_has_more_than_50_lines():
    assert not {name: lines for name, lines in LINES.items() if lines > LONGEST}


def test_nine_of_ten_functions_have_fewer_than_25_lines():
    assert LINES
    assert sum(lines < SHORT for lines in LINES.values()) >= 0.9 * len(LINES)
