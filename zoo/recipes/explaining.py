"""What pydantic finds wrong in a recipe, in one line: the field, the fact, the remedy."""

from collections.abc import Callable, Collection
from typing import Any

from pydantic import BaseModel, ValidationError

from zoo.errors import nearest

Place = tuple[Any, ...]  # of a field, as pydantic names it


class FieldError(ValueError):
    """What is wrong with a field that is validated by other means: the text that follows the field's name."""


def explain(error: ValidationError, model_at: Callable[[Place], type[BaseModel]], kinds: Collection[str] = ()) -> str:
    """Put the first of a validation's errors in one line.

    Arguments:
        error: what pydantic found.
        model_at: returns the model of the field that is wrong.
        kinds: of treatments, which pydantic puts into the place of a field.
    """
    errors = error.errors()
    # A union of forms reports on each of them: the one that came furthest is what was meant.
    first = max((e for e in errors if e["loc"][:4] == errors[0]["loc"][:4]), key=lambda e: len(e["loc"]))
    place, context = _without_kinds(list(first["loc"]), kinds), first.get("ctx", {})
    field = ".".join(map(str, place))
    match first["type"]:
        case "value_error" if isinstance(context["error"], FieldError):
            return f"{field}{context['error']}"
        case "extra_forbidden":
            near = nearest(str(place[-1]), model_at(first["loc"]).model_fields)
            return f"{field}: unknown field{near or '; remove it'}"
        case "union_tag_not_found":
            return f"{field}.{context['discriminator'].strip(chr(39))}: missing; add one of {', '.join(kinds)}"
        case "union_tag_invalid":
            tag, what = context["tag"], context["discriminator"].strip("'")
            return f"{field}: unknown {what} {tag!r}{nearest(tag, kinds)}; one of {', '.join(kinds)}"
        case "literal_error":
            found, known = first["input"], context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            return f"{field}: {found!r} is not known{nearest(str(found), known)}; one of {', '.join(known)}"
        case "missing":
            return f"{field}: missing; add it"
    return f"{field}: {first['msg'].removeprefix('Value error, ')} (found {first['input']!r})"


def _without_kinds(place: list[Any], kinds: Collection[str]) -> list[Any]:
    """Return a place without the kind, and the form, that a union puts after the field; users name treatments."""
    if place[:1] == ["treatments"] and len(place) > 2 and place[2] in kinds:
        form = place[4:5] if place[4:5] and isinstance(place[4], int) else []
        return place[:2] + place[3:4] + form + place[5:]
    return place
