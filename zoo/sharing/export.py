"""Zoos as Hugging Face data sets: Parquet that `datasets.load_dataset` reads with no code of ours.

A configuration for each treatment, and one of `metadata` on all of them, without weights and curves. Splits are the
zoo's. A split without networks has no file, for `datasets` 5.2.0 loads no configuration of which a Parquet split is
empty.
"""

import json
from collections.abc import Callable, Iterator, Mapping
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
from zoo.sharing.card import CARD, FIGURE, card, draw_accuracies
from zoo.sharing.configuration import METADATA, TREATMENT, Configuration, arrow_type
from zoo.sharing.croissant import CROISSANT, croissant
from zoo.store.columns import SPLITS, WEIGHTS, Column
from zoo.store.shards import row_size
from zoo.store.zoo import Zoo

ROW_GROUP = 100 << 20  # bytes; the Hub's viewer refuses groups of 286 MB
Arrays = Mapping[str, NDArray[Any]]


def export_zoo(zoo: Zoo, folder: str | Path, *, progress: Callable[[int], object] = lambda networks: None) -> Path:
    """Write a zoo as a data set for the Hub, a row group at a time.

    Arguments:
        zoo: to be written.
        folder: new or empty; it is a repository by itself.
        progress: called with the number of networks just written.

    Returns:
        The folder, which `datasets.load_dataset(folder, treatment)` reads.

    Raises:
        ZooError: if the folder holds something.
    """
    folder = Path(folder)
    check_empty(folder)
    if METADATA in zoo.treatments:
        raise ZooError(f"{zoo.folder}: a treatment is named {METADATA!r}, as is a configuration of its own; rename it")
    described = [_export_treatment(zoo, treatment, folder, progress) for treatment in zoo.treatments]
    described.append(_export_metadata(zoo, folder))
    for file in zoo.manifest.files:
        if file.pairs is None:
            write_whole(folder / file.path, (zoo.folder / file.path).read_bytes())
    zoo.manifest.write(folder)
    write_whole(folder / CROISSANT, json.dumps(croissant(zoo.manifest, folder, described), indent=1).encode())
    write_whole(folder / FIGURE, draw_accuracies(zoo))
    write_whole(folder / CARD, card(zoo, described).encode())
    return folder


def metadata_columns(zoo: Zoo) -> dict[str, Column]:
    """Return the columns of `metadata`: those of all networks but weights and curves."""
    common = [c for c in zoo.manifest.columns if c.treatments is None and c.kind not in ("weights", "curve")]
    return {column.name: column for column in (TREATMENT, *common) if column.name != "split"}


def _export_treatment(zoo: Zoo, treatment: str, folder: Path, progress: Callable[[int], object]) -> Configuration:
    """Write the networks of a treatment, a file for each split that has some."""
    size, split_of = row_size(zoo.manifest, treatment), zoo.field(treatment, "split")
    columns = {name: column for name, column in zoo.columns(treatment).items() if name != "split"}
    features = _features(columns, size)
    known = {name: zoo.field(treatment, name) for name in columns if name not in WEIGHTS}
    rows = max(1, ROW_GROUP // (8 * size))

    def tables(index: NDArray[np.int64]) -> Iterator[pa.Table]:
        for group in np.split(index, range(rows, len(index), rows)):
            weights = {n: zoo.rows(treatment, group, initial=n == WEIGHTS[1]).numpy() for n in columns if n in WEIGHTS}
            arrays = {name: weights[name] if name in weights else known[name][group] for name in columns}
            progress(len(group))
            yield _table(arrays, features)

    counts: dict[str, int] = {}
    for split in SPLITS:
        index = np.flatnonzero(split_of == split)
        if len(index):
            _write_parquet(folder / treatment / f"{split}.parquet", features, tables(index))
            counts[split] = len(index)
    return _describe(zoo, folder, treatment, columns, counts)


def _export_metadata(zoo: Zoo, folder: Path) -> Configuration:
    """Write what is known of all networks, without weights and curves."""
    columns = metadata_columns(zoo)
    features = _features(columns, 0)
    tables: dict[str, list[pa.Table]] = {name: [] for name in SPLITS}
    for treatment in zoo.treatments:
        split_of = zoo.field(treatment, "split")
        known = {name: zoo.field(treatment, name) for name in columns if name != TREATMENT.name}
        for split in SPLITS:
            index = np.flatnonzero(split_of == split)
            own = {name: values[index] for name, values in known.items()}
            tables[split].append(_table({TREATMENT.name: np.full(len(index), treatment)} | own, features))
    counts = {split: sum(map(len, parts)) for split, parts in tables.items() if sum(map(len, parts))}
    for name in counts:
        _write_parquet(folder / METADATA / f"{name}.parquet", features, iter(tables[name]))
    return _describe(zoo, folder, METADATA, columns, counts)


def _describe(
    zoo: Zoo, folder: Path, name: str, columns: Mapping[str, Column], counts: Mapping[str, int]
) -> Configuration:
    """Return a configuration whose files are written, and how large its splits are."""
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
    """Return some networks as a table."""

    def arrow(values: NDArray[Any]) -> pa.Array:
        if values.ndim == 1:
            return pa.array(values)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])

    return pa.Table.from_arrays([arrow(values) for values in arrays.values()], schema=features.arrow_schema)


def _write_parquet(path: Path, features: Features, tables: Iterator[pa.Table]) -> None:
    """Write tables as row groups; the file appears under its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        # Weights are noise to a compressor, and nobody asks for their least and greatest.
        statistics = [name for name, feature in features.items() if isinstance(feature, Value)]
        with pq.ParquetWriter(
            temporary, features.arrow_schema, compression="none", use_dictionary=False, write_statistics=statistics
        ) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=max(1, len(table)))
                del table  # before the next is read
        temporary.replace(path)
    except OSError as error:
        raise ZooError(f"{path}: cannot be written ({error}); make room, then export into a new folder") from error
    finally:
        temporary.unlink(missing_ok=True)
