"""Shards: HDF5 files whose arrays lie at the top level, each with the networks as its first dimension.

Weights are contiguous and uncompressed, so that they can be mapped and random rows read at memory speed; h5py's own
indexing is thirty times slower. `datasets.load_dataset("hdf5", data_files=...)` reads shards unchanged.
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
    """Write the networks of a run of pairs.

    Arguments:
        folder: of the zoo.
        manifest: that says which columns there are.
        treatment, pairs: whose networks.
        arrays: one for each column, its first dimension the networks.
        mode: in which they were trained.

    Raises:
        ZooError: if the arrays are not those of the columns, or cannot be written.
    """
    columns, size = manifest.columns_of(treatment), row_size(manifest, treatment)
    if columns.keys() != arrays.keys():
        raise ZooError(f"{folder}: {treatment}: columns differ in {sorted(columns.keys() ^ arrays.keys())}")
    image = io.BytesIO()  # whole in memory first: a full disk then is an ordinary error of an ordinary write
    with h5py.File(image, "w", track_order=True) as file:  # the order of columns is that of the manifest
        for name, column in columns.items():
            if fact := column.mismatch(arrays[name], len(pairs), size):
                raise ZooError(f"{folder}: {treatment}: {fact}")
            dtype = h5py.string_dtype() if column.dtype == "string" else column.dtype
            file.create_dataset(name, data=arrays[name].astype(dtype, copy=False))
    return _write(folder, f"{treatment}/{pairs.start:05d}.h5", image.getvalue(), treatment, pairs, mode)


def write_constants(folder: Path, treatment: str, held: Mapping[str, Tensor]) -> File:
    """Write what a treatment holds constant in the whole zoo."""
    return _write(folder, f"{treatment}/{CONSTANTS}", safetensors.torch.save(dict(held)), treatment)


def _write(
    folder: Path, path: str, content: bytes, treatment: str, pairs: range | None = None, mode: Mode | None = None
) -> File:
    write_whole(folder / path, content)
    bounds = None if pairs is None else (pairs.start, pairs.stop)
    checksum = sha256(content).hexdigest()
    return File(path=path, treatment=treatment, pairs=bounds, bytes=len(content), sha256=checksum, mode=mode)


def row_size(manifest: Manifest, treatment: str) -> int:
    """Return P, the length of a treatment's rows."""
    return int(sum(np.prod(parameter["shape"], dtype=np.int64) for parameter in manifest.layouts[treatment]))


def read_constants(folder: Path, file: File) -> dict[str, Tensor]:
    """Read what a treatment holds constant in the whole zoo, having compared the file with its checksum.

    Raises:
        ZooError: if it is not what the manifest lists.
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
        ZooError: if the shard cannot be read, or its array is not what the column says.
    """
    with open_shard(folder, file) as shard:
        dataset = _dataset(shard, column.name, folder / file.path)
        wanted = column.shape(networks_of(file), parameters)
        if dataset.shape != wanted:  # before anything is read: shapes are a stranger's
            raise damaged(folder / file.path, f"{column.name} has shape {dataset.shape}, not {wanted}")
        strings = h5py.check_string_dtype(dataset.dtype) is not None
        values = dataset.asstr()[...].astype(str) if strings else dataset[...]
    if fact := column.mismatch(values, networks_of(file), parameters):
        raise damaged(folder / file.path, fact)
    return values


def map_rows(folder: Path, file: File, name: str, parameters: int) -> "np.memmap[Any, Any]":
    """Map the float32 rows of a shard, having checked that they are what they should be.

    Raises:
        ZooError: if the shard cannot be read, or they are not.
    """
    path, shape = folder / file.path, (networks_of(file), parameters)
    with open_shard(folder, file) as shard:
        dataset = _dataset(shard, name, path)
        offset = dataset.id.get_offset()
        if dataset.shape != shape or dataset.dtype != np.float32 or offset is None:
            raise damaged(path, f"{name} is no contiguous float32 array of shape {shape}")
    return np.memmap(path, np.float32, "r", offset, shape)


def open_shard(folder: Path, file: File) -> h5py.File:
    """Open a shard to read."""
    try:
        return h5py.File(folder / file.path, "r")
    except OSError as error:
        raise damaged(folder / file.path, str(error)) from None


def networks_of(file: File) -> int:
    """Return how many networks a shard has."""
    assert file.pairs is not None
    return file.pairs[1] - file.pairs[0]


def damaged(path: Path, reason: str) -> ZooError:
    """Return the error that a file is not what it should be."""
    return ZooError(f"{path}: damaged ({reason}); delete it and generate again")


def _dataset(shard: h5py.File, name: str, path: Path) -> h5py.Dataset:
    dataset = shard.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise damaged(path, f"it has no {name}, which {path.parent.parent.name} says it has")
    if dataset.external is not None or dataset.is_virtual or dataset.file.id != shard.id:
        raise damaged(path, f"{name} refers to another file")
    return dataset
