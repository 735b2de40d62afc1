"""A linear function of the weights: the simplest metanetwork."""

from jaxtyping import Float
from torch import Tensor, nn

from metanets.inputs import Reader
from metanets.models.base import Metanetwork
from metanets.settings import Settings


class Linear(Metanetwork):
    """A linear function of the rows.

    Arguments:
        reader: Reader of the networks.
        outputs: Number of outputs.
    """

    reads = "rows"
    stacks = True
    # The best of 12 trials of `asymzoo metanets tune` on digits-mlp, standard: validation R^2 .374, tau .365.
    settings = Settings(steps=1600, batch_size=16, learning_rate=1e-4, weight_decay=0.1)
    learning_rate = 1e-4  # a step changes thousands of weights, whose changes add up

    def __init__(self, reader: Reader, outputs: int = 1) -> None:
        super().__init__(reader)
        self.output = nn.Linear(reader.features, outputs)
        nn.init.zeros_(self.output.weight)  # random initial weights would be noise in thousands of dimensions
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Float[Tensor, "networks features"]) -> Float[Tensor, "networks outputs"]:
        """Return the outputs for each network."""
        return self.output(x)
