"""Validates the arguments that a recipe gives an architecture, by the annotations of the architecture's constructor."""

import inspect
from functools import cache
from typing import Any, Literal, get_type_hints

from pydantic import create_model

from zoo.networks.architectures import Architecture
from zoo.stored import Stored


class ArchitectureArguments(Stored):
    """The name of an architecture; subclasses have the arguments of its constructor as fields."""

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the constructor, by name."""
        return self.model_dump(exclude={"name"})


@cache
def arguments_of(architecture: type[Architecture], name: str) -> type[ArchitectureArguments]:
    """Return a model that validates the arguments of an architecture's constructor by their annotations.

    Arguments:
        architecture: Class of the architecture.
        name: Name of the architecture in recipes.
    """
    hints = get_type_hints(architecture.__init__, include_extras=True)
    fields: dict[str, Any] = {
        argument.name: (
            hints.get(argument.name, Any),
            ... if argument.default is argument.empty else argument.default,
        )
        for argument in inspect.signature(architecture).parameters.values()
    }
    fields["name"] = (Literal[name], ...)
    model = create_model(architecture.__name__, __base__=ArchitectureArguments, **fields)
    model.later = architecture.later
    return model
