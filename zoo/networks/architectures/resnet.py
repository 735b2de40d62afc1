"""Residual networks for small images.

Source: He, Zhang, Ren, Sun 2016, *Deep Residual Learning for Image Recognition*, section 4.2,
https://arxiv.org/abs/1512.03385. As in Lim et al. 2024, https://arxiv.org/abs/2405.20231, GroupNorm with one group
replaces batch norm, unless `norm = "batch"`, and shortcuts are 1x1 convolutions. Parameters have the names they have
in that paper's code.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from zoo.networks.architectures.base import ACTIVATIONS, Activation, Architecture, norm_axes

Norm = Literal["group", "batch"]
MAKE_NORM: dict[Norm, Callable[[int], nn.Module]] = {"group": partial(nn.GroupNorm, 1), "batch": nn.BatchNorm2d}


class Block(nn.Module):
    """Two convolutions whose output is added to their input, the residual stream."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: str, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.ln1 = MAKE_NORM[norm](outputs)
        self.nonlin1 = ACTIVATIONS[activation]()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.ln2 = MAKE_NORM[norm](outputs)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut.extend([nn.Conv2d(inputs, outputs, 1, stride, bias=False), MAKE_NORM[norm](outputs)])
        self.nonlin2 = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, inputs, H, W)` to `(B, outputs, H/stride, W/stride)`."""
        y = self.ln2(self.conv2(self.nonlin1(self.ln1(self.conv1(x)))))
        return self.nonlin2(y + self.shortcut(x))


class ResNet(Architecture):
    """A residual network of `6 x blocks + 2` layers in three stages of 16, 32 and 64 channels.

    All blocks of a stage add to one residual stream, so they share the stream's axis.

    Arguments:
        blocks: Number of blocks in each stage: 1 gives ResNet8, 2 ResNet14, 3 ResNet20.
        width: Factor on the channels of every stage, rounded to the nearest integer.
        channels: Number of channels of the image.
        classes: Number of outputs.
        activation: Activation inside the blocks and after every residual addition.
        norm: Norm after each convolution: `group` is GroupNorm with one group, `batch` is batch norm as in He et al.

    Example:
        >>> [sum(p.numel() for p in ResNet(width=w).parameters()) for w in (1.0, 0.875)]
        [78042, 59944]
    """

    later = frozenset({"norm"})

    def __init__(
        self,
        blocks: PositiveInt = 1,
        width: PositiveFloat = 1.0,
        channels: PositiveInt = 3,
        classes: PositiveInt = 10,
        activation: Activation = "relu",
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        widths = [max(1, round(width * units)) for units in (16, 32, 64)]
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.ln1 = MAKE_NORM[norm](widths[0])
        self.nonlin = ACTIVATIONS[activation]()
        self.axes = {"conv1.weight": ("stream1", "input", None, None)} | norm_axes(self.ln1, "ln1", "stream1")
        self.sites = {"nonlin": "stream1"}
        for stage in (1, 2, 3):
            self._add_stage(stage, widths[max(0, stage - 2)], widths[stage - 1], blocks, activation, norm)
        self.linear = nn.Linear(widths[2], classes)
        self.axes |= {"linear.weight": ("output", "stream3"), "linear.bias": ("output",)}

    def _add_stage(self, stage: int, inputs: int, outputs: int, blocks: int, activation: str, norm: Norm) -> None:
        layer, stream = nn.Sequential(), f"stream{stage}"
        for b in range(blocks):
            first = b == 0 and stage > 1
            block = Block(inputs if b == 0 else outputs, outputs, 2 if first else 1, activation, norm)
            layer.append(block)
            name, inner, before = f"layer{stage}.{b}", f"block{stage}.{b}", f"stream{stage - 1}" if first else stream
            self.axes[f"{name}.conv1.weight"] = (inner, before, None, None)
            self.axes |= norm_axes(block.ln1, f"{name}.ln1", inner)
            self.axes[f"{name}.conv2.weight"] = (stream, inner, None, None)
            self.axes |= norm_axes(block.ln2, f"{name}.ln2", stream)
            if first:
                self.axes[f"{name}.shortcut.0.weight"] = (stream, before, None, None)
                self.axes |= norm_axes(block.shortcut[1], f"{name}.shortcut.1", stream)
            self.sites |= {f"{name}.nonlin1": inner, f"{name}.nonlin2": stream}
        self.add_module(f"layer{stage}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(B, C, H, W)` to logits `(B, classes)`."""
        x = self.nonlin(self.ln1(self.conv1(x)))
        for stage in ("layer1", "layer2", "layer3"):
            x = self.get_submodule(stage)(x)
        return self.linear(x.mean((-2, -1)))

    @classmethod
    def narrow(cls, arguments: dict[str, Any], width: float) -> dict[str, Any]:
        """Multiply the argument `width`."""
        return arguments | {"width": width * arguments["width"]}
