"""The energy that posteriors share: minus the log posterior of K networks, but for a constant.

    U(w) = sum_n loss(f_w(x_n), y_n) + 1/2 sum_i precision_i theta_i^2

where `w = constants + scale * theta` is a row and the sum runs over what trains.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zoo.data import Data
from zoo.networks.stack import run_stack
from zoo.seeds import seed_for
from zoo.training.training import batches
from zoo.treatments import Treated

Loss = Callable[[Float[Tensor, "networks batch outputs"], Int[Tensor, "networks batch"]], Float[Tensor, " networks"]]
Precision = float | Float[Tensor, " parameters"]


@dataclass(frozen=True)
class Energy:
    """What is observed and believed beforehand of networks.

    Attributes:
        treated: what the networks are.
        data: whose train split is observed.
        precision: of the prior, a Gaussian around zero, one for all or `(P,)`.
        loss: the mean negative log-likelihood of the labels of a batch, given each network's outputs.
    """

    treated: Treated
    data: Data
    precision: Precision
    loss: Loss

    @classmethod
    def of(cls, rows: Tensor, treated: Treated, data: Data, precision: Precision, loss: Loss) -> "Energy":
        """Bring everything to the device and the precision of the rows."""
        device, dtype = rows.device, rows.dtype
        precision = precision.to(device, dtype) if isinstance(precision, Tensor) else precision
        return cls(treated.to(device, dtype), data.to(device, dtype), precision, loss)

    @property
    def examples(self) -> int:
        """N."""
        return len(self.data.train_y)

    def gradient(
        self,
        rows: Float[Tensor, "networks parameters"],
        x: Float[Tensor, "networks batch ..."],
        y: Int[Tensor, "networks batch"],
    ) -> Float[Tensor, "networks parameters"]:
        """Estimate each network's gradient by the row from a batch of its own; it is zero at fixed entries."""
        rows = rows.detach().requires_grad_()
        loss = self.loss(run_stack(self.treated.stack(rows), x), y)
        (gradient,) = torch.autograd.grad(loss.sum(), rows)
        prior = self.precision * self.treated.thetas_of(rows.detach())
        return self.treated.thetas(gradient * self.examples + prior)


def endless_batches(data: Data, size: int, seed: int, pairs: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield minibatches for ever, those of each network in the order of its pair."""
    for epoch in count():
        yield from batches(data, size, seed, pairs, epoch)


def generators_for(seed: int, purpose: str, pairs: Sequence[int]) -> list[torch.Generator]:
    """Return a generator for each network, on the CPU, the same whatever its companions."""
    return [torch.Generator().manual_seed(seed_for(seed, purpose, pair)) for pair in pairs]
