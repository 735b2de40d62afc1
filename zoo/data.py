"""Data sets as tensors: digits from scikit-learn, others from the Hugging Face Hub or from files in a folder.

Every channel is standardised over the whole training set, which makes it immaterial whether pixels came as
0 to 255 or as 0 to 1. No file is unpickled.
"""

import gzip
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import DataError, nearest
from zoo.graphs import GRAPHS, Graph, graph_of
from zoo.seeds import rng_for

SAVED = "dataset_dict.json"  # what marks a folder written by `DatasetDict.save_to_disk`
IDX_FILES = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
CIFAR_FILES = (tuple(f"data_batch_{batch}.bin" for batch in range(1, 6)), ("test_batch.bin",))
CIFAR_FOLDER = "cifar-10-batches-bin"  # into which its archive unpacks
CIFAR_RECORD = 1 + 3 * 32 * 32  # bytes: a label, then red, green and blue


@dataclass(frozen=True)
class Data:
    """A data set, split and standardised: examples `(n, *shape)` and their labels `(n,)` in 0 to classes - 1.

    `moments` are mean and deviation of each channel `(channels,)`, by which examples were standardised; of pixels that
    came as bytes, those from 0 to 1. `outside` are examples of another data set, standardised by the same.
    """

    name: str
    train_x: Float[Tensor, "train *shape"]
    train_y: Int[Tensor, " train"]
    test_x: Float[Tensor, "test *shape"]
    test_y: Int[Tensor, " test"]
    classes: int
    moments: tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]] | None = None
    outside: Float[Tensor, "others *shape"] | None = None

    @property
    def digest(self) -> str:
        """The blake2b digest of all examples and labels of both splits, 16 bytes in hexadecimal."""
        total = blake2b(digest_size=16)
        for tensor in (self.train_x, self.train_y, self.test_x, self.test_y):
            total.update(tensor.flatten().view(torch.uint8).cpu().numpy().data)
        return total.hexdigest()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.train_x.shape[1:])

    def map_examples(self, change: Callable[[Tensor], Tensor]) -> "Data":
        """Return the data with all examples changed, those `outside` as well."""
        outside = None if self.outside is None else change(self.outside)
        return replace(self, train_x=change(self.train_x), test_x=change(self.test_x), outside=outside)

    def to(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "Data":
        """Move to a device; `dtype` is the examples', labels stay int64."""
        moved = self.map_examples(lambda x: x.to(device, dtype))
        return replace(moved, train_y=self.train_y.to(device), test_y=self.test_y.to(device))


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: its columns on the Hub, and the plain files of both splits it also comes in."""

    repository: str
    config: str | None = None
    image: str = "image"
    label: str = "label"
    classes: int = 10
    files: tuple[tuple[str, ...], ...] = ()


DATASETS: dict[str, Source | None] = {
    "digits": None,  # embedded in scikit-learn
    **dict.fromkeys(GRAPHS),  # whose examples are nodes
    "mnist1d": Source("christopher/mnist1d", image="x", label="y"),
    "mnist": Source("ylecun/mnist", files=IDX_FILES),
    "fashion_mnist": Source("zalando-datasets/fashion_mnist", files=IDX_FILES),
    "kmnist": Source("tanganke/kmnist", files=IDX_FILES),
    "cifar10": Source("uoft-cs/cifar10", image="img", files=CIFAR_FILES),
    "svhn": Source("ufldl-stanford/svhn", "cropped_digits"),
}


class _Split(NamedTuple):
    """Examples `(n, channels, ...)` and labels `(n,)` as read, and the place that an error should name."""

    place: str
    x: NDArray[Any]
    y: NDArray[Any]


def load_data(
    name: str, *, data_dir: str | Path | None = None, train_limit: int | None = None, outside: str | None = None
) -> Data:
    """Load a data set, each channel standardised by the mean and deviation of its whole training set.

    Arguments:
        name: a key of `DATASETS`.
        data_dir: a folder with the files, in itself or in its subfolder `name`; without it, the Hub is asked.
        train_limit: keep this many training examples, a fixed random choice that grows with the limit.
        outside: another data set with examples of the same shape, of which `Data.outside` holds the test examples;
            below `data_dir` its files are in the subfolder of its name.

    Raises:
        DataError: if a name is unknown, the data cannot be found or are damaged, or limit or `outside` do not fit.
    """
    for field, known in (("data", name), ("outside", outside)):
        if known is not None and known not in DATASETS:
            near = nearest(known.lower(), DATASETS)
            raise DataError(f"{field}: no data set {known!r}{near}; there are {', '.join(DATASETS)}")
    folder = None if data_dir is None else Path(data_dir)
    if outside == name or (outside is not None and {name, outside} & set(GRAPHS)):
        raise DataError(f"outside: {outside} cannot be told from {name}; take another data set of images")
    if name in GRAPHS:
        return _nodes(name, graph_of(name, folder), train_limit)
    train, test, classes = _read(name, None if folder is None else (folder / name, folder))
    mean, deviation = _moments(train)
    others = None if outside is None else _outside(outside, folder, test)
    kept = _kept(name, len(train.y), train_limit)
    train = train._replace(x=train.x[kept], y=train.y[kept])

    def standardised(x: NDArray[Any]) -> Tensor:
        numbers = x.astype(np.float32, order="C")
        numbers -= mean
        numbers /= deviation
        return torch.from_numpy(numbers)

    labels = [torch.from_numpy(split.y.astype(np.int64)) for split in (train, test)]
    white = 255 if train.x.dtype == np.uint8 else 1
    return Data(
        name,
        standardised(train.x),
        labels[0],
        standardised(test.x),
        labels[1],
        classes,
        moments=(torch.from_numpy(mean.flatten() / white), torch.from_numpy(deviation.flatten() / white)),
        outside=None if others is None else standardised(others),
    )


def _read(name: str, folders: tuple[Path, ...] | None) -> tuple[_Split, _Split, int]:
    """Read both splits, from the first folder that has them or from where they are by themselves, and count classes."""
    source = DATASETS[name]
    if source is None:
        train, test = _read_digits()
    elif folders is None:
        train, test = _read_hub(name, source)
    else:
        train, test = _read_folder(name, source, folders)
    classes = 10 if source is None else source.classes
    _check(train, test, classes)
    return train, test, classes


def _outside(name: str, folder: Path | None, test: _Split) -> NDArray[Any]:
    """Return the test examples of another data set, whose pixels are like those of this test split."""
    x = _read(name, None if folder is None else (folder / name,))[1].x
    if (x.shape[1:], x.dtype) != (test.x.shape[1:], test.x.dtype):
        examples, own = (f"{each.shape[1:]} of {each.dtype}" for each in (x, test.x))
        raise DataError(f"outside: examples of {name} are {examples}, not {own}; take a data set like the zoo's")
    return x


def _kept(name: str, count: int, train_limit: int | None) -> NDArray[np.int64]:
    """Return which training examples are kept: all, or the first of a random order."""
    if train_limit is None:
        return np.arange(count)
    if not 0 < train_limit <= count:
        raise DataError(f"train_limit {train_limit}: {name} has {count} training examples; ask for 1 to {count}")
    return rng_for(0, f"train_limit/{name}").permutation(count)[:train_limit]


def _nodes(name: str, graph: Graph, train_limit: int | None) -> Data:
    """Return the numbers of nodes as examples."""
    train = graph.train[torch.from_numpy(_kept(name, len(graph.train), train_limit))]
    x = [nodes[:, None].float() for nodes in (train, graph.test)]
    return Data(name, x[0], graph.y[train], x[1], graph.y[graph.test], graph.classes)


def _moments(train: _Split) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of each channel, shaped to broadcast over examples."""
    x = train.x.reshape(*train.x.shape[:2], -1)
    count = x.shape[0] * x.shape[2]
    # Sums of bytes and their squares are exact in float64, so every machine gets the same digest.
    mean = np.einsum("ncl->c", x, dtype=np.float64) / count
    square = np.einsum("ncl,ncl->c", x, x, dtype=np.float64) / count
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    if not (deviation > 0).all():
        raise DataError(f"{train.place}: a channel has the same value everywhere; fetch the data again")
    shape = (-1, *[1] * (train.x.ndim - 2))
    return mean.astype(np.float32).reshape(shape), deviation.astype(np.float32).reshape(shape)


def _check(train: _Split, test: _Split, classes: int) -> None:
    """Raise a DataError unless each split holds as many labels in 0 to classes - 1 as examples of one shape."""
    for place, x, y in (train, test):
        if x.dtype.kind not in "uif" or y.dtype.kind not in "ui" or y.ndim != 1:
            raise DataError(f"{place}: needs images of one size and whole-number labels; fetch the data again")
        if len(x) != len(y) or not len(x):
            raise DataError(f"{place}: {len(y)} labels for {len(x)} images; take both from one download")
        if y.min() < 0 or y.max() >= classes:
            raise DataError(f"{place}: labels run from {y.min()} to {y.max()}, not 0 to {classes - 1}; fetch it again")
    if train.x.shape[1:] != test.x.shape[1:]:
        shapes = f"{train.x.shape[1:]} in training and {test.x.shape[1:]} in test"
        raise DataError(f"{test.place}: examples are {shapes}; take both from one download")


def _read_digits() -> tuple[_Split, _Split]:
    """Split scikit-learn's 1,797 digits, 80 to 20 in every class."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 1, 8, 8)
    rng = rng_for(0, "digits/split")
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in range(10)]
    test = np.zeros(len(labels), bool)
    test[np.concatenate([indices[: round(0.2 * len(indices))] for indices in members])] = True
    return _Split("digits", images[~test], labels[~test]), _Split("digits", images[test], labels[test])


def _read_hub(name: str, source: Source) -> tuple[_Split, _Split]:
    import datasets
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()  # what it retries is no news; what comes of it is told below
    try:
        loaded = datasets.load_dataset(source.repository, source.config)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        fact = f"{source.repository} cannot be had from the Hugging Face Hub ({_in_one_line(error)})"
        remedy = f"put {_wanted(source)} in a folder DIR and pass --data-dir DIR (data_dir= in Python)"
        raise DataError(f"{name}: {fact}; {remedy}") from error
    return _columns(source.repository, loaded, source)


def _read_folder(name: str, source: Source, folders: tuple[Path, ...]) -> tuple[_Split, _Split]:
    for folder in folders:
        if (folder / SAVED).is_file():
            return _read_saved(folder, source)
        paths = [_located(folder, files) for files in source.files]
        if paths and all(paths):
            read = _read_cifar if source.files is CIFAR_FILES else _read_idx
            return read(*paths[0]), read(*paths[1])
    looked = f"looked in {' and '.join(map(str, folders))} for {_wanted(source)}"
    raise DataError(f"{folders[-1]}: holds no {name}; {looked}; put them there, or name no folder to ask the Hub")


def _located(folder: Path, files: tuple[str, ...]) -> list[Path]:
    """Return where each of the files stands, or nothing if one is missing."""
    places = [(folder / file, folder / f"{file}.gz", folder / CIFAR_FOLDER / file) for file in files]
    found = [next(filter(Path.is_file, choices), None) for choices in places]
    return [path for path in found if path] if all(found) else []


def _wanted(source: Source) -> str:
    saved = f"a folder saved by `datasets`' save_to_disk ({SAVED}, columns {source.image!r} and {source.label!r})"
    if not source.files:
        return saved
    kind = "the binary version" if source.files is CIFAR_FILES else "the IDX files"
    return f"{kind} ({', '.join(sum(source.files, ()))}, plain or .gz) or {saved}"


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _read_saved(folder: Path, source: Source) -> tuple[_Split, _Split]:
    import datasets

    try:
        return _columns(str(folder), datasets.load_from_disk(str(folder)), source)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{folder}: cannot be read ({_in_one_line(error)}); save it again") from error


def _columns(place: str, loaded: Mapping[str, Any], source: Source) -> tuple[_Split, _Split]:
    """Turn the columns of both splits into arrays, channels first."""
    columns = [source.image, source.label]

    def split(part: str) -> _Split:
        if part not in loaded or not set(columns) <= set(loaded[part].column_names):
            raise DataError(f"{place}: needs a split {part!r} with columns {columns}, as {source.repository} has")
        arrays = loaded[part].select_columns(columns).with_format("numpy")[:]
        images = arrays[source.image]
        channels_first = np.moveaxis(images, -1, 1) if images.ndim == 4 else images[:, None]
        return _Split(f"{place} ({part})", channels_first, arrays[source.label])

    return split("train"), split("test")


def _content(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: is a damaged gzip file; fetch it again") from error


def _read_idx(images: Path, labels: Path) -> _Split:
    return _Split(str(labels), _idx(images, 3)[:, None], _idx(labels, 1))


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file: two zeros, type 8 (bytes), the number of dimensions, their big-endian lengths, the bytes."""
    content, magic = _content(path), bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise DataError(f"{path}: starts with {content[:4].hex()}, not IDX's {magic.hex()}; fetch it again")
    header = 4 + 4 * dimensions
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    if len(content) != header + prod(shape):
        raise DataError(f"{path}: has {len(content)} bytes, its header says {header + prod(shape)}; fetch it again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _read_cifar(*batches: Path) -> _Split:
    contents = [_content(path) for path in batches]
    for path, content in zip(batches, contents, strict=True):
        if len(content) % CIFAR_RECORD:
            raise DataError(f"{path}: {len(content)} bytes are no multiple of {CIFAR_RECORD}; fetch it again")
    records = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, CIFAR_RECORD)
    return _Split(str(batches[0].parent), records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0])
