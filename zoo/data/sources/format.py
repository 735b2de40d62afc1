"""Base classes of file formats: any format of a folder, and formats of plain files with fixed names."""

import gzip
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from zoo.data.sources.hub import Repository
from zoo.data.sources.source import Split, Splits
from zoo.errors import DataError


class Format(ABC):
    """A format in which the files of a data set can be stored in a folder."""

    @abstractmethod
    def wanted(self, repository: Repository) -> str:
        """Return what a folder must contain, for error messages."""

    @abstractmethod
    def read(self, folder: Path, repository: Repository) -> Splits | None:
        """Read both splits, or return None if a file is missing.

        Arguments:
            folder: Folder to read.
            repository: Repository of the same data set on the Hub.

        Raises:
            DataError: If a file is damaged.
        """


class Files(Format):
    """A format of files with fixed names for each split, plain or compressed by gzip.

    A subclass defines `read_split`.

    Attributes:
        kind: Name of the format, for error messages.
        train: Names of the files of the training split.
        test: Names of the files of the test split.
        subfolder: Folder into which an archive may have unpacked the files.
    """

    kind: ClassVar[str]
    train: ClassVar[tuple[str, ...]]
    test: ClassVar[tuple[str, ...]]
    subfolder: ClassVar[str] = ""

    @abstractmethod
    def read_split(self, paths: list[Path]) -> Split:
        """Read one split from its files, in the order of `train` or `test`."""

    def wanted(self, repository: Repository) -> str:
        """Return the names of the files."""
        return f"{self.kind} ({', '.join(self.train + self.test)}, plain or .gz)"

    def read(self, folder: Path, repository: Repository) -> Splits | None:
        """Read both splits, or return None if a file is missing."""
        train, test = (self._find(folder, names) for names in (self.train, self.test))
        return (self.read_split(train), self.read_split(test)) if train and test else None

    def _find(self, folder: Path, names: tuple[str, ...]) -> list[Path]:
        """Return the path of each file, or an empty list if one is missing."""
        places = [(folder / name, folder / f"{name}.gz", folder / self.subfolder / name) for name in names]
        found = [path for choices in places if (path := next(filter(Path.is_file, choices), None))]
        return found if len(found) == len(names) else []


def content(path: Path) -> bytes:
    """Return the bytes of a file, decompressed if its name ends in `.gz`.

    Raises:
        DataError: If it is a damaged gzip file.
    """
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: is a damaged gzip file; download it again") from error
