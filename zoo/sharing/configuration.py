"""Configurations of an exported zoo, as `load_dataset(name, configuration)` loads them.

There is one for each treatment, and one called `metadata` with the networks of all treatments.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from zoo.store.columns import Column

METADATA = "metadata"
TREATMENT = Column(name="treatment", kind="id", dtype="string", meaning="Name of the treatment.")


def arrow_type(column: Column, parameters: int) -> pa.DataType:
    """Return the type of a column in Parquet, for networks with a number of parameters."""
    single = pa.string() if column.dtype == "string" else pa.from_numpy_dtype(column.dtype)
    return single if column.width is None else pa.list_(single, column.shape(1, parameters)[1])


@dataclass(frozen=True)
class Configuration:
    """A configuration: its columns, and a Parquet file for each split that has networks.

    Arguments:
        name: Name of the treatment, or `metadata`.
        columns: Columns of the files, by name.
        paths: Paths of the files, relative to the data set's folder, by split.
        zoo: Digest of the zoo's manifest, which lists the checksums of its shards. It keeps apart zoos of the same
            name: `datasets` caches a folder by its last name and the head of its card, and would otherwise return the
            data of a zoo that was loaded before.
        info: Further fields in the head of the card, see `huggingface_hub.DatasetCardData`.
    """

    name: str
    columns: Mapping[str, Column]
    paths: Mapping[str, str]
    zoo: str
    info: Mapping[str, Any]

    @property
    def data_files(self) -> dict[str, Any]:
        """Entry of the files in the head of a card."""
        files = [{"split": split, "path": path} for split, path in self.paths.items()]
        return {"config_name": self.name, "data_files": files, "description": f"{self.name} of zoo {self.zoo}"}

    @property
    def dataset_info(self) -> dict[str, Any]:
        """Entry of the further fields in the head of a card."""
        return {"config_name": self.name, **self.info}
