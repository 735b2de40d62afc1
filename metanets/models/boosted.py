"""Gradient boosting on statistics of each tensor: trees, no network.

Source: Unterthiner et al. 2020, *Predicting Neural Network Accuracy from Weights*, https://arxiv.org/abs/2002.11448,
whose strongest predictor it is; the trees are scikit-learn's.
"""

import torch
from jaxtyping import Float
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor

from metanets.inputs import Reader
from metanets.models.base import Metanetwork


class Boosted(Metanetwork):
    """Boosted regression trees on the statistics, as many as serve the validation networks.

    Arguments:
        reader: of the networks; trees need to know nothing of it.
        trees: at most so many.
        rate: share of each tree that is added.
        leaves: of each tree.
        features: share of the statistics, drawn by the seed, among which each split chooses.
    """

    reads = "statistics"
    choices = {"rate": (0.01, 0.03, 0.1), "leaves": (4, 8, 16, 32), "features": (0.1, 0.3, 1.0)}

    def __init__(
        self,
        reader: Reader | None = None,
        trees: int = 1000,
        rate: float = 0.03,
        leaves: int = 16,
        features: float = 0.3,
    ) -> None:
        super().__init__(reader)
        self.trees = HistGradientBoostingRegressor(
            learning_rate=rate,
            max_iter=trees,
            max_leaf_nodes=leaves,
            min_samples_leaf=10,
            max_features=features,
            early_stopping=True,
            n_iter_no_change=50,
        )

    def fit(self, x: Tensor, y: Tensor, validation_x: Tensor, validation_y: Tensor, seed: int) -> None:
        """Grow the trees; `x (N, features)`, `y (N,)` of order 1."""
        self.trees.set_params(random_state=seed)
        self.trees.fit(x.numpy(), y.numpy(), X_val=validation_x.numpy(), y_val=validation_y.numpy())

    def forward(self, x: Float[Tensor, "networks features"]) -> Float[Tensor, " networks"]:
        """Predict one number for each network."""
        return torch.from_numpy(self.trees.predict(x.cpu().numpy())).to(x)
