"""What every format of files in a folder gives, and what formats of plain files share."""

import gzip
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from zoo.data.sources.hub import Repository
from zoo.data.sources.source import Split, Splits
from zoo.errors import DataError


class Format(ABC):
    """How the files of a data set lie in a folder."""

    @abstractmethod
    def wanted(self, repository: Repository) -> str:
        """Return what a folder must hold, for the message of an error."""

    @abstractmethod
    def read(self, folder: Path, repository: Repository) -> Splits | None:
        """Read both splits, or return None where a file is missing.

        Arguments:
            folder: Where to look.
            repository: The same data set on the Hub.

        Raises:
            DataError: if a file is damaged.
        """


class Files(Format):
    """Files with fixed names for each split, plain or compressed by gzip.

    A subclass says what they are called together (`kind`), their names, the `subfolder` that an archive may have
    unpacked them into, and how the files of one split are read.
    """

    kind: ClassVar[str]
    train: ClassVar[tuple[str, ...]]
    test: ClassVar[tuple[str, ...]]
    subfolder: ClassVar[str] = ""

    @abstractmethod
    def read_split(self, paths: list[Path]) -> Split:
        """Read one split from its files, which come in the order of their names above."""

    def wanted(self, repository: Repository) -> str:
        """Name the files."""
        return f"{self.kind} ({', '.join(self.train + self.test)}, plain or .gz)"

    def read(self, folder: Path, repository: Repository) -> Splits | None:
        """Read both splits, or return None where a file is missing."""
        train, test = (self._find(folder, names) for names in (self.train, self.test))
        return (self.read_split(train), self.read_split(test)) if train and test else None

    def _find(self, folder: Path, names: tuple[str, ...]) -> list[Path]:
        """Return where each of the files lies, or nothing if one is missing."""
        places = [(folder / name, folder / f"{name}.gz", folder / self.subfolder / name) for name in names]
        found = [path for choices in places if (path := next(filter(Path.is_file, choices), None))]
        return found if len(found) == len(names) else []


def content(path: Path) -> bytes:
    """Return the bytes of a file, decompressed if its name ends in `.gz`.

    Raises:
        DataError: if it is a damaged gzip file.
    """
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: is a damaged gzip file; fetch it again") from error
