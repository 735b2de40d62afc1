"""Small data sets, written in every supported format, and checks of what is read."""

import gzip

import datasets
import numpy as np
import pytest
import torch

from zoo.data import DATASETS, load_data
from zoo.data.sources.published import Published
from zoo.errors import DataError

TRAIN, TEST = 30, 10
IDX_FILES = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
CIFAR_FILES = (tuple(f"data_batch_{batch}.bin" for batch in range(1, 6)), ("test_batch.bin",))
CIFAR_FOLDER = "cifar-10-batches-bin"
SAVED = "dataset_dict.json"
ARXIV_FILES = {
    "raw/node-feat": "1.0,0.0\n2.0,4.0\n3.0,8.0\n4.0,0.0\n",
    "raw/node-label": "0\n1\n1\n0\n",
    "raw/edge": "0,1\n1,2\n2,1\n3,3\n",
    "split/time/train": "0\n2\n",
    "split/time/valid": "1\n",
    "split/time/test": "3\n",
}
PUBLISHED = {name: source for name, source in DATASETS.items() if isinstance(source, Published)}


def random_splits(*shape):
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, high, (n, *shape), dtype=np.uint8), rng.permutation(np.arange(n, dtype=np.uint8) % 10))
        for n, high in ((TRAIN, 256), (TEST, 200))
    ]


def idx_bytes(array):
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_idx(folder, splits, suffix=""):
    for (images, labels), files in zip(splits, IDX_FILES, strict=True):
        write(folder / f"{files[0]}{suffix}", idx_bytes(images))
        write(folder / f"{files[1]}{suffix}", idx_bytes(labels))


def write_cifar(folder, splits):
    for (images, labels), files in zip(splits, CIFAR_FILES, strict=True):
        records = np.concatenate([labels[:, None], images.reshape(len(images), -1)], axis=1)
        for file, batch in zip(files, np.split(records, len(files)), strict=True):
            write(folder / file, batch.tobytes())


def write_arxiv(folder, **changed):
    """Write the archive of a graph with four nodes; `changed` replaces the content of files, by the last word of their name."""
    for name, text in ARXIV_FILES.items():
        content = changed.get(name.rpartition("/")[2].rpartition("-")[2], text)
        write(folder / "arxiv" / f"{name}.csv.gz", content.encode())
    return folder


def as_datasets(splits, image="image", label="label"):
    """The splits as tables of `datasets`, as on the Hub."""
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(num_classes=10)})
    parts = {}
    for part, (images, labels) in zip(("train", "test"), splits, strict=True):
        pictures = list(images if images.ndim == 3 else images.transpose(0, 2, 3, 1))
        parts[part] = datasets.Dataset.from_dict({image: pictures, label: labels}, features=features)
    return datasets.DatasetDict(parts)


def bytes_again(data, splits):
    """Undo the standardisation of both splits by the bytes that were written."""
    pixels = splits[0][0].astype(np.float64) / 255
    axes = (0, 1, 2) if pixels.ndim == 3 else (0, 2, 3)
    mean, deviation = pixels.mean(axes, keepdims=True), pixels.std(axes, keepdims=True)
    shape = (1, -1, 1, 1)
    undone = [x.numpy() * deviation.reshape(shape) + mean.reshape(shape) for x in (data.train_x, data.test_x)]
    return [np.rint(255 * x).astype(np.uint8) for x in undone]


def assert_holds(data, splits):
    """Assert that both splits of `data` are the bytes that were written, in their order."""
    for (images, labels), again, y in zip(splits, bytes_again(data, splits), (data.train_y, data.test_y), strict=True):
        np.testing.assert_array_equal(again.squeeze(1) if images.ndim == 3 else again, images)
        np.testing.assert_array_equal(y.numpy(), labels)


def assert_equal(one, other):
    for field in ("train_x", "train_y", "test_x", "test_y"):
        torch.testing.assert_close(getattr(one, field), getattr(other, field), rtol=0, atol=0)


def message(name, **options):
    """Return the message of the DataError that loading raises; it must be one line."""
    with pytest.raises(DataError) as raised:
        load_data(name, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)
