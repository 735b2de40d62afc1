"""The program of a network: its operations, and where everything lies that they read and write."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

PLACES = ("x", "other", "y", "dx", "d_other", "dy", "weight", "bias", "saved", "scales", "transposed")
# One operation: what it is, its numbers of units, and the places of what it reads and writes; -1 is nowhere. `x`,
# `other` and `y` are its inputs and its output, `dx`, `d_other` and `dy` their gradients, `saved` and `scales` what its
# backward pass needs, all in the array `work`; `transposed` holds its output, then its gradient, as rows.
# `weight` and `bias` are places in a row, or in the matrices of FiGLU.
OP = np.dtype([(name, np.int64) for name in ("kind", "inputs", "outputs", *PLACES)] + [("epsilon", np.float64)])


@dataclass(frozen=True)
class Program:
    """Operations of a network, and the sizes of the arrays that they work on.

    Attributes:
        ops: Operations in order, of type `OP`.
        places: Place of every entry of a row in a padded row, `(P,)`.
        size: Length of a padded row.
        work: Length of the array of activations, gradients and what backward passes need.
        mixed: Place of the padded matrix of each FiGLU module, by name.
    """

    ops: NDArray[Any]
    places: NDArray[np.int64]
    size: int
    work: int
    mixed: dict[str, int]

    def pack(self, rows: Float[Tensor, "networks parameters"]) -> NDArray[np.float32]:
        """Return padded rows, `(K, size)`."""
        packed = torch.zeros(len(rows), self.size)  # torch aligns memory to the registers of every processor
        packed[:, torch.from_numpy(self.places)] = rows.float()
        return packed.numpy()

    def unpack(self, row: NDArray[np.float32]) -> Float[Tensor, " parameters"]:
        """Return the row of a padded one."""
        return torch.from_numpy(row[self.places])
