"""Architectures by name. To add one to the package: a module with `axes` and `sites`, and a line in `BUILT_IN`.

Those of users are registered by a call of `register`, by a package with an entry point in the group
`asymzoo.architectures`, or by their file (`provide`, on the command line `--architecture mine.py:Net`). A recipe
and a zoo store the name alone; the code is never looked for in a zoo's folder.
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

BUILT_IN: dict[str, type[Architecture]] = {"mlp": MLP, "cnn": CNN, "resnet": ResNet, "gnn": GNN}
ARCHITECTURES: dict[str, type[Architecture]] = dict(BUILT_IN)
ENTRY_POINTS = "asymzoo.architectures"

__all__ = ["ARCHITECTURES", "Architecture", "architecture_of", "is_importable", "provide", "register", "sites_of"]


def register(architecture: type[nn.Module], name: str | None = None) -> None:
    """Make an architecture, a subclass of `Architecture`, known under a name, by default that of its class.

    Worker processes import the class from its file. One that is defined in a notebook, on standard input or within a
    function has none, and is trained by one worker, or on Ray.

    Raises:
        RecipeError: if it is no `Architecture`, or the name is another one's.
    """
    if not (isinstance(architecture, type) and issubclass(architecture, Architecture)):
        raise RecipeError(f"architecture: {architecture!r} is no subclass of zoo.Architecture; make it one")
    name = name or architecture.__name__
    known = ARCHITECTURES.get(name)
    if known is not None and _home(known) != _home(architecture):
        raise RecipeError(f"architecture: {name!r} is the name of {'.'.join(_home(known))}; choose another one")
    ARCHITECTURES[name] = architecture


def architecture_of(name: str) -> type[Architecture]:
    """Return the architecture of a name.

    Raises:
        RecipeError: if its code is not known here.
    """
    if name not in ARCHITECTURES:
        points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        if name not in points:
            known = {**ARCHITECTURES, **points}
            raise RecipeError(
                f"architecture: unknown name {name!r}{nearest(name, known)}; one of {', '.join(known)}; "
                "provide the code of others with --architecture FILE.py:CLASS, in Python with zoo.register(CLASS, name)"
            )
        register(_load(points[name].load, points[name].value), name)
    return ARCHITECTURES[name]


def is_importable(architecture: type[Architecture]) -> bool:
    """Whether a process can import a class by its name: one in a notebook, on standard input or in a function not."""
    if "<locals>" in architecture.__qualname__:
        return False
    return architecture.__module__ != "__main__" or Path(getattr(sys.modules["__main__"], "__file__", "")).is_file()


def provide(source: str) -> str:
    """Import an architecture and register it; return its name.

    Arguments:
        source: `FILE.py:CLASS` or `package.module:CLASS`, before it `NAME=` where its name is not that of the class.

    Raises:
        RecipeError: if there is no such file, module or class, or the file lies in a zoo.
    """
    given, _, place = source.rpartition("=")
    module, _, attribute = place.rpartition(":")
    if not module or not attribute:
        raise RecipeError(f"architecture: {source!r} names no class; write FILE.py:CLASS or package.module:CLASS")
    imported = _load(lambda: _import_file(Path(module)) if module.endswith(".py") else import_module(module), module)
    if (found := getattr(imported, attribute, None)) is None:
        raise RecipeError(f"architecture: {module} has no {attribute}; write FILE.py:CLASS")
    name = given or attribute
    register(found, name)
    return name


def _load(load: Callable[[], Any], place: str) -> Any:
    """Return what `load` imports; whatever goes wrong in code of others is one line."""
    try:
        return load()
    except RecipeError:
        raise
    except Exception as error:
        fact = f"{type(error).__name__}: {error}"
        raise RecipeError(f"architecture: {place} cannot be imported ({fact}); correct it or its name") from error


def _import_file(path: Path) -> Any:
    """Import a file as a module of its name, which worker processes can import, too."""
    path = path.resolve()
    if not path.is_file():
        raise RecipeError(f"architecture: there is no file {path}; write FILE.py:CLASS")
    if any((folder / "zoo.json").exists() for folder in path.parents):
        raise RecipeError(f"architecture: {path} lies in a zoo, whose files are never run; copy it elsewhere")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = import_module(path.stem)
    if Path(module.__file__ or "").resolve() != path:
        raise RecipeError(f"architecture: {path.name} has the name of another module ({path.stem}); rename it")
    return module


def _home(architecture: type[Architecture]) -> tuple[str, str]:
    return architecture.__module__, architecture.__qualname__
