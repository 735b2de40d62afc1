"""Reads the files of a zoo: its manifest, its columns, its rows, and the constants of its treatments."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from zoo.errors import ZooError, nearest
from zoo.networks.architectures import Architecture, provided, register
from zoo.networks.parameters import ParameterLayout
from zoo.store.building import build_module
from zoo.store.columns import CONSTANT
from zoo.store.manifest import File, Manifest
from zoo.store.shards import CONSTANTS, damaged, map_rows, read_column, read_constants, row_size
from zoo.stored import digest_of
from zoo.treatments import Treated
from zoo.treatments.base import Held


class Store:
    """The files of a zoo. A shard is opened when it is first read, and is never pickled.

    Arguments:
        folder: Folder of the zoo.
        data_dir: Folder of files that networks read when they run, such as a graph. Most networks read none.

    Attributes:
        manifest: Content of `zoo.json`.

    Raises:
        ZooError: If the folder is not a zoo, the zoo is incomplete, or its manifest, its constants or the size of a
            shard differ from what was written. `verify` also compares the content of shards.
    """

    def __init__(self, folder: str | Path, data_dir: str | Path | None = None) -> None:
        self.folder, self.manifest = Path(folder), Manifest.read(Path(folder))
        self.data_dir = None if data_dir is None else Path(data_dir)
        self._columns: dict[tuple[str, str], NDArray[Any]] = {}
        self._maps: dict[tuple[str, str], np.memmap[Any, Any]] = {}
        self._treated: dict[str, Treated] = {}
        for file in self.manifest.files:
            path = self.folder / file.path
            if not path.is_file():
                raise ZooError(f"{path}: missing; restore it, or generate the zoo again in the same folder")
            if path.stat().st_size != file.bytes:
                raise ZooError(
                    f"{path}: {path.stat().st_size} bytes instead of {file.bytes}; delete it and generate again"
                )
        for treatment in self.treatments:
            if missing := self.manifest.missing(treatment):
                raise ZooError(
                    f"{self.folder}: incomplete, {treatment} lacks pairs from {missing[0].start} on; "
                    "run the same `generate` again to complete it"
                )
        self._held = {
            file.treatment: read_constants(self.folder, file) for file in self.manifest.files if not file.pairs
        }
        for treatment, held in self._held.items():
            self._check_held(treatment, held)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the paths, never an open file, and your own architecture by reference, for workers to import."""
        values = self.manifest.recipe.get("architecture")
        name = str(values.get("name")) if isinstance(values, dict) else ""
        return _reopen, (type(self), self.folder, self.data_dir, name, provided(name))

    def __len__(self) -> int:
        """Return the number of pairs, which is that of networks of each treatment, including diverged ones."""
        return self.manifest.pairs

    @property
    def name(self) -> str:
        """Name of the zoo, which is that of its recipe."""
        return self.manifest.name

    @property
    def origin(self) -> dict[str, str]:
        """Name and digest of the recipe, as results record them."""
        return {"name": self.name, "digest": self.manifest.digest}

    def digest(self, treatments: Iterable[str]) -> str:
        """Return the digest of the recipe with only some of its treatments; adding others does not change it.

        Arguments:
            treatments: Names of the treatments.

        Raises:
            ZooError: If there is no such treatment.
        """
        chosen = {}
        for name in treatments:
            self.manifest.check_treatment(name, self.folder)
            chosen[name] = self.manifest.recipe["treatments"][name]
        return digest_of({**self.manifest.recipe, "treatments": chosen})

    @property
    def treatments(self) -> tuple[str, ...]:
        """Names of the treatments."""
        return self.manifest.treatments

    def column(self, treatment: str, name: str) -> NDArray[Any]:
        """Return a read-only column of all networks of a treatment: row `i` is that of pair `i`.

        It includes networks that diverged, which `Zoo.networks(treatment)[name]` leaves out.

        Raises:
            ZooError: If there is no such treatment or column.
        """
        self.manifest.check_treatment(treatment, self.folder)
        columns = {n: c for n, c in self.manifest.columns_of(treatment).items() if c.kind != "weights"}
        if name not in columns:
            near, known = nearest(name, columns), ", ".join(columns)
            raise ZooError(f"{self.folder}: {treatment} has no column {name!r}{near}; it has {known}")
        if (treatment, name) not in self._columns:
            size, shards = row_size(self.manifest, treatment), self.manifest.of(treatment)
            values = np.concatenate([read_column(self.folder, file, columns[name], size) for file in shards])
            values.setflags(write=False)
            if name in CONSTANT:  # not kept in memory, since it is as large as the weights
                return values
            self._columns[treatment, name] = values
        return self._columns[treatment, name]

    def read_rows(
        self, treatment: str, name: str, pairs: NDArray[np.int64]
    ) -> Float[np.ndarray, "networks parameters"]:
        """Return rows of pairs, such as `weights` or `initial_weights`, from memory-mapped files."""
        shards, size = self.manifest.of(treatment), row_size(self.manifest, treatment)
        starts = np.array([file.pairs[0] for file in shards if file.pairs is not None])
        rows = np.empty((len(pairs), size), np.float32)
        which = np.searchsorted(starts, pairs, side="right") - 1
        for row, shard, number in zip(rows, which, pairs, strict=True):
            row[:] = self._map(shards[shard], name, size)[number - starts[shard]]
        return rows

    def shared(self, treatment: str) -> Treated:
        """Return the architecture under a treatment, with the constants that all of its networks share.

        Constants that differ between networks are left out, so all entries count as trainable. `Networks.treated` has
        them.

        Raises:
            ZooError: If there is no such treatment.
        """
        self.manifest.check_treatment(treatment, self.folder)
        if treatment not in self._treated:
            self._treated[treatment] = self.treat(treatment, self._held.get(treatment, {}), own=False)
        return self._treated[treatment]

    def treat(self, treatment: str, held: Held, *, own: bool) -> Treated:
        """Return the architecture under a treatment, with given constants.

        Arguments:
            treatment: Name of the treatment.
            held: Constants, see `zoo.treatments.base.Treatment.hold`.
            own: Whether the first dimension of each constant is the networks.
        """
        layout = ParameterLayout.from_json(self.manifest.layouts[treatment])
        build = partial(build_module, self.manifest, self.folder, treatment, held, own=own, data_dir=self.data_dir)
        return Treated(layout, self.manifest.sites[treatment], held, build, own)

    def _map(self, file: File, name: str, size: int) -> "np.memmap[Any, Any]":
        if (file.path, name) not in self._maps:
            self._maps[file.path, name] = map_rows(self.folder, file, name, size)
        return self._maps[file.path, name]

    def _check_held(self, treatment: str, held: Held) -> None:
        """Check that mask, constants and decay have the length of a row."""
        size = row_size(self.manifest, treatment)
        for name in ("mask", "constants", "decay"):
            if name in held and held[name].shape != (size,):
                raise damaged(self.folder / treatment / CONSTANTS, f"{name} does not have the shape ({size},)")


def _reopen(
    kind: type[Store], folder: Path, data_dir: Path | None, name: str, architecture: type[Architecture] | None
) -> Store:
    """Unpickle a zoo, and register its architecture."""
    if architecture is not None:
        register(architecture, name)
    return kind(folder, data_dir)
