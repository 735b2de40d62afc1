"""The simplest reader of weights."""

from jaxtyping import Float
from torch import Tensor, nn

from metanets.inputs import Reader
from metanets.models.base import Metanetwork


class Linear(Metanetwork):
    """A linear function of the rows.

    Arguments:
        reader: of the networks.
    """

    reads = "rows"
    stacks = True
    learning_rate = 1e-4  # each step moves thousands of weights that act as one sum

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        self.output = nn.Linear(reader.features, 1)
        nn.init.zeros_(self.output.weight)  # a random start would be noise in thousands of dimensions
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Float[Tensor, "networks features"]) -> Float[Tensor, " networks"]:
        """Predict one number for each network."""
        return self.output(x).squeeze(-1)
