"""Gaussian variational posteriors, K at once.

The weights of each layer have the posterior

    q(w) = N(mu, V V^T / r + diag(s)),

V of r columns, and maximise the evidence lower bound `E_q log p(D | w) - KL(q || p)` under the prior
`p(w) = N(0, diag(1 / precision))`. Norms are trained as numbers. Rank 0 is the mean field, with trained `s`; else
`s` is held. Every example meets weights of its own (`benchmark.inference.local`).

Source: Blundell, Cornebise, Kavukcuoglu, Wierstra 2015, *Weight Uncertainty in Neural Networks*,
https://arxiv.org/abs/1505.05424; Tomczak, Swaroop, Turner 2020, *Efficient Low Rank Gaussian Variational Inference for
Neural Networks*, https://proceedings.neurips.cc/paper/2020/hash/310cc7ca5a76a446f85c1a0d641ba96d-Abstract.html; with
the settings of Lim et al. 2024, *The Empirical Impact of Neural Parameter Symmetries, or Lack Thereof*, table 2,
https://arxiv.org/abs/2405.20231.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import functional_call, vmap

from benchmark.inference.energy import Loss, endless_batches, generators_for
from benchmark.inference.local import draw_noise, layers_of, localise, output_shapes
from zoo.data import Data
from zoo.networks.stack import cross_entropy, one_by_one
from zoo.seeds import rng_for
from zoo.treatments import Treated

Watch = Callable[[int, Callable[[], "Variational"], Float[Tensor, " networks"], Float[Tensor, " networks"]], object]


@dataclass(frozen=True)
class Settings:
    """How posteriors are trained.

    Arguments:
        rank: of the covariance beside its diagonal; 0 trains the diagonal instead.
        steps: of Adam.
        batch_size: examples a step.
        learning_rate: of Adam.
        log_variance: `log s`, held, or to begin with.
        precision: of the prior, as a share of the number of a layer's outputs.
    """

    rank: int = 4
    steps: int = 10_000
    batch_size: int = 250
    learning_rate: float = 5e-4
    log_variance: float = -10.0
    precision: float = 0.01


@dataclass(frozen=True)
class Variational:
    """K Gaussian posteriors.

    Attributes:
        treated: what the networks are.
        theta: mean of what trains, `(K, P)`.
        factors: the columns of `V`, `(K, r, P)`, zero where nothing is random.
        log_variance: `log s`, `(K, P)`, or `(K, 1)` beside factors.
        random: which columns are random, `(P,)`.
        precision: of the prior, `(P,)`, zero where there is none.
    """

    treated: Treated
    theta: Float[Tensor, "networks parameters"]
    factors: Float[Tensor, "networks rank parameters"]
    log_variance: Float[Tensor, "networks #parameters"]
    random: Bool[Tensor, " parameters"]
    precision: Float[Tensor, " parameters"]

    @property
    def rows(self) -> Float[Tensor, "networks parameters"]:
        """The means, as networks use them."""
        return self.treated.rows(self.theta)

    @property
    def variance(self) -> Float[Tensor, "networks parameters"]:
        """The diagonal `s`, zero where nothing is random."""
        return self.log_variance.exp() * self.random

    @torch.no_grad()
    def draw(self, samples: int, generator: torch.Generator) -> Float[Tensor, "networks samples parameters"]:
        """Draw rows, as networks use them."""
        networks, rank, columns = self.factors.shape
        like: dict[str, Any] = {"generator": generator, "device": self.theta.device, "dtype": self.theta.dtype}
        rows = torch.randn(networks, samples, columns, **like) * self.variance.sqrt()[:, None] + self.rows[:, None]
        for places in layers_of(self.treated).values():
            z = torch.randn(networks, samples, rank, **like) / max(1, rank) ** 0.5
            for place in places.values():
                rows[..., place] += z @ self.factors[..., place]
        return rows

    def part(self, some: slice) -> "Variational":
        """Return some of the posteriors."""
        theta, factors, log_variance = (tensor[some] for tensor in (self.theta, self.factors, self.log_variance))
        return replace(self, theta=theta, factors=factors, log_variance=log_variance)

    @classmethod
    def join(cls, parts: Sequence["Variational"]) -> "Variational":
        """Return the posteriors of all parts."""
        each = ((part.theta, part.factors, part.log_variance) for part in parts)
        theta, factors, log_variance = map(torch.cat, zip(*each, strict=True))
        return replace(parts[0], theta=theta, factors=factors, log_variance=log_variance)


def fit(
    treated: Treated,
    start: Float[Tensor, "networks parameters"],
    data: Data,
    settings: Settings,
    *,
    seed: int,
    pairs: Sequence[int],
    random: Bool[Tensor, " parameters"] | None = None,
    loss: Loss = cross_entropy,
    watch: Watch = lambda step, posteriors, expected, divergence: None,
) -> Variational:
    """Train K posteriors at once.

    Arguments:
        treated: what the networks are.
        start: means to begin with, as networks use them, `(K, P)`.
        data: whose train split is observed.
        settings: of the training.
        seed, pairs: posterior `k` sees the data, and draws its noise, in the order of `pairs[k]`.
        random: which weights are random, `(P,)`; all that train by default. Others are numbers.
        loss: the mean negative log-likelihood of labels given a network's outputs.
        watch: told at every step its number, how to get the posteriors, their expected loss on the batch and their
            divergence.
    """
    posterior = _begin(treated, start, settings, random, seed, pairs)
    size = 1 if one_by_one(treated.module, start.device) else len(pairs)
    parts = [slice(k, k + size) for k in range(0, len(pairs), size)]
    groups = [Trainees(posterior.part(part)) for part in parts]
    optimizers = [torch.optim.Adam(group.tensors, settings.learning_rate, fused=True) for group in groups]
    batches = [endless_batches(data, settings.batch_size, seed, pairs[part]) for part in parts]
    generators = [generators_for(seed, "noise", pairs[part]) for part in parts]
    shapes, examples = output_shapes(treated, data.train_x[:1]), len(data.train_y)

    def posteriors() -> Variational:
        return Variational.join([group.posterior() for group in groups])

    for step in range(1, settings.steps + 1):
        terms: list[tuple[Tensor, Tensor]] = []
        for group, optimizer, some, own in zip(groups, optimizers, batches, generators, strict=True):
            x, y = next(some)
            expected = loss(group(x, draw_noise(shapes, settings.rank, x, own)), y)
            optimizer.zero_grad()
            expected.sum().backward()
            group.keep_fixed()
            terms.append((expected.detach(), group.divergence(1 / examples)))
            optimizer.step()
        watch(step, posteriors, *map(torch.cat, zip(*terms, strict=True)))
    return posteriors()


class Trainees:
    """Posteriors in training, tensor by tensor of their networks, so that what is at hand stays in cache.

    Arguments:
        posterior: what to begin with.

    Attributes:
        theta: means of what trains, `(K, *shape)`.
        spread: of the weights of layers, the factors `(K, r, *shape)`, or log variances `(K, *shape)` if r is 0.
    """

    def __init__(self, posterior: Variational) -> None:
        treated, split = posterior.treated, posterior.treated.layout.unflatten
        self.begun, self.rank, self.layers = posterior, posterior.factors.shape[1], layers_of(treated)
        self.network, self.alone = localise(treated, self.rank), one_by_one(treated.module, posterior.theta.device)
        weights = [f"{layer}.{kind}" for layer, places in self.layers.items() for kind in places]
        self.theta = {name: tensor.clone().requires_grad_() for name, tensor in split(posterior.theta).items()}
        spread = split(posterior.factors if self.rank else posterior.log_variance)
        self.spread = {name: spread[name].clone().requires_grad_() for name in weights}
        random, precision = split(posterior.random.to(posterior.theta)), split(posterior.precision)
        self.random = {name: random[name] for name in weights if not random[name].all()}
        self.count = {name: int(random[name].sum()) for name in weights}
        self.precision = {
            name: max(float(precision[f"{name}.{k}"].amax()) for k in p) for name, p in self.layers.items()
        }
        self.used = None  # constants and scales of what is used, where it is not `theta` itself
        if treated.constants is not None and treated.scale is not None:
            self.used = split(treated.constants), split(treated.scale)

    @property
    def tensors(self) -> list[Tensor]:
        """All that trains."""
        return [*self.theta.values(), *self.spread.values()]

    def posterior(self) -> Variational:
        """Return the posteriors as they are now."""
        layout, begun = self.begun.treated.layout, self.begun
        theta = layout.flatten({name: tensor.detach() for name, tensor in self.theta.items()})
        of_others = layout.unflatten(begun.factors if self.rank else begun.log_variance)
        spread = layout.flatten(of_others | {name: tensor.detach() for name, tensor in self.spread.items()})
        if self.rank:
            return replace(begun, theta=theta, factors=spread)
        return replace(begun, theta=theta, log_variance=spread)

    def __call__(
        self, x: Float[Tensor, "networks batch ..."], noise: dict[str, Tensor]
    ) -> Float[Tensor, "networks batch outputs"]:
        """Run each network on its batch, every example with weights of its own."""
        tensors = dict(noise)
        for name, theta in self.theta.items():
            mean = theta if self.used is None else torch.addcmul(self.used[0][name], self.used[1][name], theta)
            layer, _, kind = name.rpartition(".")
            tensors |= self._local(layer, kind, mean) if layer in self.layers else {name: mean}
        if not self.alone:
            return vmap(lambda own, batch: functional_call(self.network, own, (batch,)))(tensors, x)
        own = {name: tensor.squeeze(0) for name, tensor in tensors.items()}
        return functional_call(self.network, own, (x.squeeze(0),))[None]

    def _local(self, layer: str, kind: str, mean: Tensor) -> dict[str, Tensor]:
        """Return what `Local` needs of a layer's weight or bias."""
        name = f"{layer}.{kind}"
        spread, random = self.spread[name], self.random.get(name)
        if self.rank:
            part, own = ("factors.weight", spread.flatten(1, 2)) if kind == "weight" else ("factor_bias", spread)
            factors = {f"{layer}.{part}": own}
            variance = self._held.view(-1, *[1] * (mean.ndim - 1))
            if any(f"{layer}.{k}" in self.random for k in self.layers[layer]):
                variance = variance.expand_as(mean)
            else:
                variance = variance.expand(-1, 1, *mean.shape[2:])  # one output does for all
        else:
            factors, variance = {}, spread.exp()
        variance = variance if random is None else variance * random
        if kind == "bias":
            variance = variance + torch.finfo(mean.dtype).tiny
        return {f"{layer}.mean.{kind}": mean, f"{layer}.variance.{kind}": variance, **factors}

    def keep_fixed(self) -> None:
        """Leave out of the gradients the spread of what is not random."""
        for name, random in self.random.items():
            _gradient(self.spread[name]).mul_(random)

    @property
    def _held(self) -> Float[Tensor, " networks"]:
        """The variance `s` beside factors."""
        return self.begun.log_variance[:, 0].exp()

    @torch.no_grad()
    def divergence(self, share: float = 0.0) -> Float[Tensor, " networks"]:
        """Return `KL(q || p)` of each, in nats, and add that share of its gradient to the gradients.

        Of what is trained as a number it has the prior's energy alone.
        All weights of a layer have one precision, so of each layer

            2 KL = p (|mu|^2 + tr S + |V|^2 / r) - log det(S + V V^T / r) - n (log p + 1)

        where `log det(S + V V^T / r) = log det S + log det(I + V^T V / (r s))`.
        """
        total = torch.zeros_like(self.begun.theta[:, 0])
        for layer, places in self.layers.items():
            names, precision = [f"{layer}.{kind}" for kind in places], self.precision[layer]
            for name in names:
                total += precision * self.theta[name].flatten(1).norm(dim=1).square()
                if share:
                    _gradient(self.theta[name]).add_(self.theta[name], alpha=share * precision)
            total -= sum(self.count[name] for name in names) * (log(precision) + 1)
            total += (self._of_factors if self.rank else self._of_variances)(names, precision, share)
        return total / 2

    def _of_factors(self, names: list[str], precision: float, share: float) -> Float[Tensor, " networks"]:
        """Return what the divergence has of the covariance of a layer's weights."""
        factors = {name: self.spread[name].flatten(2) for name in names}  # (K, r, n)
        gram = torch.stack([v @ v.mT for v in factors.values()]).sum(0) / self.rank
        held, one = self._held[:, None, None], torch.eye(self.rank).to(gram)
        if share:
            change = (precision * one - torch.linalg.inv(held * one + gram)) * (share / self.rank)
            for name, v in factors.items():
                _gradient(self.spread[name]).view(v.shape).baddbmm_(change, v)
        diagonal = sum(self.count[name] for name in names) * (precision * self._held - self.begun.log_variance[:, 0])
        return diagonal + precision * gram.diagonal(dim1=1, dim2=2).sum(1) - torch.logdet(one + gram / held)

    def _of_variances(self, names: list[str], precision: float, share: float) -> Float[Tensor, " networks"]:
        total = torch.zeros_like(self.begun.theta[:, 0])
        for name in names:
            log_variance, random = self.spread[name], self.random.get(name)
            variance, logarithm = log_variance.exp(), log_variance
            if random is not None:
                variance, logarithm = variance * random, logarithm * random
            total += (precision * variance.flatten(1).sum(1)) - logarithm.flatten(1).sum(1)
            if share:
                gradient = _gradient(log_variance).add_(variance, alpha=share * precision / 2)
                gradient.sub_(1.0 if random is None else random, alpha=share / 2)
        return total


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def _begin(
    treated: Treated, start: Tensor, settings: Settings, random: Tensor | None, seed: int, pairs: Sequence[int]
) -> Variational:
    """Lay out posteriors around their first means."""
    theta, layout = treated.thetas_of(start).clone(), treated.layout
    own = treated.trainable if random is None else treated.trainable & random
    drawn, precision = torch.zeros_like(own), torch.zeros(layout.size)
    scale = torch.zeros_like(theta)  # of the first factors: half of the spread of what is random
    for name, places in layers_of(treated).items():
        for kind, place in places.items():
            drawn[place], precision[place] = own[place], settings.precision * layout[f"{name}.weight"].shape[0]
            spread = theta[:, place][:, own[place]].std(1, correction=0, keepdim=True) if own[place].any() else 0.0
            scale[:, place] = spread / (2 * max(1, settings.rank) ** 0.5) if kind == "weight" else 0.01
    normals = [rng_for(seed, "factors", pair).standard_normal((settings.rank, layout.size)) for pair in pairs]
    factors = torch.from_numpy(np.stack(normals)).to(theta) * scale[:, None] * drawn
    log_variance = torch.full_like(theta[:, :1] if settings.rank else theta, settings.log_variance)
    return Variational(treated, theta, factors, log_variance, drawn, precision.to(theta) * treated.trainable)
