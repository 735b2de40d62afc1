"""The binary version of CIFAR-10.

Source: Krizhevsky 2009, *Learning Multiple Layers of Features from Tiny Images*,
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from pathlib import Path

import numpy as np

from zoo.data.sources.format import Files, content
from zoo.data.sources.source import Split
from zoo.errors import DataError

RECORD = 1 + 3 * 32 * 32  # bytes of a record: a label, then the red, green and blue channels


class CIFAR(Files):
    """The binary version of CIFAR-10: five files of training images and one of test images, each a list of records."""

    kind = "the binary version"
    train = tuple(f"data_batch_{batch}.bin" for batch in range(1, 6))
    test = ("test_batch.bin",)
    subfolder = "cifar-10-batches-bin"

    def read_split(self, paths: list[Path]) -> Split:
        """Read the images and labels of all files."""
        contents = [content(path) for path in paths]
        for path, batch in zip(paths, contents, strict=True):
            if len(batch) % RECORD:
                raise DataError(f"{path}: {len(batch)} bytes are not a multiple of {RECORD}; download it again")
        records = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, RECORD)
        return Split(str(paths[0].parent), records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0])
