"""The memory of compiled functions: examples, and arrays that the networks of a program use in turn."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from zoo.data import Data
from zoo.training.compiled.lanes import LANES
from zoo.training.compiled.layers import padded
from zoo.training.compiled.program import Program
from zoo.training.compiled.state import Network, Row, Splits
from zoo.treatments import Treated


def read_splits(data: Data) -> Splits:
    """Return the examples as compiled functions read them."""
    return Splits(*_blocks(data.train_x, data.train_y), *_blocks(data.test_x, data.test_y))


def _blocks(x: Tensor, y: Tensor) -> tuple[Row, Row]:
    """Return examples and labels, padded to whole blocks of 16."""
    x, missing = x.flatten(1).float(), -len(x) % LANES
    columns = -x.shape[1] % LANES
    if columns or missing:
        x = functional.pad(x, (0, columns, 0, missing))
    return x.flatten().numpy(), functional.pad(y.float(), (0, missing), value=-1.0).numpy()


class Workspace:
    """Memory that the networks of a program use in turn."""

    def __init__(self, program: Program, treated: Treated, start: Tensor, batch: int) -> None:
        self.theta = program.pack(treated.keep_trainable(start))
        self.held = [_packed(program, tensor) for tensor in (treated.scale, treated.constants, _decay(treated))]
        self.mixing = _mixing(program, treated)
        self.state = [_zeros(program.size) for _ in range(5)]
        self.work, self.labels = _zeros(program.work), _zeros(padded.py_func(batch)) - 1

    def begin(self, k: int) -> Network:
        """Return network `k` at its start."""
        for row in self.state:
            row[:] = 0
        before, mean, square, gradient, row = self.state
        before[:] = self.theta[k]
        scale, constants, decay, mixing = (rows[k if len(rows) > 1 else 0] for rows in (*self.held, self.mixing))
        rows = (self.theta[k], before, mean, square, gradient, row)
        return Network(*rows, scale, constants, decay, mixing, self.work, self.labels)


def _decay(treated: Treated) -> Tensor | None:
    return treated.decay if treated.decay.numel() > 1 else None


def _packed(program: Program, values: Tensor | None) -> NDArray[np.float32]:
    """Return values of a treatment as padded rows, `(1, size)` or `(K, size)`, or an empty row."""
    return np.zeros((1, 0), np.float32) if values is None else program.pack(torch.atleast_2d(values))


def _mixing(program: Program, treated: Treated) -> NDArray[np.float32]:
    """Return the padded matrices of FiGLU, one after the other, `(1, size)` or `(K, size)`."""
    parts = []
    for name in program.mixed:
        F = treated.buffers.get(f"{name}.F", treated.module.get_buffer(f"{name}.F")[None])
        parts.append(functional.pad(F, (0, -F.shape[-1] % LANES)).flatten(1))
    return torch.cat(parts, 1).float().numpy() if parts else np.zeros((1, 0), np.float32)


def _zeros(size: int) -> Row:
    return torch.zeros(size).numpy()  # torch aligns memory to the registers of every processor
