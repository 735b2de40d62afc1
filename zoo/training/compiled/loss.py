"""Cross-entropy with label smoothing, its gradient, and accuracy, on blocks of sixteen examples.

Labels are float32, and -1 where a block has no example.
"""

from typing import Any

import numpy as np

from zoo.training.compiled.functions import exp, log
from zoo.training.compiled.jit import Lanes, compiled, inlined, keep_apart
from zoo.training.compiled.lanes import LANES, fma, load, negative, spread, store, total, where_equal, where_greater
from zoo.training.compiled.layers import padded
from zoo.training.compiled.state import Row


@inlined
def _greatest(work: Row, at: int, classes: int) -> tuple[Lanes, Lanes]:
    """Return the greatest logit of each example, and the first class that has it."""
    greatest, best = load(work, at), spread(0.0)
    for c in range(1, classes):
        logit = load(work, at + c * LANES)
        best = where_greater(logit, greatest, float(c), best)
        greatest = where_greater(logit, greatest, logit, greatest)
    return greatest, best


@compiled
def loss_gradient(op: Any, work: Row, labels: Row, examples: int, smoothing: float) -> float:
    """Write the gradient of the mean cross-entropy to its place; return a number that shows divergence.

    The number is finite if the logits, and the sum of their distances from the greatest ones, are.

    Arguments:
        op: Last operation of the network.
        work: Activations and gradients.
        labels: Labels of all blocks.
        examples: Number of examples in them.
        smoothing: Label smoothing, a fraction.
    """
    keep_apart()
    classes, check = op.outputs, spread(0.0)
    off = smoothing / classes / examples
    on = (1.0 - smoothing) / examples + off
    for block in range(len(labels) // LANES):
        at, to = op.y + block * padded(classes) * LANES, op.dy + block * padded(classes) * LANES
        label, (greatest, _), normaliser = load(labels, block * LANES), _greatest(work, at, classes), spread(0.0)
        for i in range(0, classes * LANES, LANES):
            below = load(work, at + i) - greatest
            check = check + where_greater(label, -1.0, below, 0.0)
            e = exp(below)
            normaliser = normaliser + e
            store(work, to + i, e)
        scale = 1.0 / (normaliser * float(examples))
        for c in range(classes):
            target = where_equal(label, float(c), on, off)
            slope = fma(load(work, to + c * LANES), scale, negative(target))
            store(work, to + c * LANES, where_greater(label, -1.0, slope, 0.0))
    return total(check)


@compiled
def score(op: Any, work: Row, labels: Row, at: int, blocks: int) -> tuple[float, float]:
    """Return the number of examples that are classified correctly, and the sum of their cross-entropies."""
    keep_apart()
    classes, correct, losses = op.outputs, spread(0.0), spread(0.0)
    for block in range(blocks):
        logits = op.y + block * padded(classes) * LANES
        label, (greatest, best) = load(labels, at + block * LANES), _greatest(work, logits, classes)
        normaliser, own = spread(0.0), spread(0.0)
        for c in range(classes):
            below = load(work, logits + c * LANES) - greatest
            own = where_equal(label, float(c), below, own)
            normaliser = normaliser + exp(below)
        correct = correct + where_equal(label, best, 1.0, 0.0)
        losses = losses + where_greater(label, -1.0, log(normaliser) - own, 0.0)
    return np.float64(total(correct)), np.float64(total(losses))
