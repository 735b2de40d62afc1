"""What Python calls: an epoch of training steps of one network, and its metrics."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.training.compiled.jit import cached, compiled, digest_of_sources, keep_apart
from zoo.training.compiled.lanes import LANES, load, prefetch, store
from zoo.training.compiled.layers import backward, forward, padded
from zoo.training.compiled.loss import loss_gradient, score
from zoo.training.compiled.state import Network, Row, Rule, Splits
from zoo.training.compiled.updates import update, use

AHEAD = 4 * LANES  # how far ahead of its use an example is fetched from memory


@compiled
def measure(ops: Any, network: Network, x: Row, labels: Row) -> tuple[float, float]:
    """Return the accuracy and the mean cross-entropy of a network on the examples of a split, see `Splits`."""
    keep_apart()
    row, correct, losses = use(network, network.theta), 0.0, 0.0
    step, count, together = padded(ops[0].inputs) * LANES, len(labels) // LANES, len(network.labels) // LANES
    for block in range(0, count, together):
        some = min(together, count - block)
        forward(ops, network, row, x, block * step, some, np.bool_(False))
        right, loss = score(ops[-1], network.work, labels, block * LANES, some)
        correct += right
        losses += loss
    examples = count * LANES
    while examples > 0 and labels[examples - 1] < 0:
        examples -= 1
    return correct / examples, losses / examples


@compiled
def take_steps(
    ops: Any, network: Network, rule: Rule, rates: NDArray[np.float32], order: NDArray[np.int64], splits: Splits
) -> bool:
    """Take a training step on each minibatch; return whether the network is still finite.

    A network that diverges is left with the weights of its last finite loss.
    """
    keep_apart()
    theta, before, swapped, finite = network.theta, network.before, False, True
    blocks = len(network.labels) // LANES
    for t in range(len(rates)):
        gather(ops[0], network, splits, order[t])
        row = use(network, theta)
        forward(ops, network, row, network.work, ops[0].saved, blocks, np.bool_(True))
        finite = np.isfinite(loss_gradient(ops[-1], network.work, network.labels, order.shape[1], rule.label_smoothing))
        if not finite:
            for i in range(0, len(theta), LANES):
                store(theta, i, load(before, i))
            break
        backward(ops, network, row, blocks)
        finite = np.isfinite(update(network, theta, before, rule, rates[t]))
        if not finite:
            break
        theta, before, swapped = before, theta, not swapped
    if swapped:
        for i in range(0, len(theta), LANES):
            kept = load(theta, i)
            store(theta, i, load(before, i))
            store(before, i, kept)
    return finite


@compiled
def gather(op: Any, network: Network, splits: Splits, chosen: NDArray[np.int64]) -> None:
    """Put a minibatch in its place, one example after the other."""
    keep_apart()
    columns = padded(op.inputs)
    for first in range(0, len(chosen), LANES):
        last = min(first + LANES, len(chosen))
        for j in range(first, last):
            network.labels[j] = splits.train_labels[chosen[j]]
        for i in range(0, columns, LANES):  # of several examples in turn, since memory serves several places at once
            for j in range(first, last):
                at = chosen[j] * columns + i
                prefetch(splits.train, at + AHEAD)
                store(network.work, op.saved + j * columns + i, load(splits.train, at))


def _epoch(sources: int) -> Any:
    """Return the compiled function, compiled again when the digest of this package's files is another one.

    Numba itself notices only changes of the file whose function it keeps, and of the numbers which that function uses.
    """

    @cached
    def train_epoch(
        ops: Any,
        network: Network,
        rule: Rule,
        rates: NDArray[np.float32],
        order: NDArray[np.int64],
        splits: Splits,
        measured: bool,
    ) -> tuple[bool, float, float, float, float]:
        """Train a network for an epoch.

        Arguments:
            ops: Operations of the network, see `zoo.training.compiled.program.OP`.
            network: Network, which changes. If it diverges, it is left with the weights of its last finite loss.
            rule: Optimiser.
            rates: Learning rates of each step, `(steps, 3)`, see `update`. Without steps, nothing trains.
            order: Training examples of each minibatch, `(steps, batch)`.
            splits: Training and test examples.
            measured: Whether to measure the network after the epoch.

        Returns:
            Whether the network is still finite, and its accuracy and loss on the training and on the test examples; all
            zero if they are not measured.
        """
        if sources and not take_steps(ops, network, rule, rates, order, splits):
            return False, 0.0, 0.0, 0.0, 0.0
        if not measured:
            return True, 0.0, 0.0, 0.0, 0.0
        train_accuracy, train_loss = measure(ops, network, splits.train, splits.train_labels)
        test_accuracy, test_loss = measure(ops, network, splits.test, splits.test_labels)
        return True, train_accuracy, train_loss, test_accuracy, test_loss

    return train_epoch


train_epoch = _epoch(digest_of_sources())
