"""Makes and keeps paired model zoos: a `Recipe` makes a `Zoo`, which gives `Stack`s of networks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.data import Data, load_data
    from zoo.errors import AsymZooError
    from zoo.networks.architectures import Architecture, register
    from zoo.networks.parameters import Parameter, ParameterLayout
    from zoo.networks.stack import Stack
    from zoo.opening import open_zoo
    from zoo.recipes.recipe import Recipe
    from zoo.store.zoo import Zoo
    from zoo.training.generation import generate
    from zoo.training.verification import verify

_HOMES = {
    "AsymZooError": "errors",
    "Data": "data",
    "load_data": "data",
    "Architecture": "networks.architectures",
    "register": "networks.architectures",
    "Parameter": "networks.parameters",
    "ParameterLayout": "networks.parameters",
    "Stack": "networks.stack",
    "open_zoo": "opening",
    "Recipe": "recipes.recipe",
    "Zoo": "store.zoo",
    "generate": "training.generation",
    "verify": "training.verification",
}

__all__ = [
    "Architecture",
    "AsymZooError",
    "Data",
    "Parameter",
    "ParameterLayout",
    "Recipe",
    "Stack",
    "Zoo",
    "generate",
    "load_data",
    "open_zoo",
    "register",
    "verify",
]


def __getattr__(name: str) -> Any:
    # Imported when first used: `asymzoo --help` needs no torch.
    if name in _HOMES:
        return getattr(import_module(f"zoo.{_HOMES[name]}"), name)
    if name == "__version__":
        return import_module("importlib.metadata").version("asymzoo")
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
