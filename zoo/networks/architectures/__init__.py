"""Architectures by name.

To add one to this package, write a subclass of `Architecture` in a file here and add a line to `BUILT_IN`. Your own
architectures need no change here: call `register`, give their file with `--architecture mine.py:Net` (`provide` in
Python), or declare an entry point in the group `asymzoo.architectures` of your package. Recipes and zoos store only the
name of an architecture. Code in a zoo's folder is never run.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from torch import nn

from zoo.errors import RecipeError, nearest
from zoo.networks.architectures.base import Architecture, sites_of
from zoo.networks.architectures.cnn import CNN
from zoo.networks.architectures.gnn import GNN
from zoo.networks.architectures.mlp import MLP
from zoo.networks.architectures.resnet import ResNet
from zoo.networks.architectures.vit import ViT

BUILT_IN: dict[str, type[Architecture]] = {"mlp": MLP, "cnn": CNN, "resnet": ResNet, "gnn": GNN, "vit": ViT}
ARCHITECTURES: dict[str, type[Architecture]] = dict(BUILT_IN)
ENTRY_POINTS = "asymzoo.architectures"

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "architecture_of",
    "is_importable",
    "provide",
    "provided",
    "register",
    "sites_of",
]


def register(architecture: type[nn.Module], name: str | None = None) -> None:
    """Register an architecture, so that recipes can use it by name.

    Worker processes import the class from its file. A class that is defined in a notebook, on standard input or inside
    a function cannot be imported; its networks train with one worker, or on Ray.

    Arguments:
        architecture: Subclass of `Architecture`.
        name: Name of the architecture in recipes, by default the name of the class.

    Raises:
        RecipeError: If the class is not an `Architecture`, or another architecture has the name.
    """
    if not (isinstance(architecture, type) and issubclass(architecture, Architecture)):
        raise RecipeError(f"architecture: {architecture!r} is not a subclass of zoo.Architecture; make it one")
    name = name or architecture.__name__
    known = ARCHITECTURES.get(name)
    if known is not None and _home(known) != _home(architecture):
        raise RecipeError(f"architecture: {name!r} is the name of {'.'.join(_home(known))}; choose another name")
    ARCHITECTURES[name] = architecture


def architecture_of(name: str) -> type[Architecture]:
    """Return the architecture with a name: a built-in or registered one, or that of an entry point.

    Raises:
        RecipeError: If there is no architecture with this name.
    """
    if name not in ARCHITECTURES:
        points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        if name not in points:
            known = {**ARCHITECTURES, **points}
            raise RecipeError(
                f"architecture: unknown name {name!r}{nearest(name, known)}; use one of {', '.join(known)}, or give "
                "your own code with --architecture FILE.py:CLASS, in Python with zoo.register(CLASS, name)"
            )
        register(_load(points[name].load, points[name].value), name)
    return ARCHITECTURES[name]


def is_importable(architecture: type[Architecture]) -> bool:
    """Return whether another process can import a class.

    Classes that are defined in a notebook, on standard input or inside a function cannot be imported.
    """
    if "<locals>" in architecture.__qualname__:
        return False
    return architecture.__module__ != "__main__" or Path(getattr(sys.modules["__main__"], "__file__", "")).is_file()


def provided(name: str) -> type[Architecture] | None:
    """Return your own registered architecture with a name, if there is one that other processes can import."""
    architecture = None if name in BUILT_IN else ARCHITECTURES.get(name)
    return architecture if architecture is not None and is_importable(architecture) else None


def provide(source: str) -> str:
    """Import an architecture, register it, and return its name.

    Arguments:
        source: Place of the class, `FILE.py:CLASS` or `package.module:CLASS`; with `NAME=` before it, the architecture
            is registered under that name.

    Raises:
        RecipeError: If there is no such file, module or class, or the file is in a zoo's folder.
    """
    given, _, place = source.rpartition("=")
    module, _, attribute = place.rpartition(":")
    if not module or not attribute:
        raise RecipeError(
            f"architecture: {source!r} does not name a class; write FILE.py:CLASS or package.module:CLASS"
        )
    imported = _load(lambda: _import_file(Path(module)) if module.endswith(".py") else import_module(module), module)
    if (found := getattr(imported, attribute, None)) is None:
        raise RecipeError(f"architecture: {module} has no {attribute}; write FILE.py:CLASS")
    name = given or attribute
    register(found, name)
    return name


def _load(load: Callable[[], Any], place: str) -> Any:
    """Call `load`, which runs code from outside this package, and turn any error into one line."""
    try:
        return load()
    except RecipeError:
        raise
    except Exception as error:
        fact = f"{type(error).__name__}: {error}"
        raise RecipeError(f"architecture: {place} cannot be imported ({fact}); correct the code or the name") from error


def _import_file(path: Path) -> Any:
    """Import a file as a top-level module named like the file, so that worker processes can import it as well."""
    path = path.resolve()
    if not path.is_file():
        raise RecipeError(f"architecture: there is no file {path}; write FILE.py:CLASS")
    if any((folder / "zoo.json").exists() for folder in path.parents):
        raise RecipeError(f"architecture: {path} is in a zoo's folder, whose files are never run; copy it elsewhere")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = import_module(path.stem)
    if Path(module.__file__ or "").resolve() != path:
        raise RecipeError(f"architecture: {path.name} has the name of another module ({path.stem}); rename it")
    return module


def _home(architecture: type[Architecture]) -> tuple[str, str]:
    return architecture.__module__, architecture.__qualname__
