"""Exports zoos as Hugging Face data sets: Parquet files that `datasets.load_dataset` reads without this package.

There is a configuration for each treatment, and `metadata` with the networks of all treatments, without weights and
curves. The splits are those of the zoo. A split without networks has no file, because `datasets` 5.2.0 cannot load a
configuration in which the Parquet file of a split is empty.
"""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Value
from numpy.typing import NDArray

from zoo.errors import ZooError
from zoo.files import check_empty, write_whole
from zoo.progress import Progress, ignore
from zoo.sharing.card import CARD, FIGURE, card, draw_accuracies
from zoo.sharing.configuration import METADATA, TREATMENT, Configuration, arrow_type
from zoo.sharing.croissant import CROISSANT, croissant
from zoo.store.columns import SPLITS, Column
from zoo.store.shards import row_size
from zoo.store.zoo import Zoo

ROW_GROUP = 100 << 20  # bytes of weights in a row group; the viewer of the Hub refuses row groups of 286 MB
Arrays = Mapping[str, NDArray[Any]]


def export_zoo(zoo: Zoo, folder: str | Path, *, progress: Progress = ignore) -> Path:
    """Write a zoo as a data set for the Hub, with one row group in memory at a time.

    Arguments:
        zoo: Zoo to export.
        folder: New or empty folder, which can be uploaded to the Hub unchanged.
        progress: Called with the number of networks that were just written.

    Returns:
        The folder, which `datasets.load_dataset(folder, treatment)` reads.

    Raises:
        ZooError: If the folder is not empty, or a file cannot be written.
    """
    folder = Path(folder)
    check_empty(folder)
    if METADATA in zoo.treatments:
        fact = f"a treatment has the name {METADATA!r}, which an export uses for the networks of all treatments"
        raise ZooError(f"{zoo.folder}: {fact}; rename the treatment")
    configurations = [_export_treatment(zoo, treatment, folder, progress) for treatment in zoo.treatments]
    configurations.append(_export_metadata(zoo, folder))
    for file in zoo.manifest.files:
        if file.pairs is None:
            write_whole(folder / file.path, (zoo.folder / file.path).read_bytes())
    zoo.manifest.write(folder)
    write_whole(folder / CROISSANT, json.dumps(croissant(zoo.manifest, folder, configurations), indent=1).encode())
    write_whole(folder / FIGURE, draw_accuracies(zoo))
    write_whole(folder / CARD, card(zoo, configurations).encode())
    return folder


def metadata_columns(zoo: Zoo) -> dict[str, Column]:
    """Return the columns of `metadata`: those that all networks have, without weights and curves."""
    common = [c for c in zoo.manifest.columns if c.treatments is None and c.kind not in ("weights", "curve")]
    return {column.name: column for column in (TREATMENT, *common) if column.name != "split"}


def _export_treatment(zoo: Zoo, treatment: str, folder: Path, progress: Progress) -> Configuration:
    """Write the networks of a treatment, one file for each split that has networks."""
    size, every = row_size(zoo.manifest, treatment), zoo.networks(treatment, diverged=True)
    columns = {name: column for name, column in every.columns.items() if name != "split"}
    features = _features(columns, size)
    known = {name: every[name] for name in columns if columns[name].kind != "weights"}
    rows = max(1, ROW_GROUP // (8 * size))

    def tables(index: NDArray[np.int64]) -> Iterator[pa.Table]:
        for group in np.split(index, range(rows, len(index), rows)):
            arrays = {
                name: every[group][name] if columns[name].kind == "weights" else known[name][group] for name in columns
            }
            progress(len(group))
            yield _table(arrays, features)

    counts: dict[str, int] = {}
    for split in SPLITS:
        index = np.flatnonzero(every["split"] == split)
        if len(index):
            _write_parquet(folder / treatment / f"{split}.parquet", features, tables(index))
            counts[split] = len(index)
    return _describe(zoo, folder, treatment, columns, counts)


def _export_metadata(zoo: Zoo, folder: Path) -> Configuration:
    """Write the networks of all treatments, without weights and curves."""
    columns = metadata_columns(zoo)
    features = _features(columns, 0)
    tables: dict[str, list[pa.Table]] = {name: [] for name in SPLITS}
    for treatment in zoo.treatments:
        every = zoo.networks(treatment, diverged=True)
        for split in SPLITS:
            networks = every.split(split)
            values = {name: networks[name] for name in columns if name != TREATMENT.name}
            tables[split].append(_table({TREATMENT.name: np.full(len(networks), treatment)} | values, features))
    counts = {split: sum(map(len, parts)) for split, parts in tables.items() if sum(map(len, parts))}
    for name in counts:
        _write_parquet(folder / METADATA / f"{name}.parquet", features, iter(tables[name]))
    return _describe(zoo, folder, METADATA, columns, counts)


def _describe(
    zoo: Zoo, folder: Path, name: str, columns: Mapping[str, Column], counts: Mapping[str, int]
) -> Configuration:
    """Return the configuration whose files were just written, with the sizes of its splits."""
    paths = {split: f"{name}/{split}.parquet" for split in counts}
    files = {split: pq.read_metadata(folder / path) for split, path in paths.items()}
    uncompressed = {
        split: sum(file.row_group(group).total_byte_size for group in range(file.num_row_groups))
        for split, file in files.items()
    }
    schema = next(iter(files.values())).schema.to_arrow_schema()
    splits = [{"name": split, "num_bytes": uncompressed[split], "num_examples": n} for split, n in counts.items()]
    info = {
        "features": Features.from_arrow_schema(schema)._to_yaml_list(),
        "splits": splits,
        "download_size": sum((folder / path).stat().st_size for path in paths.values()),
        "dataset_size": sum(uncompressed.values()),
    }
    digest = sha256(zoo.manifest.model_dump_json().encode()).hexdigest()[:16]
    return Configuration(name, columns, paths, digest, info)


def _features(columns: Mapping[str, Column], parameters: int) -> Features:
    types = {name: arrow_type(column, parameters) for name, column in columns.items()}
    return Features.from_arrow_schema(pa.schema(types))


def _table(arrays: Arrays, features: Features) -> pa.Table:
    """Return the columns of networks as a table."""

    def arrow(values: NDArray[Any]) -> pa.Array:
        if values.ndim == 1:
            return pa.array(values)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])

    return pa.Table.from_arrays([arrow(values) for values in arrays.values()], schema=features.arrow_schema)


def _write_parquet(path: Path, features: Features, tables: Iterator[pa.Table]) -> None:
    """Write each table as a row group; the file appears under its name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        # Weights do not compress, and nobody filters by the smallest or largest one, so they get no statistics.
        statistics = [name for name, feature in features.items() if isinstance(feature, Value)]
        with pq.ParquetWriter(
            temporary, features.arrow_schema, compression="none", use_dictionary=False, write_statistics=statistics
        ) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=max(1, len(table)))
                del table  # frees the memory before the next table is made
        temporary.replace(path)
    except OSError as error:
        raise ZooError(f"{path}: cannot be written ({error}); make room, then export into a new folder") from error
    finally:
        temporary.unlink(missing_ok=True)
