"""A multilayer perceptron on seven statistics of each tensor, which no permutation changes.

Source: Unterthiner et al. 2020; here with the 256 hidden units of Lim et al. 2024.
"""

from jaxtyping import Float
from torch import Tensor, nn

from metanets.models.base import Metanetwork


class StatNN(Metanetwork):
    """Two hidden layers on the statistics.

    Arguments:
        features: length of an input.
        hidden: units of each hidden layer.
    """

    reads = "statistics"

    def __init__(self, features: int, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, x: Float[Tensor, "networks features"]) -> Float[Tensor, " networks"]:
        """Predict one number for each network."""
        return self.layers(x).squeeze(-1)
