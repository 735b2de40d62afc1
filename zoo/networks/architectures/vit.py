"""Vision Transformers.

Source: Dosovitskiy et al. 2021, *An Image is Worth 16x16 Words*, https://arxiv.org/abs/2010.11929, with the mean over
all patches in place of a class token, as in Beyer, Zhai, Kolesnikov 2022, *Better plain ViT baselines for ImageNet-1k*,
https://arxiv.org/abs/2205.01580.
"""

from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from zoo.networks.architectures.base import Architecture
from zoo.networks.parameter import Axis


class Attention(nn.Module):
    """Self-attention among the patches of an image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, patches: int) -> Tensor:
        """Map the patches of all images, `(B * patches, width)`, to the same shape."""
        by_head = [
            part(x).unflatten(0, (-1, patches)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        ]
        query, key, value = by_head  # (B, heads, patches, units)
        # `scaled_dot_product_attention` would be a slow loop over networks under `vmap`.
        share = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1)
        return self.out((share @ value).transpose(1, 2).flatten(2).flatten(0, 1))


class Block(nn.Module):
    """Attention, then a perceptron on each patch; what they give is added to their input, the residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.up = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.activation, self.down = nn.GELU(), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, patches: int) -> Tensor:
        """Map the patches of all images, `(B * patches, width)`, to the same shape."""
        x = x + self.attention(self.norm1(x), patches)
        return x + self.down(self.activation(self.up(self.norm2(x))))


class ViT(Architecture):
    """A Transformer on the square patches of an image.

    Hidden units are those of the residual stream, which all blocks share, and in each block those of the perceptron,
    the heads, and within each head those of queries and keys, and those of values.

    Arguments:
        size: Height and width of the image.
        patch: Height and width of a patch; divides `size`.
        channels: Number of channels of the image.
        classes: Number of outputs.
        width: Number of units of the residual stream; a multiple of `heads`.
        heads: Number of attention heads, each of `width / heads` units.
        blocks: Number of blocks, each with a perceptron of `2 width` hidden units.

    Raises:
        ValueError: If `patch` does not divide `size`, or `heads` does not divide `width`.

    Example:
        >>> sum(p.numel() for p in ViT().parameters())
        18154
    """

    def __init__(
        self,
        size: PositiveInt = 8,
        patch: PositiveInt = 4,
        channels: PositiveInt = 1,
        classes: PositiveInt = 10,
        width: PositiveInt = 32,
        heads: PositiveInt = 4,
        blocks: PositiveInt = 2,
    ) -> None:
        super().__init__()
        if size % patch or width % heads:
            fact = f"{heads} heads on {width} units" if width % heads else f"patches of {patch} on images of {size}"
            raise ValueError(f"{fact} do not divide evenly; change one of them")
        self.patch, self.patches = patch, (size // patch) ** 2
        self.embed = nn.Linear(channels * patch**2, width)
        self.position = nn.Parameter(torch.zeros(self.patches, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, classes)

        self.axes = {"embed.weight": ("stream", (("input", channels), (None, patch**2))), "embed.bias": ("stream",)}
        self.axes |= {"position": (None, "stream"), "norm.weight": ("stream",), "norm.bias": ("stream",)}
        self.axes |= {"output.weight": ("output", "stream"), "output.bias": ("output",)}
        self.roles = {"position": "shift"}
        self.sites = {}
        for i in range(blocks):
            self._name_units(f"blocks.{i}", f"block{i}", heads, width // heads)

    def _name_units(self, block: str, name: str, heads: int, units: int) -> None:
        """Name the axes of a block, whose own begin with `name`."""
        key: Axis = ((f"{name}.head", heads), (f"{name}.key", units))
        value: Axis = ((f"{name}.head", heads), (f"{name}.value", units))
        layers: dict[str, tuple[Axis, Axis]] = {
            "attention.query": (key, "stream"),
            "attention.key": (key, "stream"),
            "attention.value": (value, "stream"),
            "attention.out": ("stream", value),
            "up": (f"{name}.hidden", "stream"),
            "down": ("stream", f"{name}.hidden"),
        }
        for layer, (out, into) in layers.items():
            self.axes |= {f"{block}.{layer}.weight": (out, into), f"{block}.{layer}.bias": (out,)}
        for norm in ("norm1", "norm2"):
            self.axes |= {f"{block}.{norm}.weight": ("stream",), f"{block}.{norm}.bias": ("stream",)}
        self.sites[f"{block}.activation"] = f"{name}.hidden"

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(B, C, H, W)` to logits `(B, classes)`."""
        x = x.unflatten(-1, (-1, self.patch)).unflatten(-3, (-1, self.patch))  # (B, C, rows, patch, columns, patch)
        x = self.embed(x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)) + self.position
        x = x.flatten(0, 1)  # units are dimension 1
        for block in self.blocks:
            x = block(x, self.patches)
        return self.output(self.norm(x).unflatten(0, (-1, self.patches)).mean(1))

    @classmethod
    def narrow(cls, arguments: dict[str, Any], width: float) -> dict[str, Any]:
        """Multiply the units of each head, and so all hidden units, by `width`, rounded to the nearest integer."""
        own = {"width": 32, "heads": 4} | arguments
        return arguments | {"width": own["heads"] * max(1, round(width * own["width"] / own["heads"]))}
