"""A multilayer perceptron on rows, which knows nothing of symmetry.

Source: Lim et al. 2024, section 5.3.
"""

from jaxtyping import Float
from torch import Tensor, nn

from metanets.models.base import Metanetwork


class MLP(Metanetwork):
    """Two hidden layers on the rows.

    Arguments:
        features: length of an input.
        hidden: units of each hidden layer.
    """

    reads = "rows"

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, x: Float[Tensor, "networks features"]) -> Float[Tensor, " networks"]:
        """Predict one number for each network."""
        return self.layers(x).squeeze(-1)
