"""What compiled functions work on: a network in training, and examples."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]


class Network(NamedTuple):
    """A network in training; rows are padded, `(P,)`, and empty where a treatment does not need them.

    Attributes:
        theta: Trained parameters.
        before: Those of the last loss that is known to be finite.
        mean, square: Moments of the optimiser; SGD uses only the first.
        gradient: Gradient of the row.
        row: Weights as the network uses them, `constants + scale * theta`; not used without a scale.
        scale, constants, decay: Those of the treatment, see `zoo.treatments.Treated`.
        mixing: Matrices of FiGLU.
        work: Activations and their gradients.
        labels: Labels of a minibatch, -1 where there is no example.
    """

    theta: Row
    before: Row
    mean: Row
    square: Row
    gradient: Row
    row: Row
    scale: Row
    constants: Row
    decay: Row
    mixing: Row
    work: Row
    labels: Row


class Rule(NamedTuple):
    """Optimiser of a network, and its label smoothing; names as in `zoo.recipes.optimizer.Optimizer`."""

    sgd: bool
    momentum: float
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    label_smoothing: float


class Splits(NamedTuple):
    """Training and test examples.

    Attributes:
        train, test: Examples of each split, one after the other, each padded to D numbers, in blocks of 16,
            `(blocks * 16 * D,)`.
        train_labels, test_labels: Their labels, `(blocks * 16,)`, -1 where the last block has no example.
    """

    train: Row
    train_labels: Row
    test: Row
    test_labels: Row
