"""Rooms of `zoo` stand on those before them, and no modules import one another in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("data", "networks", "treatments", "store", "recipes", "training", "sharing")
GROUND = ("devices", "errors", "progress", "seeds", "files", "statistics", "stored")  # they import no room
ROOF = ("opening", "cli")  # they import any; what is below imports neither
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "zoo").rglob("*.py"))
}


def imported(source: str, module: str, *, package: bool = False) -> set[str]:
    """The modules of `zoo` that a source file imports, wherever in it and by whatever statement."""
    parts = module.split(".")
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = parts[: len(parts) + package - node.level] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{home}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            first = next(ast.walk(node.args[0]))
            names |= {str(part.value) for part in ast.walk(first) if isinstance(part, ast.Constant)}
    return {found for name in names if (found := _module_of(name)) and found != module}


def _module_of(name: str) -> str | None:
    """The module that a dotted name is, or in which it is defined; None if it is not one of `zoo`."""
    parts = name.rstrip(".").split(".")
    known = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((found for found in known if found in MODULES), None)


IMPORTS = {
    module: imported(path.read_text(), module, package=path.name == "__init__.py")
    for module, path in MODULES.items()
    if module != "zoo"  # it imports what is asked of it, when it is asked
}


def place_of(module: str) -> str:
    """The room of a module, or its own name if it lies in none."""
    return module.split(".")[1] if module != "zoo" else ""


def allowed(place: str) -> set[str]:
    """Where from a module at a place may import."""
    if place in GROUND:
        return set(GROUND)
    if place in ROOMS:
        return {*GROUND, *ROOMS[: ROOMS.index(place) + 1]}
    return {*GROUND, *ROOMS, *ROOF}


def test_every_module_has_its_place():
    assert {place_of(module) for module in IMPORTS} == {*ROOMS, *GROUND, *ROOF}


@pytest.mark.parametrize("place", [*GROUND, *ROOMS, *ROOF])
def test_a_room_imports_from_itself_and_rooms_before_it_alone(place):
    within = {module: names for module, names in IMPORTS.items() if place_of(module) == place}
    wrong = {
        module: strangers
        for module, names in within.items()
        if (strangers := {name for name in names if place_of(name) not in allowed(place)})
    }
    assert wrong == {}


def test_no_modules_import_one_another_in_a_circle():
    try:
        assert len(list(TopologicalSorter(IMPORTS).static_order())) >= len(IMPORTS)
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import zoo.store.zoo",
        "import os, zoo.store.zoo as z",
        "from zoo.store import zoo",
        "from zoo.store.zoo import Zoo",
        "from ..store.zoo import Zoo",
        "from ..store import zoo",
        "def f():\n    from zoo.store import zoo",
        "if TYPE_CHECKING:\n    from zoo.store.zoo import Zoo",
        "importlib.import_module('zoo.store.zoo')",
    ],
)
def test_every_way_to_import_is_seen(statement):
    assert imported(statement, "zoo.data.dataset") == {"zoo.store.zoo"}


def test_what_a_package_imports_of_its_own_and_of_its_room_is_told_apart():
    assert imported("from . import zoo", "zoo.store", package=True) == {"zoo.store.zoo"}
    assert imported("from zoo import Zoo", "zoo.store.zoo") == {"zoo"}  # which stands above all
