"""Loads data sets as tensors: both splits, standardised.

Every channel is standardised by the whole training set, so it does not matter whether pixels are stored as 0 to 255 or
as 0 to 1. No file is unpickled.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.sources import DATASETS, Split, Splits
from zoo.errors import DataError, nearest
from zoo.seeds import rng_for


@dataclass(frozen=True)
class Data:
    """A data set, split into training and test examples, and standardised.

    Arguments:
        name: Name of the data set, a key of `DATASETS`.
        train_x, test_x: Examples of each split, `(n, *shape)`.
        train_y, test_y: Labels of each split, `(n,)`, from 0 to `classes - 1`.
        classes: Number of classes.
        moments: Mean and standard deviation of each channel, by which examples were standardised, each `(channels,)`.
            For pixels that are stored as bytes, they are those of pixels from 0 to 1.
        outside: Test examples of another data set, standardised by the moments of this one.
        folder: Folder in which `load_data` looked for files, None if it used the Hub. Networks that read files
            themselves, such as a graph, look there as well.
    """

    name: str
    train_x: Float[Tensor, "train *shape"]
    train_y: Int[Tensor, " train"]
    test_x: Float[Tensor, "test *shape"]
    test_y: Int[Tensor, " test"]
    classes: int
    moments: tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]] | None = None
    outside: Float[Tensor, "others *shape"] | None = None
    folder: Path | None = None

    @property
    def digest(self) -> str:
        """Digest of all examples and labels of both splits: blake2b, 16 bytes in hexadecimal."""
        total = blake2b(digest_size=16)
        for tensor in (self.train_x, self.train_y, self.test_x, self.test_y):
            total.update(tensor.flatten().view(torch.uint8).cpu().numpy().data)
        return total.hexdigest()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train_x.shape[1:])

    def map_examples(self, change: Callable[[Tensor], Tensor]) -> "Data":
        """Return the data after `change` was applied to all examples, including those of `outside`."""
        outside = None if self.outside is None else change(self.outside)
        return replace(self, train_x=change(self.train_x), test_x=change(self.test_x), outside=outside)

    def to(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "Data":
        """Return a copy on a device, with examples of type `dtype`; labels remain int64."""
        moved = self.map_examples(lambda x: x.to(device, dtype))
        return replace(moved, train_y=self.train_y.to(device), test_y=self.test_y.to(device))


class _Scale(NamedTuple):
    """A standardisation: subtracts `mean` from examples and divides them by `deviation`."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def of(cls, train: Split) -> "_Scale":
        """Return the standardisation by the mean and deviation of each channel of a training set."""
        x = train.x.reshape(*train.x.shape[:2], -1)
        count = x.shape[0] * x.shape[2]
        # Sums of bytes and of their squares are exact in float64, so the digest is the same on every machine.
        mean = np.einsum("ncl->c", x, dtype=np.float64) / count
        square = np.einsum("ncl,ncl->c", x, x, dtype=np.float64) / count
        deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
        if not (deviation > 0).all():
            raise DataError(f"{train.place}: a channel has the same value everywhere; download the data again")
        shape = (-1, *[1] * (train.x.ndim - 2))
        return cls(mean.astype(np.float32).reshape(shape), deviation.astype(np.float32).reshape(shape))

    def __call__(self, x: NDArray[Any]) -> Tensor:
        numbers = x.astype(np.float32, order="C")
        numbers -= self.mean
        numbers /= self.deviation
        return torch.from_numpy(numbers)

    def moments(self, white: int) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of each channel, `(channels,)`, as fractions of the value of a white pixel."""
        return torch.from_numpy(self.mean.flatten() / white), torch.from_numpy(self.deviation.flatten() / white)


_UNCHANGED = _Scale(np.zeros(1, np.float32), np.ones(1, np.float32))


def load_data(
    name: str, *, data_dir: str | Path | None = None, train_limit: int | None = None, outside: str | None = None
) -> Data:
    """Load a data set, each channel standardised by the mean and deviation of its whole training set.

    Arguments:
        name: Name of the data set, a key of `DATASETS`.
        data_dir: Folder with the files, either in itself or in its subfolder `name`; without it, the data come from the
            Hub.
        train_limit: Number of training examples to keep, by default all. They are a fixed random choice, and a larger
            limit keeps those of a smaller one.
        outside: Name of another data set with examples of the same shape, whose test examples become `Data.outside`.
            Its files are in the subfolder of `data_dir` with its name.

    Raises:
        DataError: If a name is unknown, the data cannot be found or are damaged, or `train_limit` or `outside` do not
            fit.
    """
    _check_names(name, outside)
    source, folder = DATASETS[name], None if data_dir is None else Path(data_dir)
    train, test = _read(name, () if folder is None else (folder / name, folder))
    scale = _Scale.of(train) if source.standardised else _UNCHANGED
    others = None if outside is None else _outside(outside, folder, test)
    kept = _kept(name, len(train.y), train_limit)
    return Data(
        name,
        scale(train.x[kept]),
        torch.from_numpy(train.y[kept].astype(np.int64)),
        scale(test.x),
        torch.from_numpy(test.y.astype(np.int64)),
        source.classes,
        moments=scale.moments(255 if train.x.dtype == np.uint8 else 1) if source.standardised else None,
        outside=None if others is None else scale(others),
        folder=folder,
    )


def _check_names(name: str, outside: str | None) -> None:
    """Raise a `DataError` unless both names are known and their examples can be compared."""
    for field, given in (("data", name), ("outside", outside)):
        if given is not None and given not in DATASETS:
            near = nearest(given.lower(), DATASETS)
            raise DataError(f"{field}: unknown data set {given!r}{near}; use one of {', '.join(DATASETS)}")
    if outside is None:
        return
    if outside == name or not (DATASETS[name].standardised and DATASETS[outside].standardised):
        raise DataError(f"outside: {outside} cannot be compared with {name}; choose another data set of images")


def _read(name: str, folders: tuple[Path, ...]) -> Splits:
    train, test = DATASETS[name].read(name, folders)
    _check(train, test, DATASETS[name].classes)
    return train, test


def _outside(name: str, folder: Path | None, test: Split) -> NDArray[Any]:
    """Return the test examples of another data set, after a check that their shape and type are those of `test`."""
    x = _read(name, () if folder is None else (folder / name,))[1].x
    if (x.shape[1:], x.dtype) != (test.x.shape[1:], test.x.dtype):
        found, wanted = (f"{examples.shape[1:]} of {examples.dtype}" for examples in (x, test.x))
        raise DataError(f"outside: examples of {name} are {found}, not {wanted}; choose a data set like the zoo's")
    return x


def _kept(name: str, count: int, train_limit: int | None) -> NDArray[np.int64]:
    """Return the indices of the training examples to keep: all, or the first ones of a random order."""
    if train_limit is None:
        return np.arange(count)
    if not 0 < train_limit <= count:
        raise DataError(f"train_limit {train_limit}: {name} has {count} training examples; choose 1 to {count}")
    return rng_for(0, f"train_limit/{name}").permutation(count)[:train_limit]


def _check(train: Split, test: Split, classes: int) -> None:
    """Raise a `DataError` unless every split has examples of one shape and a label from 0 to classes - 1 for each."""
    for place, x, y in (train, test):
        if x.dtype.kind not in "uif" or y.dtype.kind not in "ui" or y.ndim != 1:
            raise DataError(f"{place}: needs images of one size and whole-number labels; download the data again")
        if len(x) != len(y) or not len(x):
            raise DataError(f"{place}: {len(y)} labels for {len(x)} images; use files of one download")
        if y.min() < 0 or y.max() >= classes:
            fact = f"labels run from {y.min()} to {y.max()}, not 0 to {classes - 1}"
            raise DataError(f"{place}: {fact}; download the data again")
    if train.x.shape[1:] != test.x.shape[1:]:
        shapes = f"{train.x.shape[1:]} in training and {test.x.shape[1:]} in test"
        raise DataError(f"{test.place}: examples are {shapes}; use files of one download")
