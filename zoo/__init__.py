"""Makes and stores paired model zoos: `generate` turns a `Recipe` into a `Zoo`, which holds `Networks` to run."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.data import Data, load_data
    from zoo.errors import AsymZooError
    from zoo.networks.architectures import Architecture, register
    from zoo.networks.parameter import Parameter
    from zoo.networks.parameters import ParameterLayout
    from zoo.networks.stack import Stack
    from zoo.opening import open_zoo
    from zoo.recipes.recipe import Recipe
    from zoo.store.networks import Networks
    from zoo.store.zoo import Zoo
    from zoo.training.generation import generate
    from zoo.training.verification import verify
    from zoo.treatments import Treatment

_HOMES = {
    "AsymZooError": "errors",
    "Data": "data",
    "load_data": "data",
    "Architecture": "networks.architectures",
    "register": "networks.architectures",
    "Parameter": "networks.parameter",
    "ParameterLayout": "networks.parameters",
    "Stack": "networks.stack",
    "open_zoo": "opening",
    "Recipe": "recipes.recipe",
    "Networks": "store.networks",
    "Zoo": "store.zoo",
    "generate": "training.generation",
    "verify": "training.verification",
    "Treatment": "treatments",
}

__all__ = [
    "Architecture",
    "AsymZooError",
    "Data",
    "Networks",
    "Parameter",
    "ParameterLayout",
    "Recipe",
    "Stack",
    "Treatment",
    "Zoo",
    "generate",
    "load_data",
    "open_zoo",
    "register",
    "verify",
]


def __getattr__(name: str) -> Any:
    # Each name is imported when it is first used, so `asymzoo --help` does not wait for torch.
    if name in _HOMES:
        return getattr(import_module(f"zoo.{_HOMES[name]}"), name)
    if name == "__version__":
        return import_module("importlib.metadata").version("asymzoo")
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
