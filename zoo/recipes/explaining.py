"""Turns the validation errors of pydantic into one line: the field, the fact, the remedy."""

from collections.abc import Callable, Collection
from typing import Any

from pydantic import BaseModel, ValidationError

from zoo.errors import nearest

Place = tuple[Any, ...]  # path of a field in pydantic's errors


class FieldError(ValueError):
    """An error in a field that pydantic does not validate by itself; its text continues the name of the field."""


def explain(error: ValidationError, model_at: Callable[[Place], type[BaseModel]], kinds: Collection[str] = ()) -> str:
    """Return one line about the first error of a validation.

    Arguments:
        error: Error that pydantic raised.
        model_at: Function that returns the model in which a wrong field was looked up.
        kinds: Kinds of treatments, which pydantic adds to the path of a field.
    """
    errors = error.errors()
    # A field that accepts several forms has an error for each of them. The longest path belongs to the form that
    # matched furthest, which is most likely the one that was meant.
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
            return f"{field}: unknown {what} {tag!r}{nearest(tag, kinds)}; use one of {', '.join(kinds)}"
        case "literal_error":
            found, known = first["input"], context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            return f"{field}: {found!r} is not known{nearest(str(found), known)}; use one of {', '.join(known)}"
        case "missing":
            return f"{field}: missing; add it"
    return f"{field}: {first['msg'].removeprefix('Value error, ')} (found {first['input']!r})"


def _without_kinds(place: list[Any], kinds: Collection[str]) -> list[Any]:
    """Return a path without the kind of the treatment and the form of the field, which pydantic adds to it."""
    if place[:1] == ["treatments"] and len(place) > 2 and place[2] in kinds:
        form = place[4:5] if place[4:5] and isinstance(place[4], int) else []
        return place[:2] + place[3:4] + form + place[5:]
    return place
