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
        address: Its owner and name.
        config: The configuration to load, where there are several.
        image: The column of examples.
        label: The column of their classes.
    """

    address: str
    config: str | None = None
    image: str = "image"
    label: str = "label"

    def read(self, name: str, instead: str) -> Splits:
        """Read both splits from the Hub, or from what `datasets` keeps of an earlier time.

        Arguments:
            name: The data set, for the message of an error.
            instead: What to put in a folder where the Hub is out of reach.

        Raises:
            DataError: if the repository cannot be had or lacks a split or column.
        """
        import datasets
        from huggingface_hub.utils.logging import set_verbosity_error

        set_verbosity_error()  # what it retries is no news; what comes of it is told below
        try:
            tables = datasets.load_dataset(self.address, self.config)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            fact = f"{self.address} cannot be had from the Hugging Face Hub ({in_one_line(error)})"
            remedy = f"put {instead} in a folder DIR and pass --data-dir DIR (data_dir= in Python)"
            raise DataError(f"{name}: {fact}; {remedy}") from error
        return self.splits(self.address, tables)

    def splits(self, place: str, tables: Mapping[str, Any]) -> Splits:
        """Turn the columns of both splits into arrays, channels first.

        Raises:
            DataError: if a split or a column is missing.
        """
        return self._split(place, tables, "train"), self._split(place, tables, "test")

    def _split(self, place: str, tables: Mapping[str, Any], part: str) -> Split:
        columns = [self.image, self.label]
        if part not in tables or not set(columns) <= set(tables[part].column_names):
            raise DataError(f"{place}: needs a split {part!r} with columns {columns}, as {self.address} has")
        arrays = tables[part].select_columns(columns).with_format("numpy")[:]
        images = arrays[self.image]
        channels_first = np.moveaxis(images, -1, 1) if images.ndim == 4 else images[:, None]
        return Split(f"{place} ({part})", channels_first, arrays[self.label])


def in_one_line(error: Exception) -> str:
    """Return kind and message of another library's error, which may have several lines."""
    return " ".join(f"{type(error).__name__}: {error}".split())
