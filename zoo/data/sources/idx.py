"""IDX files, the format of MNIST and of the data sets that were made as its replacement.

Source: LeCun, Cortes, Burges, *The MNIST Database of Handwritten Digits*, http://yann.lecun.com/exdb/mnist/.
"""

from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.data.sources.format import Files, content
from zoo.data.sources.source import Split
from zoo.errors import DataError


class IDX(Files):
    """IDX files: for each split, one of grey images and one of labels."""

    kind = "the IDX files"
    train = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    test = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

    def read_split(self, paths: list[Path]) -> Split:
        """Read the images and labels of one split."""
        images, labels = paths
        return Split(str(labels), read_idx(images, 3)[:, None], read_idx(labels, 1))


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of bytes.

    It has two zeros, the type 8, the number of dimensions, their lengths (big-endian), and then the values.

    Raises:
        DataError: If the file has another header, or its length does not fit the header.
    """
    data, magic = content(path), bytes([0, 0, 8, dimensions])
    if data[:4] != magic:
        raise DataError(f"{path}: starts with {data[:4].hex()}, not IDX's {magic.hex()}; download it again")
    header = 4 + 4 * dimensions
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, header, 4)]
    if len(data) != header + prod(shape):
        raise DataError(f"{path}: has {len(data)} bytes, its header says {header + prod(shape)}; download it again")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
