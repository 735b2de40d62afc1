"""The base of what is stored as JSON and identified by its digest."""

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_serializer


class Stored(BaseModel):
    """A frozen model whose JSON stays what it was when fields are added.

    A field that came after schema 2 is named in `later`. It is written only where it is not at its default, so recipes
    that do not use it keep their JSON and their digest; and a default never changes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _leave_out_later_defaults(self, serialise: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        idle = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in serialise(self).items() if name not in idle}
