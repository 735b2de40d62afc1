"""A multilayer perceptron on rows, without knowledge of symmetry.

Source: Lim et al. 2024, *The Empirical Impact of Neural Parameter Symmetries, or Lack Thereof*, section 5.3,
https://arxiv.org/abs/2405.20231.
"""

from jaxtyping import Float
from torch import Tensor
from torch_geometric import nn

from metanets.inputs import Reader
from metanets.models.base import Metanetwork
from metanets.settings import Settings


class RowMLP(Metanetwork):
    """Two hidden layers on the rows.

    Arguments:
        reader: Reader of the networks.
        outputs: Number of outputs.
        hidden: Number of units of each hidden layer.
    """

    reads = "rows"
    stacks = True
    # Of 16 trials of `asymzoo metanets tune` on digits-mlp, standard, the best with the 64 hidden units of Lim et al.
    # 2024: validation R^2 .688, tau .395. (The best of all has 256, R^2 .701, tau .394, and takes four times as long.)
    settings = Settings(steps=1600, batch_size=16, learning_rate=1e-3, weight_decay=1.0, options={"hidden": 64})
    choices = {"hidden": (32, 64, 256)}

    def __init__(self, reader: Reader, outputs: int = 1, hidden: int = 64) -> None:
        super().__init__(reader)
        self.layers = nn.MLP([reader.features, hidden, hidden, outputs], norm=None)

    def forward(self, x: Float[Tensor, "networks features"]) -> Float[Tensor, "networks outputs"]:
        """Return the outputs for each network."""
        return self.layers(x)
