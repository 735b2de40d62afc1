"""Data sets on the Hugging Face Hub: tables with a column of images and one of labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.data.sources.source import Split, Splits
from zoo.errors import DataError


@dataclass(frozen=True)
class Repository:
    """A repository on the Hub, and the columns of its table that are read.

    Arguments:
        address: Owner and name of the repository.
        config: Configuration to load, if there are several.
        image: Column of the examples.
        label: Column of the labels.
    """

    address: str
    config: str | None = None
    image: str = "image"
    label: str = "label"

    def read(self, name: str, instead: str) -> Splits:
        """Read both splits from the Hub, or from the cache of `datasets`.

        Arguments:
            name: Name of the data set, for error messages.
            instead: Files that a folder must contain if the Hub cannot be used, for error messages.

        Raises:
            DataError: If the repository cannot be loaded, or lacks a split or a column.
        """
        import datasets
        from huggingface_hub.utils.logging import set_verbosity_error

        set_verbosity_error()  # hides warnings about retries; the final error is reported below
        try:
            tables = datasets.load_dataset(self.address, self.config)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            fact = f"{self.address} cannot be loaded from the Hugging Face Hub ({in_one_line(error)})"
            remedy = f"put {instead} in a folder DIR and give --data-dir DIR (data_dir= in Python)"
            raise DataError(f"{name}: {fact}; {remedy}") from error
        return self.splits(self.address, tables)

    def splits(self, place: str, tables: Mapping[str, Any]) -> Splits:
        """Return both splits as arrays, channels first, from the tables of a data set.

        Raises:
            DataError: If a split or a column is missing.
        """
        return self._split(place, tables, "train"), self._split(place, tables, "test")

    def _split(self, place: str, tables: Mapping[str, Any], name: str) -> Split:
        columns = [self.image, self.label]
        if name not in tables or not set(columns) <= set(tables[name].column_names):
            raise DataError(
                f"{place}: needs a split {name!r} with columns {columns}, as {self.address} has; save it again"
            )
        arrays = tables[name].select_columns(columns).with_format("numpy")[:]
        images = arrays[self.image]
        channels_first = np.moveaxis(images, -1, 1) if images.ndim == 4 else images[:, None]
        return Split(f"{place} ({name})", channels_first, arrays[self.label])


def in_one_line(error: Exception) -> str:
    """Return class and message of an error in one line, even if the message has several."""
    return " ".join(f"{type(error).__name__}: {error}".split())
