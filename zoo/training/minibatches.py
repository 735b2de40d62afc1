"""Minibatches: the order of the examples in an epoch, which a pair draws for all of its treatments."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
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


def batches(
    data: Data,
    size: int,
    seed: int,
    pairs: Sequence[int],
    epoch: int,
    *,
    augmentation: Augmentation | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the minibatches of an epoch, `(K, B, ...)` and `(K, B)`, for each network in the order of its pair.

    Arguments:
        data: Data with the training examples.
        size: Number of examples in a minibatch. An incomplete minibatch at the end is left out.
        seed: Seed of the recipe.
        pairs: Pair of each network, K of them.
        epoch: Number of the epoch, from 0.
        augmentation: Augmentation of the examples, if any.
    """
    examples, batch, device = len(data.train_y), batch_size_of(data, size), data.train_y.device
    orders = [draw_order(seed, pair, epoch, examples) for pair in pairs]
    order = torch.from_numpy(np.stack(orders)).to(device)
    moves = None
    if augmentation is not None:
        height, width = data.shape[-2:]
        rngs = [rng_for(seed, "augmentation", pair, epoch) for pair in pairs]
        drawn = [augmentation.draw(rng, examples, height, width) for rng in rngs]
        moves = Moves.stack(drawn).to(device)
    for begin in range(0, examples - batch + 1, batch):
        index = order[:, begin : begin + batch]
        # `index_select` with a flat index is faster than indexing with two dimensions.
        x = data.train_x.index_select(0, index.flatten()).unflatten(0, index.shape)
        if augmentation is not None and moves is not None:
            x = augmentation(x, moves.batch(slice(begin, begin + batch)))
        yield x, data.train_y[index]
