"""Checks that the program of a network has the gradient of its module.

Tracing misses what is no operation: hooks of the whole network, gradients that are switched off for a part of it,
choices by the type of a value.
"""

import numpy as np
import torch

from zoo.data import Data
from zoo.networks.stack import stack_gradient
from zoo.seeds import rng_for
from zoo.training.compiled.kernels import train_epoch
from zoo.training.compiled.lowering import lower
from zoo.training.compiled.memory import Workspace, read_splits
from zoo.training.compiled.program import Program
from zoo.training.compiled.state import Rule
from zoo.treatments import Treated

GRADIENT_DESCENT = Rule(
    sgd=True, momentum=0.0, beta1=0.0, beta2=0.0, epsilon=1.0, weight_decay=0.0, label_smoothing=0.0
)


def program_for(treated: Treated, shape: tuple[int, ...], batch: int) -> Program | None:
    """Return the program of a network, or None if it cannot be lowered or has another gradient than the module.

    Arguments:
        treated: Architecture and treatment of the network.
        shape: Shape of an example.
        batch: Number of examples in a minibatch.
    """
    program = lower(treated, shape, batch)
    return program if program is not None and has_gradient_of_module(program, treated, shape, batch) else None


def has_gradient_of_module(program: Program, treated: Treated, shape: tuple[int, ...], batch: int) -> bool:
    """Return whether a step along the gradient, at random weights and examples, is the same in program and module."""
    rng = rng_for(0, "compiled/check")
    treated = treated.take(torch.tensor([0]))
    start = treated.keep_trainable(treated.layout.draw_initial(rng)[None])
    x = torch.from_numpy(rng.standard_normal((batch, *shape), dtype=np.float32))
    y = torch.from_numpy(rng.integers(0, program.ops[-1]["outputs"], batch))
    try:
        _, gradient = stack_gradient(treated.stack(treated.to_rows(start)), x[None], y[None])
    except Exception:  # runs code of the module, which may raise anything
        return False
    network = Workspace(program, treated, start, batch).begin(0)
    splits = read_splits(Data("random", x, y, x, y, classes=int(y.max()) + 1))
    rates, order = np.array([[1, 0, 0]], np.float32), np.arange(batch)[None]
    train_epoch(program.ops, network, GRADIENT_DESCENT, rates, order, splits, False)
    found, expected = program.unpack(network.theta), (start - treated.keep_trainable(gradient))[0]
    return bool((found - expected).abs().max() <= 1e-4 * (1 + gradient.abs().max()))
