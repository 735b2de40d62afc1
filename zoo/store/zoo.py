"""Paired networks on disk, as a `Zoo`: rows at memory speed, what is known of each network, and networks to run.

All but running them works without the code of their architecture: the manifest says what rows and columns mean.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.errors import ZooError, nearest
from zoo.networks.parameters import ParameterLayout
from zoo.networks.stack import Stack
from zoo.store.building import build_module
from zoo.store.columns import CONSTANT, SPLITS, WEIGHTS, Column, Kind
from zoo.store.held import unpack_held
from zoo.store.manifest import File, Manifest
from zoo.store.shards import CONSTANTS, damaged, map_rows, read_column, read_constants, row_size
from zoo.treatments import Treated
from zoo.treatments.base import Held

Index = int | slice | Sequence[int] | NDArray[np.integer[Any]] | Tensor | None


class Zoo:
    """Paired networks on disk: rows, and what is known of each.

    Row `i` under every treatment is pair `i`. Files are opened when they are first read; a zoo can be pickled
    and used in data-loader workers.

    Arguments:
        folder: where it is.
        data_dir: folder of files that networks read when they run, such as a graph; most need none.

    Attributes:
        manifest: what it is.

    Raises:
        ZooError: if the folder holds none, it is incomplete, or its manifest, constants or the size of a shard are not
            what was written. `verify` compares the content of shards, too.
    """

    def __init__(self, folder: str | Path, data_dir: str | Path | None = None) -> None:
        self.folder, self.manifest = Path(folder), Manifest.read(Path(folder))
        self.data_dir = None if data_dir is None else Path(data_dir)
        self._maps: dict[tuple[str, str], np.memmap[Any, Any]] = {}
        self._treated: dict[str, Treated] = {}
        for file in self.manifest.files:
            path = self.folder / file.path
            if not path.is_file():
                raise ZooError(f"{path}: missing; restore it, or generate into the folder again")
            if path.stat().st_size != file.bytes:
                raise ZooError(
                    f"{path}: {path.stat().st_size} bytes instead of {file.bytes}; delete it and generate again"
                )
        for treatment in self.treatments:
            if missing := self.manifest.missing(treatment):
                raise ZooError(
                    f"{self.folder}: incomplete, {treatment} lacks pairs from {missing[0].start} on; "
                    "generate into the folder again to finish it"
                )
        self._held = {
            file.treatment: read_constants(self.folder, file) for file in self.manifest.files if not file.pairs
        }
        for treatment, held in self._held.items():
            self._check_held(treatment, held)

    def __reduce__(self) -> tuple[type["Zoo"], tuple[Path, Path | None]]:
        """Pickle the paths alone, never an open file."""
        return Zoo, (self.folder, self.data_dir)

    def __repr__(self) -> str:
        """Show name, size and treatments."""
        return f"Zoo({self.name!r}, {len(self)} pairs, treatments={list(self.treatments)})"

    def __len__(self) -> int:
        """How many pairs it has, the networks under each treatment."""
        return self.manifest.pairs

    @property
    def name(self) -> str:
        """The name of its recipe."""
        return self.manifest.name

    @property
    def origin(self) -> dict[str, str]:
        """Name and digest of the recipe, by which results say what they were taken on."""
        return {"name": self.name, "digest": self.manifest.digest}

    @property
    def treatments(self) -> tuple[str, ...]:
        """The names of its treatments."""
        return self.manifest.treatments

    def layout(self, treatment: str) -> ParameterLayout:
        """Return what the columns of a treatment's rows mean."""
        return self.treated(treatment).layout

    def treated(self, treatment: str, index: Index = None) -> Treated:
        """Return what networks under a treatment are, with the constants stored in the zoo.

        Arguments:
            treatment: its name.
            index: some networks. Without it, this is what all share; where each has masks or matrices of its own,
                all entries count as trainable then.

        Raises:
            ZooError: if there is no such treatment.
        """
        self.manifest.check_treatment(treatment, self.folder)
        if treatment not in self._treated:
            layout = ParameterLayout.from_json(self.manifest.layouts[treatment])
            self._treated[treatment] = self._treat(treatment, layout, self._held.get(treatment, {}), own=False)
        shared = self._treated[treatment]
        own = [name for name in CONSTANT if name in self.columns(treatment)]
        if index is None or not own:
            return shared
        numbers = np.atleast_1d(self._numbers(index))
        held = unpack_held({n: self.field(treatment, n)[numbers] for n in own}, shared.layout, shared.sites)
        return self._treat(treatment, shared.layout, held, own=True)

    def _treat(self, treatment: str, layout: ParameterLayout, held: Held, *, own: bool) -> Treated:
        build = partial(build_module, self.manifest, self.folder, treatment, held, own=own, data_dir=self.data_dir)
        return Treated(layout, self.manifest.sites[treatment], held, build, own)

    def columns(self, treatment: str) -> dict[str, Column]:
        """Return the columns of a treatment's networks by name, the weights included."""
        self.manifest.check_treatment(treatment, self.folder)
        return self.manifest.columns_of(treatment)

    def fields(self, treatment: str) -> tuple[str, ...]:
        """Return the names of what `field` reads: all columns but the weights."""
        return tuple(name for name, column in self.columns(treatment).items() if column.kind != "weights")

    def field(self, treatment: str, name: str) -> NDArray[Any]:
        """Return one column, its first dimension the pairs: `test_accuracy`, `curve_test_loss`, and so on.

        Raises:
            ZooError: if there is no such treatment or column.
        """
        columns = self.columns(treatment)
        if name not in self.fields(treatment):
            near = nearest(name, self.fields(treatment))
            raise ZooError(
                f"{self.folder}: {treatment} has no column {name!r}{near}; `fields({treatment!r})` lists them"
            )
        size = row_size(self.manifest, treatment)
        shards = self.manifest.of(treatment)
        return np.concatenate([read_column(self.folder, file, columns[name], size) for file in shards])

    def group(self, treatment: str, kind: Kind) -> dict[str, NDArray[Any]]:
        """Return the columns of a kind by name: `hyperparameter`, `metric`, `curve`, ..."""
        names = [name for name, column in self.columns(treatment).items() if column.kind == kind]
        return {name: self.field(treatment, name) for name in names}

    def index(self, treatment: str, split: str | None = None, *, diverged: bool = False) -> NDArray[np.int64]:
        """Return the networks of a split (default: all), those that diverged only when asked for.

        Raises:
            ZooError: if there is no such treatment or split.
        """
        if split is not None and split not in SPLITS:
            raise ZooError(f"split: there is no {split!r}{nearest(split, SPLITS)}; there are {', '.join(SPLITS)}")
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

        Raises:
            ZooError: if there is no such treatment, or initial weights are not known.
        """
        name = WEIGHTS[initial]
        if name not in self.columns(treatment):
            raise ZooError(f"{self.folder}: {treatment} has no {name}; they are not known of imported networks")
        numbers, shards, size = self._numbers(index), self.manifest.of(treatment), row_size(self.manifest, treatment)
        starts = np.array([file.pairs[0] for file in shards if file.pairs is not None])
        rows = np.empty((numbers.size, size), np.float32)
        which = np.searchsorted(starts, numbers.ravel(), side="right") - 1
        for row, shard, number in zip(rows, which, numbers.ravel(), strict=True):
            row[:] = self._map(shards[shard], name, size)[number - starts[shard]]
        return torch.from_numpy(rows.reshape(*numbers.shape, size))

    def stack(self, treatment: str, index: Index = None, *, initial: bool = False) -> Stack:
        """Return networks, ready to run; for this the architecture's code is needed.

        Raises:
            ZooError: if the architecture is not known here, or is not the one that the networks have.
        """
        numbers = np.atleast_1d(self._numbers(index))
        return self.treated(treatment, numbers).stack(self.rows(treatment, numbers, initial=initial))

    def module(self, treatment: str, i: int) -> nn.Module:
        """Return one network as an ordinary module, whose `state_dict` fits the plain architecture.

        A treatment's own activations are in the module, not in the `state_dict`: without them the network is another.
        """
        return self.stack(treatment, [i]).network(0)

    def _numbers(self, index: Index) -> NDArray[np.int64]:
        if isinstance(index, Tensor):
            index = index.numpy()
        return np.asarray(np.arange(len(self))[slice(None) if index is None else index])

    def _map(self, file: File, name: str, size: int) -> "np.memmap[Any, Any]":
        if (file.path, name) not in self._maps:
            self._maps[file.path, name] = map_rows(self.folder, file, name, size)
        return self._maps[file.path, name]

    def _check_held(self, treatment: str, held: Held) -> None:
        """See to it that what is added to rows is as long as they are."""
        size = row_size(self.manifest, treatment)
        for name in ("mask", "constants", "decay"):
            if name in held and held[name].shape != (size,):
                raise damaged(self.folder / treatment / CONSTANTS, f"{name} is not of shape ({size},)")
