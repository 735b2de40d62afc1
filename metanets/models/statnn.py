"""A multilayer perceptron on seven statistics of each tensor, which no permutation changes.

Source: Unterthiner et al. 2020, *Predicting Neural Network Accuracy from Weights*, https://arxiv.org/abs/2002.11448;
here with the 256 hidden units of Lim et al. 2024, *The Empirical Impact of Neural Parameter Symmetries, or Lack
Thereof*, https://arxiv.org/abs/2405.20231.
"""

from jaxtyping import Float
from torch import Tensor
from torch_geometric import nn

from metanets.inputs import Reader
from metanets.models.base import Metanetwork
from metanets.settings import Settings


class StatNN(Metanetwork):
    """Two hidden layers on the statistics.

    Arguments:
        reader: Reader of the networks.
        outputs: Number of outputs.
        hidden: Number of units of each hidden layer.
    """

    reads = "statistics"
    stacks = True
    # The best of 16 trials of `asymzoo metanets tune` on digits-mlp, standard: validation R^2 .958, tau .536.
    settings = Settings(steps=1600)
    choices = {"hidden": (32, 64, 256)}

    def __init__(self, reader: Reader, outputs: int = 1, hidden: int = 256) -> None:
        super().__init__(reader)
        self.layers = nn.MLP([reader.features, hidden, hidden, outputs], norm=None)

    def forward(self, x: Float[Tensor, "networks features"]) -> Float[Tensor, "networks outputs"]:
        """Return the outputs for each network."""
        return self.layers(x)
