"""Shards: HDF5 files with one array for each column, whose first dimension is the networks.

Weights are contiguous and not compressed, so that they can be memory-mapped and random rows are read at the speed of
memory. Indexing with h5py is thirty times slower. `datasets.load_dataset("hdf5", data_files=...)` can read shards.
"""

import io
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import safetensors
import safetensors.torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import ZooError
from zoo.files import write_whole
from zoo.store.columns import Column
from zoo.store.manifest import File, Manifest, Mode

CONSTANTS = "constants.safetensors"


def write_shard(
    folder: Path, manifest: Manifest, treatment: str, pairs: range, arrays: Mapping[str, NDArray[Any]], mode: Mode
) -> File:
    """Write the networks of consecutive pairs under a treatment.

    Arguments:
        folder: Folder of the zoo.
        manifest: Manifest, which lists the columns.
        treatment: Name of the treatment.
        pairs: Numbers of the pairs.
        arrays: Values of each column, `(pairs, ...)`.
        mode: Mode in which the networks were trained.

    Raises:
        ZooError: If the arrays do not fit the columns, or the file cannot be written.
    """
    columns, size = manifest.columns_of(treatment), row_size(manifest, treatment)
    if columns.keys() != arrays.keys():
        raise ZooError(f"{folder}: {treatment}: columns differ in {sorted(columns.keys() ^ arrays.keys())}")
    image = io.BytesIO()  # in memory first, so that a full disk raises an ordinary `OSError` and not one of HDF5
    with h5py.File(image, "w", track_order=True) as file:  # keeps the columns in the order of the manifest
        for name, column in columns.items():
            if fact := column.mismatch(arrays[name], len(pairs), size):
                raise ZooError(f"{folder}: {treatment}: {fact}")
            dtype = h5py.string_dtype() if column.dtype == "string" else column.dtype
            file.create_dataset(name, data=arrays[name].astype(dtype, copy=False))
    return _write(folder, f"{treatment}/{pairs.start:05d}.h5", image.getvalue(), treatment, pairs, mode)


def write_constants(folder: Path, treatment: str, held: Mapping[str, Tensor]) -> File:
    """Write the constants that all networks of a treatment share."""
    return _write(folder, f"{treatment}/{CONSTANTS}", safetensors.torch.save(dict(held)), treatment)


def _write(
    folder: Path, path: str, content: bytes, treatment: str, pairs: range | None = None, mode: Mode | None = None
) -> File:
    write_whole(folder / path, content)
    bounds = None if pairs is None else (pairs.start, pairs.stop)
    checksum = sha256(content).hexdigest()
    return File(path=path, treatment=treatment, pairs=bounds, bytes=len(content), sha256=checksum, mode=mode)


def row_size(manifest: Manifest, treatment: str) -> int:
    """Return the length P of the rows of a treatment."""
    return int(sum(np.prod(parameter["shape"], dtype=np.int64) for parameter in manifest.layouts[treatment]))


def read_constants(folder: Path, file: File) -> dict[str, Tensor]:
    """Check the checksum of a file of constants, and read it.

    Raises:
        ZooError: If the file differs from what the manifest lists.
    """
    path = folder / file.path
    content = path.read_bytes()
    if sha256(content).hexdigest() != file.sha256:
        raise damaged(path, "its checksum differs")
    try:
        return dict(safetensors.torch.load(content))
    except safetensors.SafetensorError as error:
        raise damaged(path, str(error)) from None


def read_column(folder: Path, file: File, column: Column, parameters: int) -> NDArray[Any]:
    """Read one column of a shard.

    Raises:
        ZooError: If the shard cannot be read, or type or shape of the array differ from those of the column.
    """
    with open_shard(folder, file) as shard:
        dataset = _dataset(shard, column.name, folder / file.path)
        wanted = column.shape(networks_of(file), parameters)
        if dataset.shape != wanted:  # checked before reading, since a forged shape could exceed the memory
            raise damaged(folder / file.path, f"{column.name} has shape {dataset.shape}, not {wanted}")
        strings = h5py.check_string_dtype(dataset.dtype) is not None
        values = dataset.asstr()[...].astype(str) if strings else dataset[...]
    if fact := column.mismatch(values, networks_of(file), parameters):
        raise damaged(folder / file.path, fact)
    return values


def map_rows(folder: Path, file: File, name: str, parameters: int) -> "np.memmap[Any, Any]":
    """Map the float32 rows of a shard into memory.

    Raises:
        ZooError: If the shard cannot be read, or the rows are not a contiguous float32 array of the right shape.
    """
    path, shape = folder / file.path, (networks_of(file), parameters)
    with open_shard(folder, file) as shard:
        dataset = _dataset(shard, name, path)
        offset = dataset.id.get_offset()
        if dataset.shape != shape or dataset.dtype != np.float32 or offset is None:
            raise damaged(path, f"{name} is not a contiguous float32 array of shape {shape}")
    return np.memmap(path, np.float32, "r", offset, shape)


def open_shard(folder: Path, file: File) -> h5py.File:
    """Open a shard for reading.

    Raises:
        ZooError: If it is not a valid HDF5 file.
    """
    try:
        return h5py.File(folder / file.path, "r")
    except OSError as error:
        raise damaged(folder / file.path, str(error)) from None


def networks_of(file: File) -> int:
    """Return the number of networks in a shard."""
    assert file.pairs is not None
    return file.pairs[1] - file.pairs[0]


def damaged(path: Path, reason: str) -> ZooError:
    """Return the error for a damaged file."""
    return ZooError(f"{path}: damaged ({reason}); delete it and generate again")


def _dataset(shard: h5py.File, name: str, path: Path) -> h5py.Dataset:
    dataset = shard.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise damaged(path, f"it has no {name}, which the manifest of {path.parent.parent.name} lists")
    if dataset.external is not None or dataset.is_virtual or dataset.file.id != shard.id:
        raise damaged(path, f"{name} refers to another file")
    return dataset
