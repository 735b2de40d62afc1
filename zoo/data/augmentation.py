"""Random flips, translations and cutout, drawn for each image of each network.

The draws depend only on the recipe's seed, the pair and the epoch, so all treatments of a pair see the same images.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, NonNegativeInt
from torch import Tensor


class Augmentation(BaseModel):
    """Augmentation of training images.

    Arguments:
        flip: Whether to mirror each image left to right with probability 1/2.
        translate: Greatest shift in pixels, in each direction; zeros fill the border.
        cutout: Side of a square of zeros whose centre is anywhere in the image.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    flip: bool = False
    translate: NonNegativeInt = 0
    cutout: NonNegativeInt = 0

    def draw(self, rng: np.random.Generator, images: int, height: int, width: int) -> "Moves":
        """Draw the moves of a number of images."""
        shift, low, high = self.translate, [0, 0], [height, width]
        return Moves(
            torch.from_numpy(rng.random(images) < 0.5 * self.flip),
            torch.from_numpy(rng.integers(-shift, shift + 1, (images, 2))),
            torch.from_numpy(rng.integers(low, high, (images, 2))),
        )

    def __call__(
        self, x: Float[Tensor, "networks batch channels height width"], moves: "Moves"
    ) -> Float[Tensor, "networks batch channels height width"]:
        """Return the augmented images.

        Arguments:
            x: Standardised images, in which zero is the mean colour.
            moves: Moves of each image, with the leading shape `(networks, batch)`.
        """
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
    """The augmentation drawn for images, with any leading shape.

    Arguments:
        flip: Whether the image is mirrored.
        shift: Shift in pixels, down and to the right.
        centre: Row and column of the centre of the cutout.
    """

    flip: Bool[Tensor, "*images"]
    shift: Int[Tensor, "*images 2"]
    centre: Int[Tensor, "*images 2"]

    @classmethod
    def still(cls, shape: tuple[int, ...], device: torch.device) -> "Moves":
        """Return moves of images that stay as they are, but for a cutout around the first pixel."""
        flip = torch.zeros(shape, dtype=torch.bool, device=device)
        return cls(flip, *(torch.zeros(*shape, 2, dtype=torch.int64, device=device) for _ in range(2)))

    @classmethod
    def stack(cls, moves: list["Moves"]) -> "Moves":
        """Stack the moves of several networks."""
        return cls(*(torch.stack(fields) for fields in zip(*moves, strict=True)))

    def to(self, device: torch.device) -> "Moves":
        """Return a copy on a device."""
        return type(self)(*(field.to(device) for field in self))

    def by_step(self, steps: int, batch: int) -> "Moves":
        """Return the moves of images `(networks, images)` by minibatch, `(steps, networks, batch)`."""
        cut = (field[:, : steps * batch].unflatten(1, (steps, batch)) for field in self)
        return type(self)(*(field.transpose(0, 1).contiguous() for field in cut))

    def at(self, step: Int[Tensor, " 1"]) -> "Moves":
        """Return the moves of a step, `(networks, batch)`."""
        return type(self)(*(field.index_select(0, step)[0] for field in self))

    def take(self, index: Int[Tensor, " some"]) -> "Moves":
        """Return the moves of some networks, from those by minibatch."""
        return type(self)(*(field[:, index] for field in self))


def _moved(length: int, shift: Tensor, limit: int, flip: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the old position of each new one, `(..., length)`, and whether it is inside the image."""
    position = torch.arange(length, device=shift.device) - shift[..., None]
    inside = (position >= 0) & (position < length)
    position = position.clamp(0, length - 1)
    if flip is not None:
        position = torch.where(flip[..., None], length - 1 - position, position)
    return position, inside


def _cut(length: int, centre: Tensor, side: int) -> Tensor:
    """Return whether each position is inside the cutout, `(..., length)`."""
    start = centre[..., None] - side // 2
    position = torch.arange(length, device=centre.device)
    return (position >= start) & (position < start + side)
