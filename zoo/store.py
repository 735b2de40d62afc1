"""Zoos on disk: HDF5 shards whose arrays have the networks as first dimension, and the `Zoo` that reads them.

Weights are contiguous and uncompressed, so that they can be mapped and random rows read at memory speed; h5py's
own indexing is thirty times slower. `datasets.load_dataset("hdf5", data_files=...)` reads a shard as it stands.
"""

import io
from collections.abc import Mapping, Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.manifest import File, Manifest, Mode, write_whole
from zoo.recipe import Recipe
from zoo.stack import Stack
from zoo.treatments.base import Held, Treated

CONSTANTS = "constants.safetensors"
WEIGHTS = ("weights", "initial_weights")
Index = int | slice | Sequence[int] | NDArray[np.integer[Any]] | Tensor | None


def write_shard(folder: Path, treatment: str, pairs: range, arrays: Mapping[str, NDArray[Any]], mode: Mode) -> File:
    """Write the networks of a run of pairs; each array's first dimension is the networks."""
    image = io.BytesIO()  # whole in memory first: a full disk then is an ordinary error of an ordinary write
    with h5py.File(image, "w") as file:
        for name, values in arrays.items():
            dtype = h5py.string_dtype() if values.dtype.kind == "U" else values.dtype
            file.create_dataset(name, data=values.astype(dtype, copy=False))
    return _write(folder, f"{treatment}/{pairs.start:05d}.h5", image.getvalue(), treatment, pairs, mode)


def write_constants(folder: Path, treatment: str, held: Held) -> File:
    """Write what a treatment holds constant."""
    return _write(folder, f"{treatment}/{CONSTANTS}", safetensors.torch.save(held), treatment)


def _write(
    folder: Path, path: str, content: bytes, treatment: str, pairs: range | None = None, mode: Mode | None = None
) -> File:
    write_whole(folder / path, content)
    bounds = None if pairs is None else (pairs.start, pairs.stop)
    checksum = sha256(content).hexdigest()
    return File(path=path, treatment=treatment, pairs=bounds, bytes=len(content), sha256=checksum, mode=mode)


def open_zoo(folder: str | Path) -> "Zoo":
    """Open a zoo.

    Arguments:
        folder: where it is; or `hf://owner/name` or `hf://owner/name@revision`, see `zoo.remote.open_remote`.

    Raises:
        ZooError: if the folder holds none, it is incomplete, or a file is missing or has changed its size.
    """
    address = Path(folder).as_posix()  # which leaves one slash of two
    if address.partition("/")[0] == "hf:":
        from zoo.remote import open_remote

        return open_remote(address)
    return Zoo(Path(folder))


class Zoo:
    """Paired networks on disk: rows, and what is known of each.

    Row `i` under every treatment is pair `i`. Files are opened when they are first read; a zoo can be pickled
    and used in data-loader workers.

    Attributes:
        folder: where it is.
        manifest: what it is.
        recipe: that made it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, Manifest.read(folder)
        self.recipe: Recipe = self.manifest.recipe
        self._maps: dict[tuple[str, str], np.memmap[Any, Any]] = {}
        self._treated: dict[str, Treated] = {}
        for file in self.manifest.files:
            path = folder / file.path
            if not path.is_file():
                raise ZooError(f"{path}: missing; restore it, or generate into the folder again")
            if path.stat().st_size != file.bytes:
                raise ZooError(
                    f"{path}: {path.stat().st_size} bytes instead of {file.bytes}; delete it and generate again"
                )
        for treatment in self.treatments:
            if missing := self.manifest.missing(treatment):
                raise ZooError(
                    f"{folder}: incomplete, {treatment} lacks pairs from {missing[0].start} on; "
                    "generate into the folder again to finish it"
                )

    def __reduce__(self) -> tuple[type["Zoo"], tuple[Path]]:
        """Pickle the path alone, never an open file."""
        return Zoo, (self.folder,)

    def __repr__(self) -> str:
        """Show name, size and treatments."""
        return f"Zoo({self.recipe.name!r}, {len(self)} pairs, treatments={list(self.treatments)})"

    def __len__(self) -> int:
        """How many pairs it has, the networks under each treatment."""
        return self.recipe.pairs

    @property
    def origin(self) -> dict[str, str]:
        """Name and digest of the recipe, by which results say what they were taken on."""
        return {"name": self.recipe.name, "digest": self.manifest.digest}

    @property
    def treatments(self) -> tuple[str, ...]:
        """The names of its treatments."""
        return tuple(self.recipe.treatments)

    def treated(self, treatment: str) -> Treated:
        """Return the architecture under a treatment, with the constants stored in the zoo."""
        if treatment not in self._treated:
            self._shards(treatment)
            path = self.folder / treatment / CONSTANTS
            listed = any(file.path == f"{treatment}/{CONSTANTS}" for file in self.manifest.files)
            try:
                held = safetensors.torch.load_file(path) if listed else {}
            except safetensors.SafetensorError as error:
                raise _damaged(path, str(error)) from None
            wanted = self.recipe.treat(treatment).held
            if {name: t.shape for name, t in held.items()} != {name: t.shape for name, t in wanted.items()}:
                raise _damaged(path, f"it does not hold what {treatment} wants, {', '.join(wanted)}")
            self._treated[treatment] = self.recipe.treat(treatment, held)
        return self._treated[treatment]

    def fields(self, treatment: str) -> tuple[str, ...]:
        """Return the names of what `field` reads."""
        names: list[str] = []
        with self._open(self._shards(treatment)[0]) as shard:
            shard.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        return tuple(name for name in names if name not in WEIGHTS)

    def field(self, treatment: str, name: str) -> NDArray[Any]:
        """Return one array, its first dimension the pairs: `metrics/test_accuracy`, `curves/test_loss`, and so on.

        Raises:
            ZooError: if there is no such treatment or field.
        """
        parts = []
        for file in self._shards(treatment):
            with self._open(file) as shard:
                values = _dataset(shard, name, file)
                parts.append(values.asstr()[...] if h5py.check_string_dtype(values.dtype) else values[...])
        width = max((part.shape[1] for part in parts if part.ndim == 2), default=0)
        # A shard's curves are as long as its longest training.
        padded = [_pad(part, width) if part.ndim == 2 else part for part in parts]
        values = np.concatenate(padded)
        return values.astype(str) if values.dtype == object else values

    def group(self, treatment: str, name: str) -> dict[str, NDArray[Any]]:
        """Return the fields of a group, `hyperparameters`, `metrics` or `curves`, by their names within it."""
        prefix = f"{name}/"
        names = [field for field in self.fields(treatment) if field.startswith(prefix)]
        return {field.removeprefix(prefix): self.field(treatment, field) for field in names}

    def index(
        self,
        treatment: str,
        split: Literal["train", "validation", "test"] | None = None,
        *,
        diverged: bool = False,
    ) -> NDArray[np.int64]:
        """Return the networks of a split (default: all), those that diverged only when asked for."""
        keep = np.ones(len(self), bool)
        if split is not None:
            keep &= self.field(treatment, "split") == split
        if not diverged:
            keep &= self.field(treatment, "status") == "trained"
        return np.flatnonzero(keep)

    def rows(
        self, treatment: str, index: Index = None, *, initial: bool = False
    ) -> Float[Tensor, "*networks parameters"]:
        """Read weights as the networks use them, at memory speed.

        Arguments:
            treatment: its name.
            index: one network, some, or all.
            initial: read the weights at the start of the training instead.
        """
        if isinstance(index, Tensor):
            index = index.numpy()
        numbers = np.arange(len(self))[slice(None) if index is None else index]
        shards = self._shards(treatment)
        starts = np.array([file.pairs[0] for file in shards if file.pairs is not None])
        rows = np.empty((numbers.size, self.treated(treatment).layout.size), np.float32)
        which = np.searchsorted(starts, numbers.ravel(), side="right") - 1
        for row, shard, number in zip(rows, which, numbers.ravel(), strict=True):
            row[:] = self._map(shards[shard], WEIGHTS[initial])[number - starts[shard]]
        return torch.from_numpy(rows.reshape(*numbers.shape, rows.shape[1]))

    def stack(self, treatment: str, index: Index = None, *, initial: bool = False) -> Stack:
        """Return networks, ready to run."""
        treated = self.treated(treatment)
        rows = self.rows(treatment, index, initial=initial)
        return Stack(rows.view(-1, treated.layout.size), treated.module, treated.layout)

    def module(self, treatment: str, i: int) -> nn.Module:
        """Return one network as an ordinary module, whose `state_dict` fits the plain architecture."""
        return self.stack(treatment, [i]).network(0)

    def _shards(self, treatment: str) -> list[File]:
        if treatment not in self.recipe.treatments:
            raise ZooError(f"{self.folder}: has no treatment {treatment!r}; it has {', '.join(self.treatments)}")
        return self.manifest.of(treatment)

    def _open(self, file: File) -> h5py.File:
        try:
            return h5py.File(self.folder / file.path, "r")
        except OSError as error:
            raise _damaged(self.folder / file.path, str(error)) from None

    def _map(self, file: File, name: str) -> "np.memmap[Any, Any]":
        """Map the rows of a shard, having checked that they are what they should be."""
        if (file.path, name) not in self._maps:
            path = self.folder / file.path
            assert file.pairs is not None
            shape = (file.pairs[1] - file.pairs[0], self.treated(file.treatment).layout.size)
            with self._open(file) as shard:
                dataset = _dataset(shard, name, file)
                offset = dataset.id.get_offset()
                if dataset.shape != shape or dataset.dtype != np.float32 or offset is None:
                    raise _damaged(path, f"{name} is no contiguous float32 array of shape {shape}")
            self._maps[file.path, name] = np.memmap(path, np.float32, "r", offset, shape)
        return self._maps[file.path, name]


def _dataset(shard: h5py.File, name: str, file: File) -> h5py.Dataset:
    dataset = shard.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise ZooError(f"{file.path}: has no field {name!r}; `fields({file.treatment!r})` lists them")
    if dataset.external is not None or dataset.is_virtual or dataset.file.id != shard.id:
        raise _damaged(Path(file.path), f"{name} refers to another file")
    return dataset


def _damaged(path: Path, reason: str) -> ZooError:
    return ZooError(f"{path}: damaged ({reason}); delete it and generate again")


def _pad(values: NDArray[Any], width: int) -> NDArray[Any]:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=np.nan)


def checksum_of(path: Path) -> str:
    """Return the checksum of a file, as manifests record it."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
