"""The arguments of an architecture, as a recipe gives them: validated by the annotations of its constructor."""

import inspect
from functools import cache
from typing import Any, Literal, get_type_hints

from pydantic import create_model

from zoo.networks.architectures import Architecture
from zoo.stored import Stored


class ArchitectureArguments(Stored):
    """An architecture's name; the arguments of its constructor are the fields of subclasses."""

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return self.model_dump(exclude={"name"})


@cache
def arguments_of(architecture: type[Architecture], name: str) -> type[ArchitectureArguments]:
    """Turn a constructor's annotated arguments into a model that validates them."""
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
