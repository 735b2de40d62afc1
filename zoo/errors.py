"""The errors a user can mend: each message names the place, the fact and the remedy in one line."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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


class ExtraError(AsymZooError):
    """A package is needed that only an extra installs."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Turn the failure of an import inside the block into one line that names the extra.

    Raises:
        ExtraError: if a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or name).partition(".")[0]
        raise ExtraError(f"{package} is not installed; pip install 'asymzoo[{name}]'") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean …?)`, or nothing if no known name is near."""
    known = list(known)
    matches = get_close_matches(name, known, n=1) or [each for each in known if name and each.startswith(name)]
    return f" (did you mean {matches[0]!r}?)" if matches else ""
