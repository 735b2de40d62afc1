"""What every source of data gives: both splits of a data set, as arrays."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

from numpy.typing import NDArray


class Split(NamedTuple):
    """One split as read: examples `(n, channels, ...)`, labels `(n,)`, and the place that an error should name."""

    place: str
    x: NDArray[Any]
    y: NDArray[Any]


Splits: TypeAlias = tuple[Split, Split]  # training and test


class Source(ABC):
    """Where a data set comes from.

    Labels run from 0 to `classes - 1`. Examples are standardised unless their numbers are names, as those of nodes are.
    """

    classes: int
    standardised: ClassVar[bool] = True

    @abstractmethod
    def read(self, name: str, folders: tuple[Path, ...]) -> Splits:
        """Read both splits.

        Arguments:
            name: The key of the data set in `DATASETS`.
            folders: Where to look for files, in this order; the last is the one that the user named. Empty if the
                user named none.

        Raises:
            DataError: if the data cannot be found or read.
        """
