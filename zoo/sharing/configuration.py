"""A configuration of a data set: what `load_dataset(name, configuration)` loads of an exported zoo.

There is one for each treatment, and `metadata` on the networks of all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from zoo.store.columns import Column

METADATA = "metadata"
TREATMENT = Column(name="treatment", kind="id", dtype="string", meaning="Name of the treatment.")


def arrow_type(column: Column, parameters: int) -> pa.DataType:
    """Return the type of a column in Parquet."""
    single = pa.string() if column.dtype == "string" else pa.from_numpy_dtype(column.dtype)
    return single if column.width is None else pa.list_(single, column.shape(1, parameters)[1])


@dataclass(frozen=True)
class Configuration:
    """Columns, and a Parquet file for each split that has networks.

    Arguments:
        name: of the treatment, or `metadata`.
        columns: of the files, by name.
        paths: of the files, relative to the data set's folder, by split.
        zoo: digest of the zoo's manifest, which lists the checksums of its shards. `datasets` keeps what it loaded
            from a folder under the folder's last name and the head of its card; without the digest, a zoo of the same
            form in a folder of the same name would be taken for the one loaded before.
        info: what else the Hub wants to know of it, see `huggingface_hub.DatasetCardData`.
    """

    name: str
    columns: Mapping[str, Column]
    paths: Mapping[str, str]
    zoo: str
    info: Mapping[str, Any]

    @property
    def data_files(self) -> dict[str, Any]:
        """Its files, as the head of a card lists them."""
        files = [{"split": split, "path": path} for split, path in self.paths.items()]
        return {"config_name": self.name, "data_files": files, "description": f"{self.name} of zoo {self.zoo}"}

    @property
    def dataset_info(self) -> dict[str, Any]:
        """What the head of a card says of it besides."""
        return {"config_name": self.name, **self.info}
