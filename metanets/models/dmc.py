"""Convolutions along a row, which know the order of its entries and no symmetry.

Source: Eilertsen et al. 2020, *Classifying the classifier: dissecting the weight space of neural networks*, DMC,
https://arxiv.org/abs/2002.05688; here with the strides, the 64 channels and the ten convolutions of Lim et al. 2024,
*The Empirical Impact of Neural Parameter Symmetries, or Lack Thereof*, section 5.3, https://arxiv.org/abs/2405.20231.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.nn import MLP

from metanets.inputs import Reader
from metanets.models.base import Metanetwork

SHORT = 16


class DMC(Metanetwork):
    """Convolutions of stride 2, until at most 16 positions are left, then a hidden layer on all of them.

    Channels double as positions halve, from an eighth of `hidden` up: the first layers see the longest sequences.

    Arguments:
        reader: of the networks; entries that are not read are left out of the sequence.
        hidden: channels of the last convolutions, and units of the hidden layer.
        layers: greatest number of convolutions.
    """

    reads = "tensors"
    columns: Tensor

    def __init__(self, reader: Reader, hidden: int = 64, layers: int = 10) -> None:
        super().__init__(reader)
        self.register_buffer("columns", reader.read.nonzero().flatten(), persistent=False)
        self.convolutions = nn.Sequential()
        channels, length = 1, len(self.columns)
        for layer in range(layers):
            if length <= SHORT:
                break
            wider = max(1, hidden >> max(0, 3 - layer))
            convolution = nn.Conv1d(channels, wider, kernel_size=3, stride=2, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")  # many of them keep the signal's scale
            self.convolutions.extend([convolution, nn.ReLU(inplace=True)])
            channels, length = wider, (length + 1) // 2
        self.head = MLP([channels * length, hidden, 1], norm=None)

    def forward(self, x: Float[Tensor, "networks parameters"]) -> Float[Tensor, " networks"]:
        """Predict one number for each network."""
        return self.head(self.convolutions(x[:, None, self.columns]).flatten(1)).squeeze(-1)
