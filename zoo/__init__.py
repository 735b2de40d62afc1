"""Makes and keeps paired model zoos: a `Recipe` makes a `Zoo`, which gives `Stack`s of networks."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Without it MKL's products of odd widths depend, in the last bit, on where in memory a network of a stack lies; it
# costs no time. MKL reads it at its first product.
os.environ.setdefault("MKL_CBWR", "AUTO")

if TYPE_CHECKING:
    from zoo.data import Data, load_data
    from zoo.generation import generate
    from zoo.parameters import Parameter, ParameterLayout
    from zoo.recipe import Recipe
    from zoo.stack import Stack
    from zoo.store import Zoo, open_zoo
    from zoo.verification import verify

_HOMES = {
    "Data": "data",
    "load_data": "data",
    "generate": "generation",
    "Parameter": "parameters",
    "ParameterLayout": "parameters",
    "Recipe": "recipe",
    "Stack": "stack",
    "Zoo": "store",
    "open_zoo": "store",
    "verify": "verification",
}

__all__ = [
    "Data",
    "Parameter",
    "ParameterLayout",
    "Recipe",
    "Stack",
    "Zoo",
    "generate",
    "load_data",
    "open_zoo",
    "verify",
]


def __getattr__(name: str) -> Any:
    # Imported when first used: `asymzoo --help` needs no torch.
    if name in _HOMES:
        return getattr(import_module(f"zoo.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
