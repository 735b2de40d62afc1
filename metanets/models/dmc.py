"""Convolutions along a row, which see its entries in order and know no symmetry.

Source: Eilertsen et al. 2020, *Classifying the classifier: dissecting the weight space of neural networks*, DMC,
https://arxiv.org/abs/2002.05688; here with the strides, the 64 channels and the ten convolutions of Lim et al. 2024,
*The Empirical Impact of Neural Parameter Symmetries, or Lack Thereof*, section 5.3, https://arxiv.org/abs/2405.20231.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.nn import MLP

from metanets.inputs import Reader
from metanets.models.base import Metanetwork
from metanets.settings import Settings

SHORT = 16  # positions that the hidden layer takes; 10 convolutions leave 4 of 3,594 entries


class DMC(Metanetwork):
    """Convolutions of stride 2 until at most 16 positions are left, then a hidden layer on all of them.

    Channels double as positions halve, from an eighth of `hidden` up: the first layers see the longest sequences.

    Arguments:
        reader: Reader of the networks; entries that are not read are left out of the sequence.
        outputs: Number of outputs.
        hidden: Number of channels of the last convolutions, and of units of the hidden layer.
        layers: Greatest number of convolutions.
    """

    reads = "tensors"
    settings = Settings(epochs=30, steps=1600, batch_size=16)  # those of deepsets
    columns: Tensor

    def __init__(self, reader: Reader, outputs: int = 1, hidden: int = 64, layers: int = 10) -> None:
        super().__init__(reader)
        self.register_buffer("columns", reader.read.nonzero().flatten(), persistent=False)
        self.convolutions = nn.Sequential()
        channels, length = 1, len(self.columns)
        for layer in range(layers):
            if length <= SHORT:
                break
            wider = max(1, hidden >> max(0, 3 - layer))
            convolution = nn.Conv1d(channels, wider, kernel_size=3, stride=2, padding=1)
            nn.init.kaiming_normal_(
                convolution.weight, nonlinearity="relu"
            )  # so that ten of them keep the scale of the signal
            self.convolutions.extend([convolution, nn.ReLU(inplace=True)])
            channels, length = wider, (length + 1) // 2
        self.head = MLP([channels * length, hidden, outputs], norm=None)

    def forward(self, x: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks outputs"]:
        """Return the outputs for each network."""
        return self.head(self.convolutions(x[:, None, self.columns]).flatten(1))
