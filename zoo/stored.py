"""Base class of models that are stored as JSON, and the digest that identifies their content."""

import json
import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_serializer

# Names that users choose, and that name files, folders and columns.
ZOO_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
TREATMENT_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
COLUMN_NAME = re.compile(r"[A-Za-z]\w*")


class Stored(BaseModel):
    """A frozen model whose JSON does not change when fields are added to the class.

    The attribute `later` names the fields that were added after schema 2. Such a field is written only if its value is
    not the default, so recipes that do not use it keep their JSON and their digest. A default never changes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _leave_out_later_defaults(self, serialise: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        unused = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in serialise(self).items() if name not in unused}


def digest_of(values: Mapping[str, Any]) -> str:
    """Return the digest that identifies JSON values, such as a recipe: blake2b of the sorted JSON, 16 bytes.

    The description does not count.
    """
    content = {name: value for name, value in values.items() if name != "description"}
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
