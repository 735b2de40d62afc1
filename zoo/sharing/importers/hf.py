"""Imports what `export_zoo` wrote: the zoo is equal to the exported one, bit for bit."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from zoo.errors import ZooError
from zoo.files import check_empty, checksum_of, room_beside, write_whole
from zoo.progress import Progress, ignore
from zoo.sharing.configuration import arrow_type
from zoo.sharing.croissant import CROISSANT, checksums
from zoo.store.columns import SPLITS, Column
from zoo.store.manifest import MANIFEST, File, Manifest
from zoo.store.shards import row_size, write_shard
from zoo.store.zoo import Zoo

BATCH = 16 << 20  # bytes of weights that are read at once
UNPACKED = 4  # greatest ratio of a file's unpacked size to its size; it is near 1 for exports, which are not compressed


def import_zoo(source: str | Path, folder: str | Path, *, progress: Progress = ignore) -> Zoo:
    """Make the zoo that `export_zoo` exported, bit for bit, with one shard in memory at a time.

    Arguments:
        source: Folder of the data set.
        folder: New or empty folder for the zoo.
        progress: Called with the number of networks that were just written.

    Raises:
        ZooError: If a file is missing or differs from what `zoo.json` and `croissant.json` list, or the folder is not
            empty. Then nothing is left behind.
    """
    source, folder = Path(source), Path(folder)
    check_empty(folder)
    manifest = Manifest.read(source)
    _check_checksums(source)
    with room_beside(folder.absolute()) as temporary:
        part = temporary / "zoo"
        files = [_copy(source, part, file) for file in manifest.files if file.pairs is None]
        for treatment in manifest.treatments:
            files += _import_treatment(source, part, manifest, treatment, progress)
        manifest.model_copy(update={"files": tuple(files)}).write(part)
        part.replace(folder)
    return Zoo(folder)


def _copy(source: Path, folder: Path, file: File) -> File:
    """Check the checksum of a file of constants, and copy it."""
    path = source / file.path
    if not path.is_file() or path.stat().st_size != file.bytes or checksum_of(path) != file.sha256:
        raise ZooError(f"{path}: is not the file that {MANIFEST} lists; download it again")
    write_whole(folder / file.path, path.read_bytes())
    return file


def _check_checksums(source: Path) -> None:
    """Check that all Parquet files, including those of `metadata`, have the checksums that were recorded."""
    listed = checksums(source)
    for path in sorted(source.glob("*/*.parquet")):
        if listed.get(f"{path.parent.name}/{path.name}") != checksum_of(path):
            raise ZooError(f"{path}: is not the file that {CROISSANT} lists; download it again")


def _import_treatment(source: Path, folder: Path, manifest: Manifest, treatment: str, progress: Progress) -> list[File]:
    """Write the shards of a treatment, with the same pairs as in the exported zoo."""
    size, columns, files = row_size(manifest, treatment), manifest.columns_of(treatment), []
    _check_files(source / treatment, manifest.pairs, columns, size)
    shards = [(range(*shard.pairs), shard.mode) for shard in manifest.of(treatment) if shard.pairs and shard.mode]
    runs = _in_runs(source / treatment, [run for run, _ in shards], size)
    for (run, mode), arrays in zip(shards, runs, strict=True):
        files.append(write_shard(folder, manifest, treatment, run, arrays, mode))
        progress(len(run))
    return files


def _check_files(folder: Path, pairs: int, columns: Mapping[str, Column], size: int) -> None:
    """Check the files of a treatment before they are read: their columns, their unpacked size, and their networks."""
    networks = 0
    for path in _files(folder):
        try:
            file, schema = pq.read_metadata(path), pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise ZooError(f"{path}: cannot be read ({error}); download it again") from None
        for name, column in columns.items():
            wanted = arrow_type(column, size)
            if name != "split" and (name not in schema.names or schema.field(name).type != wanted):
                raise ZooError(f"{path}: {name} is not a column of type {wanted}; download it again")
        unpacked = sum(file.row_group(group).total_byte_size for group in range(file.num_row_groups))
        if unpacked > UNPACKED * path.stat().st_size:
            raise ZooError(f"{path}: unpacks to {unpacked / 1e9:.1f} GB, which is not an export; download it again")
        networks += file.num_rows
    if networks != pairs:
        raise ZooError(f"{folder}: has {networks:,} networks instead of {pairs:,}; download it again")


def _files(folder: Path) -> list[Path]:
    return [path for split in SPLITS if (path := folder / f"{split}.parquet").is_file()]


class _Stream:
    """The networks of a file in the order of their pairs, which are read in batches."""

    def __init__(self, path: Path, rows: int) -> None:
        self.path = path
        file = pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)  # by default all of it would be read at once
        self.batches = map(pa.Table.from_batches, ([batch] for batch in file.iter_batches(rows)))
        self.left: pa.Table | None = None

    def until(self, pair: int) -> list[pa.Table]:
        """Return the next networks, up to those of a pair, which is not included."""
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
    """Yield the arrays of each range of pairs, whose networks are spread over the files of the splits."""
    streams = [_Stream(path, max(1, BATCH // (8 * size))) for path in _files(folder)]
    for run in runs:
        table = pa.concat_tables([part for stream in streams for part in stream.until(run.stop)]).sort_by("pair")
        if table["pair"].to_pylist() != list(run):
            fact = f"does not have each of the pairs {run.start} to {run.stop - 1} once"
            raise ZooError(f"{folder}: {fact}; download it again")
        yield {name: _numpy(table[name].combine_chunks()) for name in table.column_names}


def _numpy(values: pa.Array) -> NDArray[Any]:
    if pa.types.is_fixed_size_list(values.type):
        return values.flatten().to_numpy().reshape(len(values), values.type.list_size)
    if pa.types.is_string(values.type):
        return np.array(values.to_pylist(), str)
    return values.to_numpy(zero_copy_only=False)
