"""Folders written by `DatasetDict.save_to_disk` of the library `datasets`, with the columns that the Hub has."""

from pathlib import Path

from zoo.data.sources.format import Format
from zoo.data.sources.hub import Repository, in_one_line
from zoo.data.sources.source import Splits
from zoo.errors import DataError

MARK = "dataset_dict.json"  # the file that tells such a folder from others


class Saved(Format):
    """Both splits in one folder saved by `datasets`."""

    def wanted(self, repository: Repository) -> str:
        """Name the mark of the folder and its columns."""
        columns = f"columns {repository.image!r} and {repository.label!r}"
        return f"a folder saved by `datasets`' save_to_disk ({MARK}, {columns})"

    def read(self, folder: Path, repository: Repository) -> Splits | None:
        """Read both splits, or return None where the mark is missing."""
        if not (folder / MARK).is_file():
            return None
        import datasets

        try:
            return repository.splits(str(folder), datasets.load_from_disk(str(folder)))
        except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
            raise DataError(f"{folder}: cannot be read ({in_one_line(error)}); save it again") from error
