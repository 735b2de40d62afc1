"""Published data sets: read from the Hub, or from a folder with their files in a known format."""

from dataclasses import dataclass
from pathlib import Path

from zoo.data.sources.cifar import CIFAR
from zoo.data.sources.format import Format
from zoo.data.sources.hub import Repository
from zoo.data.sources.idx import IDX
from zoo.data.sources.saved import Saved
from zoo.data.sources.source import Source, Splits
from zoo.errors import DataError

FORMATS: dict[str, Format] = {"saved": Saved(), "idx": IDX(), "cifar": CIFAR()}


@dataclass(frozen=True)
class Published(Source):
    """A data set on the Hub, whose files may also be in a local folder.

    Arguments:
        repository: Repository on the Hub.
        formats: Formats of its files, keys of `FORMATS`, in the order in which to look for them.
        classes: Number of classes.
    """

    repository: Repository
    formats: tuple[str, ...] = ("saved",)
    classes: int = 10

    @property
    def wanted(self) -> str:
        """What a folder must contain, for error messages."""
        return " or ".join(FORMATS[format].wanted(self.repository) for format in self.formats)

    def read(self, name: str, folders: tuple[Path, ...]) -> Splits:
        """Read both splits from the first folder that has them, or from the Hub if no folder is given."""
        if not folders:
            return self.repository.read(name, self.wanted)
        for folder in folders:
            for format in self.formats:
                if splits := FORMATS[format].read(folder, self.repository):
                    return splits
        looked = f"looked in {' and '.join(map(str, folders))} for {self.wanted}"
        raise DataError(f"{folders[-1]}: {name} is not there; {looked}; put the files there, or give no folder")
