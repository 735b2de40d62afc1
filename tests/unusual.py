"""Architectures whose parameters are not those of plain layers: what people's own networks have."""

import torch
from torch import nn

from zoo.networks.architectures.base import ACTIVATIONS, Activation, Architecture, norm_axes


class Flat(Architecture):
    """A convolution, flattened into a linear layer, with channels before positions as in PyTorch, or after them."""

    def __init__(
        self, channels: int = 6, classes: int = 10, channels_last: bool = False, activation: Activation = "relu"
    ) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.conv, self.act = nn.Conv2d(2, channels, 3, 2), ACTIVATIONS[activation]()
        self.linear = nn.Linear(channels * 4, classes)
        factors = [("channel", channels), (None, 4)]
        flat = tuple(reversed(factors) if channels_last else factors)
        self.axes = {"conv.weight": ("channel", "input", None, None), "conv.bias": ("channel",)}
        self.axes |= {"linear.weight": ("output", flat), "linear.bias": ("output",)}
        self.sites = {"act": "channel"}

    def forward(self, x):
        x = self.act(self.conv(x))
        return self.linear((x.movedim(1, -1) if self.channels_last else x).flatten(1))

    @classmethod
    def narrow(cls, arguments, width):
        return arguments | {"channels": round(width * 6)}


class Skip(Architecture):
    """A convolution beside a linear map that reads the same image, and norms of groups of channels."""

    def __init__(self, units: int = 6, classes: int = 10) -> None:
        super().__init__()
        channels = 2 * units
        self.conv, self.norm, self.act = nn.Conv2d(2, channels, 3), nn.GroupNorm(2, channels), nn.ReLU()
        self.depthwise = nn.Conv2d(channels, channels, 3, groups=channels)
        self.last, self.skip = nn.Linear(channels * 4, classes), nn.Linear(2 * 36, classes)
        channel = (("group", 2), ("channel", units))
        self.axes = {"conv.weight": (channel, "input", None, None), "conv.bias": (channel,)}
        self.axes |= {"norm.weight": (channel,), "norm.bias": (channel,)}
        self.axes |= {"depthwise.weight": (channel, None, None, None), "depthwise.bias": (channel,)}
        self.axes |= {"last.weight": ("output", (*channel, (None, 4))), "last.bias": ("output",)}
        self.axes |= {"skip.weight": ("output", (("input", 2), (None, 36))), "skip.bias": ("output",)}
        self.sites = {"act": "channel"}

    def forward(self, x):
        return self.last(self.depthwise(self.act(self.norm(self.conv(x)))).flatten(1)) + self.skip(x.flatten(1))

    @classmethod
    def narrow(cls, arguments, width):
        return arguments | {"units": round(width * 6)}


class Normed(Architecture):
    """An MLP with batch norm."""

    def __init__(self, hidden: int = 12, classes: int = 10, activation: Activation = "relu") -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(64, hidden), nn.BatchNorm1d(hidden)
        self.act = ACTIVATIONS[activation]()
        self.last = nn.Linear(hidden, classes)
        self.axes = {"first.weight": ("hidden", "input"), "first.bias": ("hidden",)} | norm_axes(
            self.norm, "norm", "hidden"
        )
        self.axes |= {"last.weight": ("output", "hidden"), "last.bias": ("output",)}
        self.sites = {"act": "hidden"}

    def forward(self, x):
        return self.last(self.act(self.norm(self.first(x.flatten(1)))))

    @classmethod
    def narrow(cls, arguments, width):
        return arguments | {"hidden": round(width * 12)}


class Unusual(Architecture):
    """Tied weights with a bias each, an embedding, RMSNorm, scales of units and of the whole, a fused projection."""

    def __init__(self, hidden: int = 6, classes: int = 10, inputs: int = 8) -> None:
        super().__init__()
        self.first, self.act = nn.Linear(inputs, hidden), nn.Tanh()
        self.sign = nn.Embedding(2 * inputs, hidden)  # of each input, one row for each of its signs
        self.left, self.right = nn.Linear(hidden, 2 * hidden), nn.Linear(hidden, 2 * hidden)
        self.right.weight = self.left.weight
        self.norm, self.act2 = nn.RMSNorm(2 * hidden), nn.Tanh()
        self.temperature, self.gain = nn.Parameter(torch.ones(2 * hidden)), nn.Parameter(torch.tensor(1.0))
        self.pair, self.act3 = nn.Linear(2 * hidden, 2 * hidden), nn.Tanh()
        self.last = nn.Linear(hidden, classes)
        fused = ((None, 2), ("half", hidden))
        self.axes = {"first.weight": ("hidden", "input"), "first.bias": ("hidden",), "norm.weight": ("wide",)}
        self.axes["sign.weight"] = ((("input", inputs), (None, 2)), "hidden")
        self.axes |= {"left.weight": ("wide", "hidden"), "left.bias": ("wide",), "right.bias": ("wide",)}
        self.axes |= {"temperature": ("wide",), "gain": (), "pair.weight": (fused, "wide"), "pair.bias": (fused,)}
        self.axes |= {"last.weight": ("output", "half"), "last.bias": ("output",)}
        self.roles = {"temperature": "scale", "gain": "scale"}
        self.sites = {"act": "hidden", "act2": "wide", "act3": "half"}

    def forward(self, x):
        x = x.flatten(1)
        row = 2 * torch.arange(x.shape[1], device=x.device) + (x > 0)
        x = self.act(self.first(x) + 0.1 * self.sign(row).sum(1))
        x = self.act2(self.norm(self.left(x) + self.right(x.square())) * self.temperature)
        a, b = self.pair(x).chunk(2, 1)
        return self.last(self.act3(a * b)) * self.gain

    @classmethod
    def narrow(cls, arguments, width):
        return arguments | {"hidden": round(width * 6)}
