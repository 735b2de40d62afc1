"""Minibatches: the order of the examples in an epoch, and their augmentation, which a pair draws for all treatments.

They are drawn on the CPU, with the same bits for every device, and lie on the device of the data for a whole epoch.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from zoo.data import Data
from zoo.data.augmentation import Augmentation, Moves
from zoo.seeds import rng_for


def draw_order(seed: int, pair: int, epoch: int, examples: int) -> NDArray[np.int64]:
    """Return the order of the training examples of a pair in an epoch, `(examples,)`."""
    return rng_for(seed, "order", pair, epoch).permutation(examples)


def batch_size_of(data: Data, size: int) -> int:
    """Return the number of examples in a minibatch, which the training set may limit."""
    return min(size, len(data.train_y))


@dataclass(frozen=True)
class Minibatches:
    """Minibatches of an epoch for K networks.

    Attributes:
        order: Training example at each place, `(steps, K, B)`.
        moves: What the augmentation does with each of them, if there is one.
    """

    order: Int[Tensor, "steps networks batch"]
    moves: Moves | None

    def to(self, device: torch.device) -> "Minibatches":
        """Return a copy on a device."""
        return Minibatches(self.order.to(device), None if self.moves is None else self.moves.to(device))

    @classmethod
    def blank(cls, data: Data, size: int, networks: int, augmentation: Augmentation | None) -> "Minibatches":
        """Return minibatches of the first example alone, on the device of the data, to be filled by `load`."""
        batch, device = batch_size_of(data, size), data.train_y.device
        shape = (len(data.train_y) // batch, networks, batch)
        moves = None if augmentation is None else Moves.still(shape, device)
        return cls(torch.zeros(shape, dtype=torch.int64, device=device), moves)

    def take(self, index: Int[Tensor, " networks"]) -> "Minibatches":
        """Return the minibatches of some networks."""
        if len(index) == self.order.shape[1]:
            return self
        return Minibatches(self.order[:, index], None if self.moves is None else self.moves.take(index))

    def load(self, others: "Minibatches") -> None:
        """Write the minibatches of another epoch into these tensors."""
        self.order.copy_(others.order, non_blocking=True)
        if self.moves is not None and others.moves is not None:
            for ours, theirs in zip(self.moves, others.moves, strict=True):
                ours.copy_(theirs, non_blocking=True)

    def at(self, step: Int[Tensor, " 1"], data: Data, augmentation: Augmentation | None) -> tuple[Tensor, Tensor]:
        """Return examples `(K, B, ...)` and labels `(K, B)` of a step, without reading its number on the host."""
        index = self.order.index_select(0, step)[0]
        # `index_select` with a flat index is faster than indexing with two dimensions.
        x = data.train_x.index_select(0, index.flatten()).unflatten(0, index.shape)
        if augmentation is not None and self.moves is not None:
            x = augmentation(x, self.moves.at(step))
        return x, data.train_y[index]


def draw_minibatches(
    data: Data, size: int, seed: int, pairs: Sequence[int], epoch: int, *, augmentation: Augmentation | None = None
) -> Minibatches:
    """Draw the minibatches of an epoch on the CPU, for each network from the number of its pair.

    Arguments:
        data: Data with the training examples.
        size: Number of examples in a minibatch. An incomplete minibatch at the end is left out.
        seed: Seed of the recipe.
        pairs: Pair of each network, K of them.
        epoch: Number of the epoch, from 0.
        augmentation: Augmentation of the examples, if any.
    """
    examples, batch = len(data.train_y), batch_size_of(data, size)
    steps = examples // batch
    order = np.empty((steps, len(pairs), batch), np.int64)

    def draw(k: int) -> Moves | None:
        order[:, k] = draw_order(seed, pairs[k], epoch, examples)[: steps * batch].reshape(steps, batch)
        if augmentation is None:
            return None
        return augmentation.draw(rng_for(seed, "augmentation", pairs[k], epoch), examples, *data.shape[-2:])

    moves = [drawn for drawn in _on_threads(draw, len(pairs), data.train_y.device) if drawn is not None]
    return Minibatches(torch.from_numpy(order), Moves.stack(moves).by_step(steps, batch) if moves else None)


def _on_threads(draw: Callable[[int], Moves | None], count: int, device: torch.device) -> list[Moves | None]:
    """Call a function for every number below `count`: on all processors if a GPU trains, otherwise on one thread."""
    if device.type == "cpu":
        return [draw(k) for k in range(count)]
    threads = os.cpu_count() or 1
    runs = [range(i * count // threads, (i + 1) * count // threads) for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:  # NumPy shuffles without the interpreter's lock
        return [drawn for part in pool.map(lambda run: [draw(k) for k in run], runs) for drawn in part]


def batches(data: Data, size: int, seed: int, pairs: Sequence[int], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the minibatches of an epoch without augmentation, `(K, B, ...)` and `(K, B)`; see `draw_minibatches`."""
    device = data.train_y.device
    minibatches = draw_minibatches(data, size, seed, pairs, epoch).to(device)
    for step in range(len(minibatches.order)):
        yield minibatches.at(torch.tensor([step], device=device), data, None)
