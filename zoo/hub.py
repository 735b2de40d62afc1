"""Zoos as Hugging Face data sets: Parquet that `datasets.load_dataset` reads with no code of ours, and back again.

A configuration for each treatment, and one of `metadata` on all of them, without weights. Splits are the zoo's.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, List, Value
from numpy.typing import NDArray

from zoo.card import CARD, FIGURE, card, draw_accuracies
from zoo.croissant import CROISSANT, croissant
from zoo.errors import ZooError
from zoo.manifest import MANIFEST, File, Manifest, check_empty, write_whole
from zoo.parameters import ParameterLayout
from zoo.recipe import SPLITS
from zoo.store import WEIGHTS, Zoo, checksum_of, open_zoo, write_shard

ROW_GROUP = 100 << 20  # bytes; the Hub's viewer refuses groups of 286 MB
BATCH = 16 << 20  # bytes that are read at once
UNPACKED = 4  # times the size of a file, at most: exports are not compressed
METADATA = "metadata"
Arrays = Mapping[str, NDArray[Any]]


def export_zoo(zoo: Zoo, folder: str | Path, *, progress: Callable[[int], object] = lambda networks: None) -> Path:
    """Write a zoo as a data set for the Hub, a row group at a time.

    Arguments:
        zoo: to be written.
        folder: new or empty; it is a repository as it stands.
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
    weights, described = _weights_of(zoo.manifest), []
    for treatment in zoo.treatments:
        fields = {name: zoo.field(treatment, name) for name in zoo.fields(treatment)}
        columns = {name: values for name, values in fields.items() if name != "split"}
        size = zoo.treated(treatment).layout.size
        features = Features(
            {name: List(Value("float32"), length=size) for name in weights}
            | {name: _feature(values) for name, values in columns.items()}
        )
        rows = max(1, ROW_GROUP // (8 * size))
        counts: dict[str, int] = {}
        for split in SPLITS:
            index = np.flatnonzero(fields["split"] == split)
            if len(index):
                groups = np.split(index, range(rows, len(index), rows))
                tables = (_table(zoo, treatment, columns, group, features, progress) for group in groups)
                _write_parquet(folder / treatment / f"{split}.parquet", features, tables)
                counts[split] = len(index)
        described.append(_describe(folder, treatment, features, counts))
    described.append(_export_metadata(zoo, folder))
    for file in zoo.manifest.files:
        if file.pairs is None:
            write_whole(folder / file.path, (zoo.folder / file.path).read_bytes())
    zoo.manifest.write(folder)
    write_whole(folder / CROISSANT, json.dumps(croissant(zoo.manifest, folder, described), indent=1).encode())
    write_whole(folder / FIGURE, draw_accuracies(zoo))
    write_whole(folder / CARD, card(zoo, described).encode())
    return folder


def import_zoo(
    source: str | Path, folder: str | Path, *, progress: Callable[[int], object] = lambda networks: None
) -> Zoo:
    """Make a zoo again of what `export_zoo` wrote, bit for bit, a shard at a time.

    Arguments:
        source: folder of the data set.
        folder: of the zoo, new or empty.
        progress: called with the number of networks just written.

    Raises:
        ZooError: if a file is missing or does not hold what `zoo.json` says, or the folder holds something.
    """
    source, folder = Path(source), Path(folder)
    check_empty(folder)
    manifest = Manifest.read(source)
    files: list[File] = []
    for file in manifest.files:
        if file.pairs is None:
            path = source / file.path
            if not path.is_file() or path.stat().st_size != file.bytes or checksum_of(path) != file.sha256:
                raise ZooError(f"{path}: is not the file that {MANIFEST} lists; download it again")
            write_whole(folder / file.path, path.read_bytes())
            files.append(file)
    for treatment in manifest.recipe.treatments:
        size, weights = ParameterLayout.from_json(manifest.layouts[treatment]).size, _weights_of(manifest)
        _check_files(source / treatment, manifest.recipe.pairs, weights, size)
        shards = [(range(*shard.pairs), shard.mode) for shard in manifest.of(treatment) if shard.pairs and shard.mode]
        runs = _in_runs(source / treatment, [run for run, _ in shards], size)
        for (run, mode), arrays in zip(shards, runs, strict=True):
            files.append(write_shard(folder, treatment, run, arrays, mode))
            progress(len(run))
    manifest.model_copy(update={"files": tuple(files)}).write(folder)
    return open_zoo(folder)


def _weights_of(manifest: Manifest) -> Sequence[str]:
    """Return what is known of weights: nobody has the initial ones of networks that others trained."""
    return WEIGHTS[:1] if manifest.recipe.imported else WEIGHTS


def _describe(folder: Path, name: str, features: Features, counts: Mapping[str, int]) -> dict[str, Any]:
    """Return what a card says of a configuration: its files, its features, and how large its splits are."""
    paths = {split: folder / name / f"{split}.parquet" for split in counts}
    size = {split: path.stat().st_size for split, path in paths.items()}
    files = {split: pq.read_metadata(path) for split, path in paths.items()}
    uncompressed = {
        split: sum(file.row_group(group).total_byte_size for group in range(file.num_row_groups))
        for split, file in files.items()
    }
    return {
        "config_name": name,
        "data_files": [{"split": split, "path": f"{name}/{split}.parquet"} for split in counts],
        "features": features._to_yaml_list(),
        "splits": [
            {"name": split, "num_bytes": uncompressed[split], "num_examples": count} for split, count in counts.items()
        ],
        "download_size": sum(size.values()),
        "dataset_size": sum(uncompressed.values()),
    }


def _export_metadata(zoo: Zoo, folder: Path) -> dict[str, Any]:
    """Write what is known of all networks, without weights and curves; return its description."""
    tables: dict[str, list[pa.Table]] = {name: [] for name in SPLITS}
    for treatment in zoo.treatments:
        names = [name for name in zoo.fields(treatment) if name != "split" and not name.startswith("curves/")]
        columns, of_split = {name: zoo.field(treatment, name) for name in names}, zoo.field(treatment, "split")
        for split in SPLITS:
            index = np.flatnonzero(of_split == split)
            own = {"treatment": np.full(len(index), treatment)} | {name: v[index] for name, v in columns.items()}
            features = Features({name: _feature(values) for name, values in own.items()})
            tables[split].append(pa.table([pa.array(v) for v in own.values()], schema=features.arrow_schema))
    counts = {split: sum(map(len, parts)) for split, parts in tables.items() if sum(map(len, parts))}
    for name in counts:
        _write_parquet(folder / METADATA / f"{name}.parquet", features, iter(tables[name]))
    return _describe(folder, METADATA, features, counts)


def _feature(values: NDArray[Any]) -> Value | List:
    if values.ndim == 2:
        return List(Value(str(values.dtype)), length=values.shape[1])
    return Value("string" if values.dtype.kind == "U" else str(values.dtype))


def _table(
    zoo: Zoo,
    treatment: str,
    columns: Arrays,
    index: NDArray[np.int64],
    features: Features,
    progress: Callable[[int], object],
) -> pa.Table:
    """Return some networks as a table."""
    weights = _weights_of(zoo.manifest)
    rows = {name: zoo.rows(treatment, index, initial=name == WEIGHTS[1]).numpy() for name in weights}
    arrays = [_arrow(values) for values in (rows | {name: v[index] for name, v in columns.items()}).values()]
    progress(len(index))
    return pa.Table.from_arrays(arrays, schema=features.arrow_schema)


def _arrow(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


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


def _check_files(folder: Path, pairs: int, weights: Sequence[str], size: int) -> None:
    """See to it, before any is read, that a treatment's files hold what they should and unpack to no more than it."""
    networks = 0
    for path in _files(folder):
        try:
            file, schema = pq.read_metadata(path), pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise ZooError(f"{path}: cannot be read ({error}); download it again") from None
        for name in weights:
            if name not in schema.names or schema.field(name).type != pa.list_(pa.float32(), size):
                raise ZooError(f"{path}: {name} is no list of {size:,} float32; download it again")
        unpacked = sum(file.row_group(group).total_byte_size for group in range(file.num_row_groups))
        if unpacked > UNPACKED * path.stat().st_size:
            raise ZooError(f"{path}: unpacks to {unpacked / 1e9:.1f} GB, which no export does; download it again")
        networks += file.num_rows
    if networks != pairs:
        raise ZooError(f"{folder}: has {networks:,} networks instead of {pairs:,}; download it again")


def _files(folder: Path) -> list[Path]:
    return [path for split in SPLITS if (path := folder / f"{split}.parquet").is_file()]


class _Stream:
    """The networks of a file, a batch at a time, in the order of their pairs."""

    def __init__(self, path: Path, rows: int) -> None:
        self.path = path
        file = pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)  # or else all of it is read at once
        self.batches = map(pa.Table.from_batches, ([batch] for batch in file.iter_batches(rows)))
        self.left: pa.Table | None = None

    def until(self, pair: int) -> list[pa.Table]:
        """Return those that come next, before a pair."""
        tables = []
        try:
            while (table := self.left or next(self.batches, None)) is not None:
                count = int(np.searchsorted(table["pair"].to_numpy(), pair))
                tables.append(table.slice(0, count))
                self.left = table.slice(count) if count < len(table) else None
                if self.left:
                    break
        except (OSError, KeyError, pa.ArrowException) as error:
            raise ZooError(f"{self.path}: cannot be read ({error}); download it again") from None
        return [table.append_column("split", pa.array([self.path.stem] * len(table), pa.string())) for table in tables]


def _in_runs(folder: Path, runs: Sequence[range], size: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Return the arrays of runs of pairs; the networks of each stand in the files of their splits."""
    streams = [_Stream(path, max(1, BATCH // (8 * size))) for path in _files(folder)]
    for run in runs:
        table = pa.concat_tables([part for stream in streams for part in stream.until(run.stop)]).sort_by("pair")
        if table["pair"].to_pylist() != list(run):
            raise ZooError(f"{folder}: has not each of the pairs {run.start} to {run.stop - 1} once; download it again")
        yield {name: _numpy(table[name].combine_chunks()) for name in table.column_names}


def _numpy(values: pa.Array) -> NDArray[Any]:
    if pa.types.is_fixed_size_list(values.type):
        return values.flatten().to_numpy().reshape(len(values), values.type.list_size)
    if pa.types.is_string(values.type):
        return np.array(values.to_pylist(), str)
    return values.to_numpy(zero_copy_only=False)
