"""Gaussian variational posteriors, K at once.

The weights of each layer have the posterior

    q(w) = N(mu, V V^T / r + diag(s)),

with r columns in V, and maximise the evidence lower bound `E_q log p(D | w) - KL(q || p)` under the prior
`p(w) = N(0, diag(1 / precision))`. Parameters of norms are plain numbers without variance. If r is 0, `s` is
trained (the mean field); otherwise `s` is constant. Every example has its own random weights
(`benchmark.inference.local`).

Source: Blundell, Cornebise, Kavukcuoglu, Wierstra 2015, *Weight Uncertainty in Neural Networks*,
https://arxiv.org/abs/1505.05424; Tomczak, Swaroop, Turner 2020, *Efficient Low Rank Gaussian Variational Inference for
Neural Networks*, https://proceedings.neurips.cc/paper/2020/hash/310cc7ca5a76a446f85c1a0d641ba96d-Abstract.html; with
the settings of Lim et al. 2024, *The Empirical Impact of Neural Parameter Symmetries, or Lack Thereof*, table 2,
https://arxiv.org/abs/2405.20231.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from benchmark.inference.energy import Loss, endless_batches, generators_for
from benchmark.inference.gaussian import Variational
from benchmark.inference.local import draw_noise, layers_of, output_shapes
from benchmark.inference.trainees import Trainees
from zoo.data import Data
from zoo.networks.stack import cross_entropy, one_by_one
from zoo.seeds import rng_for
from zoo.treatments import Treated

OnStep = Callable[[int, Callable[[], Variational], Float[Tensor, " networks"], Float[Tensor, " networks"]], object]


@dataclass(frozen=True)
class Settings:
    """How posteriors are trained.

    Arguments:
        rank: Number r of columns in V; if it is 0, the diagonal `s` is trained instead.
        steps: Number of steps of Adam.
        batch_size: Number of examples in a step.
        learning_rate: Learning rate of Adam.
        log_variance: Logarithm of `s`: its constant value, or its initial value if r is 0.
        precision: Precision of the prior of a layer's weights, divided by the number of its outputs.
        seed: Seed of the initial factors, of the noise and of the order of the data.
        loss: Mean negative log-likelihood of labels, given a network's outputs.
    """

    rank: int = 4
    steps: int = 10_000
    batch_size: int = 250
    learning_rate: float = 5e-4
    log_variance: float = -10.0
    precision: float = 0.01
    seed: int = 0
    loss: Loss = cross_entropy


def fit(
    treated: Treated,
    rows: Float[Tensor, "networks parameters"],
    data: Data,
    settings: Settings,
    *,
    pairs: Sequence[int],
    random: Bool[Tensor, " parameters"] | None = None,
    on_step: OnStep = lambda step, posteriors, expected, divergence: None,
) -> Variational:
    """Train K posteriors at once.

    Arguments:
        treated: Architecture and treatment of the networks.
        rows: Initial means, as rows.
        data: Data whose train split is observed.
        settings: How posteriors are trained.
        pairs: Numbers of the networks' pairs; each seeds the initial factors and the noise of a posterior, and the
            order in which it sees the data.
        random: True for weights that are random, `(P,)`; by default all that train. Others have no variance.
        on_step: Function that is called after every step with its number, a function that returns the posteriors, their
            expected loss on the batch, and their divergence.
    """
    seed, loss = settings.seed, settings.loss
    posterior = _begin(treated, rows, settings, random, pairs)
    size = 1 if one_by_one(treated.module, rows.device) else len(pairs)
    parts = [slice(k, k + size) for k in range(0, len(pairs), size)]
    groups = [Trainees(posterior.part(part)) for part in parts]
    optimizers = [torch.optim.Adam(group.tensors, settings.learning_rate, fused=True) for group in groups]
    streams = [endless_batches(data, settings.batch_size, seed, pairs[part]) for part in parts]
    generators = [generators_for(seed, "noise", pairs[part], rows.device) for part in parts]
    shapes, examples = output_shapes(treated, data.train_x[:1]), len(data.train_y)

    def posteriors() -> Variational:
        return Variational.join([group.posterior() for group in groups])

    for step in range(1, settings.steps + 1):
        terms: list[tuple[Tensor, Tensor]] = []
        for group, optimizer, stream, rngs in zip(groups, optimizers, streams, generators, strict=True):
            x, y = next(stream)
            expected = loss(group(x, draw_noise(shapes, settings.rank, x, rngs)), y)
            optimizer.zero_grad()
            expected.sum().backward()
            group.keep_fixed()
            terms.append((expected.detach(), group.divergence(1 / examples)))
            optimizer.step()
        on_step(step, posteriors, *map(torch.cat, zip(*terms, strict=True)))
    return posteriors()


def _begin(
    treated: Treated, rows: Tensor, settings: Settings, random: Tensor | None, pairs: Sequence[int]
) -> Variational:
    """Return the initial posteriors.

    The factors are normal, with the standard deviation of the layer's random weights divided by `2 sqrt(r)`; for biases
    it is .01.
    """
    theta, layout = treated.from_rows(rows).clone(), treated.layout
    trains = treated.mask.to(theta.device)
    mask = trains if random is None else trains & random.to(theta.device)
    in_layers, precision = torch.zeros_like(mask), torch.zeros(layout.size).to(theta)
    scale = torch.zeros_like(theta)  # of the factors
    for name, places in layers_of(treated).items():
        for kind, place in places.items():
            in_layers[place], precision[place] = mask[place], settings.precision * layout[f"{name}.weight"].shape[0]
            spread = theta[:, place][:, mask[place]].std(1, correction=0, keepdim=True) if mask[place].any() else 0.0
            scale[:, place] = spread / (2 * max(1, settings.rank) ** 0.5) if kind == "weight" else 0.01
    shape = settings.rank, layout.size
    normals = [rng_for(settings.seed, "factors", pair).standard_normal(shape) for pair in pairs]
    factors = torch.from_numpy(np.stack(normals)).to(theta) * scale[:, None] * in_layers
    log_variance = torch.full_like(theta[:, :1] if settings.rank else theta, settings.log_variance)
    return Variational(treated, theta, factors, log_variance, in_layers, precision * trains)
