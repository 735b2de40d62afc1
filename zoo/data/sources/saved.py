"""Folders written by `DatasetDict.save_to_disk` of the library `datasets`, with the same columns as on the Hub."""

from pathlib import Path

from zoo.data.sources.format import Format
from zoo.data.sources.hub import Repository, in_one_line
from zoo.data.sources.source import Splits
from zoo.errors import DataError

MARK = "dataset_dict.json"  # a file that only such folders have


class Saved(Format):
    """A folder with both splits, saved by `datasets`."""

    def wanted(self, repository: Repository) -> str:
        """Return a description of such a folder and its columns."""
        columns = f"columns {repository.image!r} and {repository.label!r}"
        return f"a folder saved by `datasets`' save_to_disk ({MARK}, {columns})"

    def read(self, folder: Path, repository: Repository) -> Splits | None:
        """Read both splits, or return None if this is not such a folder."""
        if not (folder / MARK).is_file():
            return None
        import datasets

        try:
            return repository.splits(str(folder), datasets.load_from_disk(str(folder)))
        except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
            raise DataError(f"{folder}: cannot be read ({in_one_line(error)}); save it again") from error
