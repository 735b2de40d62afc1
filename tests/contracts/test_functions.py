"""Functions fit on a screen and take few arguments."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("zoo", "metanets", "benchmark")
LONGEST, SHORT, MOST_ARGUMENTS = 50, 25, 7
FUNCTIONS = {
    f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": node
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
}
LINES = {place: node.end_lineno - node.lineno + 1 for place, node in FUNCTIONS.items()}


def arguments(node):
    """The names of a function's arguments, without the object itself."""
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [each.arg for each in every if each.arg not in ("self", "cls")]


def is_command(node):
    """Whether arguments are options of the command line."""
    return any("command" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_no_function_has_more_than_50_lines():
    assert not {name: lines for name, lines in LINES.items() if lines > LONGEST}


def test_nine_of_ten_functions_have_fewer_than_25_lines():
    assert LINES
    assert sum(lines < SHORT for lines in LINES.values()) >= 0.9 * len(LINES)


def test_no_public_function_takes_more_than_seven_arguments():
    public = {
        place: node for place, node in FUNCTIONS.items() if not node.name.startswith("_") or node.name == "__init__"
    }
    counts = {place: len(arguments(node)) for place, node in public.items() if not is_command(node)}
    assert len(counts) > 400
    assert not {place: count for place, count in counts.items() if count > MOST_ARGUMENTS}
