"""The base class of sources, which read both splits of a data set as arrays."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

from numpy.typing import NDArray


class Split(NamedTuple):
    """One split, as it was read.

    Arguments:
        place: File or repository that it was read from, for error messages.
        x: Examples `(n, channels, ...)`.
        y: Labels `(n,)`.
    """

    place: str
    x: NDArray[Any]
    y: NDArray[Any]


Splits: TypeAlias = tuple[Split, Split]  # training and test


class Source(ABC):
    """The source of a data set.

    Attributes:
        classes: Number of classes; labels run from 0 to `classes - 1`.
        standardised: Whether examples are standardised. The numbers of nodes are not, since they are names.
    """

    classes: int
    standardised: ClassVar[bool] = True

    @abstractmethod
    def read(self, name: str, folders: tuple[Path, ...]) -> Splits:
        """Read both splits.

        Arguments:
            name: Name of the data set, its key in `DATASETS`.
            folders: Folders in which to look for files, in this order; the last one is the folder that the user gave.
                Empty if the user gave none.

        Raises:
            DataError: If the data cannot be found or read.
        """
