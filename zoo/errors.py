"""The errors a user can mend: each message names the place, the fact and the remedy in one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class AsymZooError(Exception):
    """Base of every error that wrong input can cause; commands print it as one line and exit with 2."""

    def __str__(self) -> str:
        """The message, in one line whatever it quotes."""
        return "\\n".join(super().__str__().splitlines())


class RecipeError(AsymZooError):
    """A recipe, or a treatment or architecture in it, asks for what cannot be made."""


class DataError(AsymZooError):
    """A data set cannot be found or does not hold what it should."""


class ZooError(AsymZooError):
    """A folder is no zoo, another recipe's zoo, or a damaged one."""


class TaskError(AsymZooError):
    """A zoo cannot answer the question asked of it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean …?)`, or nothing if no known name is near."""
    matches = get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
