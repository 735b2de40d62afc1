"""Gradient boosting on statistics of each tensor: trees, no network.

Source: Unterthiner et al. 2020, *Predicting Neural Network Accuracy from Weights*, https://arxiv.org/abs/2002.11448,
whose strongest predictor it is; the trees are scikit-learn's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from torch import Tensor

from metanets.examples import Examples
from metanets.inputs import Reader
from metanets.links import Link
from metanets.models.base import Metanetwork
from metanets.settings import Settings


class Boosted(Metanetwork):
    """Boosted trees on the statistics, as many as are best for the validation networks.

    Arguments:
        reader: Reader of the networks, which trees do not use.
        outputs: Number of outputs; with more than one the trees tell classes apart.
        trees: Greatest number of trees.
        rate: Fraction of each tree that is added.
        leaves: Greatest number of leaves of a tree.
        features: Fraction of the statistics, drawn by the seed, among which each split chooses.
    """

    reads = "statistics"
    takes_steps = False
    choices = {"rate": (0.01, 0.03, 0.1), "leaves": (4, 8, 16, 32), "features": (0.1, 0.3, 1.0)}

    def __init__(
        self,
        reader: Reader | None = None,
        outputs: int = 1,
        trees: int = 1000,
        rate: float = 0.03,
        leaves: int = 16,
        features: float = 0.3,
    ) -> None:
        super().__init__(reader)
        self.outputs = outputs
        self.trees = (HistGradientBoostingRegressor if outputs == 1 else HistGradientBoostingClassifier)(
            learning_rate=rate,
            max_iter=trees,
            max_leaf_nodes=leaves,
            min_samples_leaf=10,
            max_features=features,
            early_stopping=True,
            n_iter_no_change=50,
        )

    @classmethod
    def link(cls, link: Link) -> Link:
        """Return the link without bounds: trees predict no values beyond those that they were trained on."""
        return link.unbounded()

    @classmethod
    def learn(
        cls,
        modules: Sequence[Any],
        train: Examples,
        validation: Examples,
        link: Link,
        settings: Settings,
        seeds: Sequence[int],
    ) -> list[tuple[int, int]]:
        """Grow the trees of each seed."""
        (x, y), (validation_x, validation_y) = (_arrays(part, link) for part in (train, validation))
        for module, seed in zip(modules, seeds, strict=True):
            module.trees.set_params(random_state=seed)
            module.trees.fit(x, y, X_val=validation_x, y_val=validation_y)
        return [(0, 0)] * len(modules)

    def forward(self, x: Float[Tensor, "networks features"]) -> Float[Tensor, "networks outputs"]:
        """Return the sum of the trees, or the logarithm of each class's probability."""
        features = x.cpu().numpy()
        if self.outputs == 1:
            return torch.from_numpy(self.trees.predict(features)).to(x)[:, None]
        probabilities = x.new_zeros(len(x), self.outputs)  # a class that no training network has stays at 0
        probabilities[:, self.trees.classes_] = torch.from_numpy(self.trees.predict_proba(features)).to(x)
        return probabilities.clamp(min=torch.finfo(x.dtype).tiny).log()


def _arrays(examples: Examples, link: Link) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return all inputs, `(N, features)`, and targets of order 1 or classes, `(N,)`."""
    x, y = examples.batch(torch.arange(len(examples.y)))
    return x.cpu().numpy(), (y if link.kind == "softmax" else link.standardise(y)).cpu().numpy()
