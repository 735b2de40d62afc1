"""Errors that a user can fix: each message names the place, the fact and the remedy in one line."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class AsymZooError(Exception):
    """Base class of all errors that wrong input can cause; commands print one line and exit with status 2."""

    def __str__(self) -> str:
        """Return the message in one line, even if it quotes text of several lines."""
        return "\\n".join(super().__str__().splitlines())


class RecipeError(AsymZooError):
    """A recipe, or its architecture or one of its treatments, is not valid."""


class DataError(AsymZooError):
    """A data set cannot be found, or its files are damaged or do not fit."""


class ZooError(AsymZooError):
    """A folder does not hold a zoo, holds the zoo of another recipe, or is damaged."""


class TaskError(AsymZooError):
    """A zoo lacks what a task, a metanetwork or a phenomenon needs, or the request itself is wrong."""


class ExtraError(AsymZooError):
    """A package is missing that only an extra, such as `asymzoo[report]`, installs."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Turn a failed import inside the block into an error that names the extra to install.

    Raises:
        ExtraError: If a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or name).partition(".")[0]
        raise ExtraError(f"{package} is not installed; pip install 'asymzoo[{name}]'") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean …?)` with the known name closest to `name`, or an empty string if none is close."""
    known = list(known)
    matches = get_close_matches(name, known, n=1) or [other for other in known if name and other.startswith(name)]
    return f" (did you mean {matches[0]!r}?)" if matches else ""
