"""Handwritten digits of 8 x 8 pixels, which are part of scikit-learn.

Source: Alpaydin, Kaynak 1998, *Optical Recognition of Handwritten Digits*, https://doi.org/10.24432/C50P49.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from zoo.data.sources.source import Source, Split, Splits
from zoo.seeds import rng_for


class Digits(Source):
    """The 1,797 digits; of every class, 80 % are training examples and 20 % test examples."""

    classes = 10

    def read(self, name: str, folders: tuple[Path, ...]) -> Splits:
        """Read both splits from scikit-learn; no other file is needed."""
        # As `sklearn.datasets.load_digits`, without the import of scikit-learn, which takes longer than a training.
        (package,) = find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr,misc]
        digits = np.loadtxt(Path(package) / "datasets/data/digits.csv.gz", delimiter=",")
        images, labels = digits[:, :-1].reshape(-1, 1, 8, 8), digits[:, -1].astype(np.int64)
        rng = rng_for(0, "digits/split")
        members = [rng.permutation(np.flatnonzero(labels == label)) for label in range(self.classes)]
        test = np.zeros(len(labels), bool)
        test[np.concatenate([indices[: round(0.2 * len(indices))] for indices in members])] = True
        return Split(name, images[~test], labels[~test]), Split(name, images[test], labels[test])
