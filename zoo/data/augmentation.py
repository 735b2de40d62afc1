"""Random flips, translations and cutout, drawn for each image of each network.

What is drawn depends on (recipe seed, pair, epoch) alone, so all treatments of a pair see the same images.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, NonNegativeInt
from torch import Tensor


class Augmentation(BaseModel):
    """What a recipe asks for.

    Arguments:
        flip: mirror half of the images, left to right.
        translate: shift by up to this many pixels each way, zeros moving in.
        cutout: side of a square of zeros, its centre anywhere in the image.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    flip: bool = False
    translate: NonNegativeInt = 0
    cutout: NonNegativeInt = 0

    def draw(self, rng: np.random.Generator, images: int, height: int, width: int) -> "Moves":
        """Draw what befalls each of `images` images."""
        shift, low, high = self.translate, [0, 0], [height, width]
        return Moves(
            torch.from_numpy(rng.random(images) < 0.5 * self.flip),
            torch.from_numpy(rng.integers(-shift, shift + 1, (images, 2))),
            torch.from_numpy(rng.integers(low, high, (images, 2))),
        )

    def __call__(
        self, x: Float[Tensor, "networks batch channels height width"], moves: "Moves"
    ) -> Float[Tensor, "networks batch channels height width"]:
        """Apply `moves`, of leading shape `(networks, batch)`, to images whose zero is the mean colour."""
        height, width = x.shape[-2:]
        rows, row_inside = _moved(height, moves.shift[..., 0], self.translate, None)
        columns, column_inside = _moved(width, moves.shift[..., 1], self.translate, moves.flip)
        k, b = torch.meshgrid(*(torch.arange(n, device=x.device) for n in x.shape[:2]), indexing="ij")
        k, b = k[..., None, None, None], b[..., None, None, None]
        channels = torch.arange(x.shape[2], device=x.device)[:, None, None]
        moved = x[k, b, channels, rows[:, :, None, :, None], columns[:, :, None, None, :]]
        keep = row_inside[..., :, None] & column_inside[..., None, :]
        if self.cutout:
            inside_y = _cut(height, moves.centre[..., 0], self.cutout)
            inside_x = _cut(width, moves.centre[..., 1], self.cutout)
            keep = keep & ~(inside_y[..., :, None] & inside_x[..., None, :])
        return moved * keep[:, :, None]


class Moves(NamedTuple):
    """What befalls each image; any leading shape.

    `flip ()`, `shift (2,)` down and right, `centre (2,)` of the cutout.
    """

    flip: Bool[Tensor, "*images"]
    shift: Int[Tensor, "*images 2"]
    centre: Int[Tensor, "*images 2"]

    @classmethod
    def stack(cls, moves: list["Moves"]) -> "Moves":
        """Stack the moves of several networks."""
        return cls(*(torch.stack(parts) for parts in zip(*moves, strict=True)))

    def to(self, device: torch.device) -> "Moves":
        """Move to a device."""
        return type(self)(*(part.to(device) for part in self))

    def batch(self, index: slice) -> "Moves":
        """Take some images of every network."""
        return type(self)(self.flip[:, index], self.shift[:, index], self.centre[:, index])


def _moved(length: int, shift: Tensor, limit: int, flip: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return which old position fills each new one, `(..., length)`, and whether it lies inside the image."""
    position = torch.arange(length, device=shift.device) - shift[..., None]
    inside = (position >= 0) & (position < length)
    position = position.clamp(0, length - 1)
    if flip is not None:
        position = torch.where(flip[..., None], length - 1 - position, position)
    return position, inside


def _cut(length: int, centre: Tensor, side: int) -> Tensor:
    """Return which positions lie within the cutout, `(..., length)`."""
    start = centre[..., None] - side // 2
    position = torch.arange(length, device=centre.device)
    return (position >= start) & (position < start + side)
