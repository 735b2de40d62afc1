"""Handwritten digits of 8 x 8 pixels, which are part of scikit-learn.

Source: Alpaydin, Kaynak 1998, *Optical Recognition of Handwritten Digits*, https://doi.org/10.24432/C50P49.
"""

from pathlib import Path

import numpy as np

from zoo.data.sources.source import Source, Split, Splits
from zoo.seeds import rng_for


class Digits(Source):
    """The 1,797 digits; of every class, 80 % are training examples and 20 % test examples."""

    classes = 10

    def read(self, name: str, folders: tuple[Path, ...]) -> Splits:
        """Read both splits from scikit-learn; no other file is needed."""
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        images = pixels.reshape(-1, 1, 8, 8)
        rng = rng_for(0, "digits/split")
        members = [rng.permutation(np.flatnonzero(labels == label)) for label in range(self.classes)]
        test = np.zeros(len(labels), bool)
        test[np.concatenate([indices[: round(0.2 * len(indices))] for indices in members])] = True
        return Split(name, images[~test], labels[~test]), Split(name, images[test], labels[test])
