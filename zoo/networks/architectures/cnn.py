"""Small convolutional networks.

Source: Unterthiner, Keysers, Gelly, Bousquet, Tolstikhin 2020, *Predicting Neural Network Accuracy from Weights*,
https://arxiv.org/abs/2002.11448.
"""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from zoo.networks.architectures.base import ACTIVATIONS, Activation, Architecture


class Convolution(nn.Module):
    """A convolution, then a norm, then an activation."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, norm: str, activation: str
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding)
        self.norm = nn.GroupNorm(1, outputs) if norm == "group" else nn.Identity()
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, inputs, H, W)` to `(B, outputs, H', W')`."""
        return self.activation(self.norm(self.conv(x)))


class CNN(Architecture):
    """Convolutions, then a mean over all positions, then one linear layer.

    The default is the network of the Small CNN Zoo for grey images, which has 4,970 parameters.

    Arguments:
        channels: Channels of the image, then of the output of every convolution.
        classes: Number of outputs.
        kernel, stride, padding: Kernel size, stride and zero padding of every convolution.
        norm: Norm before each activation: `group` is GroupNorm with one group, `none` is no norm.
        activation: Activation after each convolution.

    Example:
        >>> sum(p.numel() for p in CNN().parameters())
        4970
    """

    def __init__(
        self,
        channels: Annotated[Sequence[PositiveInt], Field(min_length=2)] = (1, 16, 16, 16),
        classes: PositiveInt = 10,
        kernel: PositiveInt = 3,
        stride: PositiveInt = 2,
        padding: NonNegativeInt = 0,
        norm: Literal["group", "none"] = "none",
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            Convolution(i, o, kernel, stride, padding, norm, activation) for i, o in itertools.pairwise(channels)
        )
        self.output = nn.Linear(channels[-1], classes)

        self.axes = {}
        units = "input"
        for i in range(len(self.convs)):
            self.axes[f"convs.{i}.conv.weight"] = (f"conv{i}", units, None, None)
            units = f"conv{i}"
            self.axes[f"convs.{i}.conv.bias"] = (units,)
            if norm == "group":
                self.axes |= {f"convs.{i}.norm.weight": (units,), f"convs.{i}.norm.bias": (units,)}
        self.axes |= {"output.weight": ("output", units), "output.bias": ("output",)}
        self.sites = {f"convs.{i}.activation": f"conv{i}" for i in range(len(self.convs))}

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(B, C, H, W)` to logits `(B, classes)`."""
        for conv in self.convs:
            x = conv(x)
        return self.output(x.mean((-2, -1)))

    @classmethod
    def narrow(cls, arguments: dict[str, Any], width: float) -> dict[str, Any]:
        """Multiply the channels of the convolutions by `width`, rounded to the nearest integer."""
        first, *hidden = arguments["channels"]
        return arguments | {"channels": [first, *(max(1, round(width * units)) for units in hidden)]}
