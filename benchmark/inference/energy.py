"""The energy that posteriors share: the negative log posterior of K networks, up to a constant.

    U(w) = sum_n loss(f_w(x_n), y_n) + 1/2 sum_i precision_i theta_i^2

`w = constants + scale * theta` is a row, the first sum runs over examples and the second over trainable entries.
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
from zoo.training.minibatches import batches
from zoo.treatments import Treated

Loss = Callable[[Float[Tensor, "networks batch outputs"], Int[Tensor, "networks batch"]], Float[Tensor, " networks"]]
Precision = float | Float[Tensor, " parameters"]
PRECISION = 10.0  # of the prior in the results of docs/bayesian.md; not tuned


@dataclass(frozen=True)
class Energy:
    """Likelihood and prior of K networks.

    Attributes:
        treated: Architecture and treatment of the networks.
        data: Data whose train split is observed.
        precision: Precision of the prior, a Gaussian around zero: one for all parameters, or `(P,)`.
        loss: Mean negative log-likelihood of the labels of a batch, given each network's outputs.
    """

    treated: Treated
    data: Data
    precision: Precision
    loss: Loss

    @classmethod
    def of(cls, rows: Tensor, treated: Treated, data: Data, precision: Precision, loss: Loss) -> "Energy":
        """Return the energy with everything on the device, and of the floating-point type, of the rows."""
        device, dtype = rows.device, rows.dtype
        precision = precision.to(device, dtype) if isinstance(precision, Tensor) else precision
        return cls(treated.to(device, dtype), data.to(device, dtype), precision, loss)

    @property
    def examples(self) -> int:
        """Number of examples of the train split, N."""
        return len(self.data.train_y)

    def gradient(
        self,
        rows: Float[Tensor, "networks parameters"],
        x: Float[Tensor, "networks batch ..."],
        y: Int[Tensor, "networks batch"],
    ) -> Float[Tensor, "networks parameters"]:
        """Estimate the gradient of each network's U from its own batch; it is zero at fixed entries."""
        rows = rows.detach().requires_grad_()
        loss = self.loss(run_stack(self.treated.stack(rows), x), y)
        (gradient,) = torch.autograd.grad(loss.sum(), rows)
        prior = self.precision * self.treated.from_rows(rows.detach())
        return self.treated.keep_trainable(gradient * self.examples + prior)


def endless_batches(data: Data, size: int, seed: int, pairs: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield minibatches without end; the order for each network is drawn from the number of its pair.

    Arguments:
        data: Data whose train split is yielded.
        size: Number of examples in a batch.
        seed: Seed of the orders.
        pairs: Numbers of the networks' pairs.
    """
    for epoch in count():
        yield from batches(data, size, seed, pairs, epoch)


def generators_for(
    seed: int, purpose: str, pairs: Sequence[int], device: torch.device | str = "cpu"
) -> list[torch.Generator]:
    """Return a generator for each network, which depends on the number of its pair; on a GPU, one of that GPU."""
    where = device if torch.device(device).type == "cuda" else "cpu"
    return [torch.Generator(where).manual_seed(seed_for(seed, purpose, pair)) for pair in pairs]


def draw_normal(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw from a standard normal where the generator is, and return it on the device, and of the type, of a tensor."""
    return torch.randn(*shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
