"""A multilayer perceptron on rows, which knows nothing of symmetry.

Source: Lim et al. 2024, *The Empirical Impact of Neural Parameter Symmetries, or Lack Thereof*, section 5.3,
https://arxiv.org/abs/2405.20231.
"""

from jaxtyping import Float
from torch import Tensor
from torch_geometric import nn

from metanets.inputs import Reader
from metanets.models.base import Metanetwork


class MLP(Metanetwork):
    """Two hidden layers on the rows.

    Arguments:
        reader: of the networks.
        hidden: units of each hidden layer.
    """

    reads = "rows"
    stacks = True
    choices = {"hidden": (32, 64, 256)}

    def __init__(self, reader: Reader, hidden: int = 64) -> None:
        super().__init__(reader)
        self.layers = nn.MLP([reader.features, hidden, hidden, 1], norm=None)

    def forward(self, x: Float[Tensor, "networks features"]) -> Float[Tensor, " networks"]:
        """Predict one number for each network."""
        return self.layers(x).squeeze(-1)
