"""Gaussian variational posteriors, K at once.

The weights of each layer have the posterior

    q(w) = N(mu, V V^T / r + diag(s)),

V of r columns, and maximise the evidence lower bound `E_q log p(D | w) - KL(q || p)` under the prior
`p(w) = N(0, diag(1 / precision))`. Norms are trained as numbers. Rank 0 is the mean field, with trained `s`; else
`s` is held. Every example meets weights of its own, drawn by what they make of it (local reparametrisation).

Source: Blundell, Cornebise, Kavukcuoglu, Wierstra 2015; Kingma, Salimans, Welling 2015; Tomczak, Swaroop, Turner 2020,
*Efficient Low Rank Gaussian Variational Inference for Neural Networks*, with the settings of Lim et al. 2024, Table 2.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from benchmark.inference.energy import Loss, endless_batches
from zoo.data import Data
from zoo.seeds import rng_for, seed_for
from zoo.stack import cross_entropy, one_by_one
from zoo.treatments import Treated

Watch = Callable[[int, "Variational", Float[Tensor, " networks"], Float[Tensor, " networks"]], object]
LAYERS = (nn.Linear, nn.Conv2d)


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

    @cached_property
    def _constants(self) -> tuple[Tensor, Tensor]:
        """Which columns are random, as numbers, and what they add to every divergence."""
        return self.random.to(self.theta), (self.precision[self.random].log() + 1).sum()

    def divergence(self) -> Float[Tensor, " networks"]:
        """Return `KL(q || p)` of each, in nats; of what is trained as a number, the prior's energy alone."""
        share, constant = self._constants
        energy = self.theta.square() @ self.precision + self.variance @ self.precision
        entropy = self.log_variance.expand_as(self.theta) @ share + constant
        if rank := self.factors.shape[1]:
            factors, s = self.treated.layout.unflatten(self.factors), self.log_variance[..., None].exp()
            for name, places in layers_of(self.treated).items():
                each = [factors[f"{name}.{own}"].flatten(2) for own in places]
                gram = torch.stack([v @ v.mT for v in each]).sum(0) / rank  # V^T V / r
                energy = energy + self.precision[places["weight"]].amax() * gram.diagonal(dim1=1, dim2=2).sum(1)
                entropy = entropy + torch.logdet(torch.eye(rank).to(gram) + gram / s)
        return (energy - entropy) / 2


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
    watch: Watch = lambda step, posterior, data_term, divergence: None,
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
        watch: told at every step its number, the posteriors, their expected loss on the batch and their divergence.
    """
    posterior = _begin(treated, start, settings, random, seed, pairs)
    trained = [posterior.theta, posterior.factors if settings.rank else posterior.log_variance]
    for tensor in trained:
        tensor.requires_grad_()
    optimizer = torch.optim.Adam(trained, settings.learning_rate, fused=True)
    network = Local.throughout(treated)
    generators = [torch.Generator().manual_seed(seed_for(seed, "noise", pair)) for pair in pairs]
    shapes, examples = output_shapes(treated, data.train_x[:1]), len(data.train_y)
    whole = all(posterior.random[place].all() for places in layers_of(treated).values() for place in places.values())
    for step, (x, y) in enumerate(islice(endless_batches(data, settings.batch_size, seed, pairs), settings.steps)):
        noise = draw_noise(shapes, settings.rank, x.shape[1], generators, x.dtype)
        expected = loss(run_noisy(network, posterior, x, noise), y)
        divergence = posterior.divergence()
        optimizer.zero_grad()
        (expected + divergence / examples).sum().backward()
        assert trained[1].grad is not None
        if not whole:
            trained[1].grad.mul_(posterior.random)
        optimizer.step()
        watch(step + 1, posterior, expected.detach(), divergence.detach())
    for tensor in trained:
        tensor.requires_grad_(False)
    return posterior


class Local(nn.Module):
    """A layer whose weights each example draws for itself: what they make of it is drawn instead.

    Arguments:
        layer: that is made random.

    Attributes:
        columns: the layer with mean and factors side by side as its outputs.
        variance: the layer with the diagonal as its weights; of one output if all have the same.
        z: for each example, 1 and `rank` standard normals over `sqrt(rank)`, `(B, 1 + rank)`.
        noise: a standard normal for each output, `(B, ...)`.
    """

    noise: Tensor
    z: Tensor

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.columns, self.variance = layer, copy.deepcopy(layer)
        self.register_buffer("noise", torch.zeros(()))
        self.register_buffer("z", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs `(B, ...)` to random outputs `(B, ...)`."""
        variance = self.variance(x.square()) + torch.finfo(x.dtype).tiny  # no root at zero
        columns = self.columns(x).unflatten(1, (self.z.shape[1], -1))  # (B, 1 + rank, ...)
        z = self.z.view(*self.z.shape, *[1] * (columns.ndim - 2))
        return (columns * z).sum(1).addcmul(variance.sqrt(), self.noise)

    @classmethod
    def throughout(cls, treated: Treated) -> nn.Module:
        """Return a copy of a network, all of its layers made random."""
        module = copy.deepcopy(treated.module)
        for name in layers_of(treated):
            module.set_submodule(name, cls(module.get_submodule(name)))
        return module


def layers_of(treated: Treated) -> dict[str, dict[str, slice]]:
    """Return where in a row the parameters of each linear map and convolution stand, by its name and theirs."""
    layers = {name: part for name, part in treated.module.named_modules() if isinstance(part, LAYERS)}
    slices = treated.layout.slices
    return {name: {own: slices[f"{name}.{own}"] for own, _ in part.named_parameters()} for name, part in layers.items()}


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


def output_shapes(treated: Treated, x: Float[Tensor, "1 ..."]) -> dict[str, torch.Size]:
    """Return the shape of what each layer makes of one example."""
    shapes: dict[str, torch.Size] = {}
    module = copy.deepcopy(treated.module)
    for name in layers_of(treated):
        keep = partial(lambda own, part, given, output: shapes.update({own: output.shape[1:]}), name)
        module.get_submodule(name).register_forward_hook(keep)
    module(x)
    return shapes


def draw_noise(
    shapes: dict[str, torch.Size], rank: int, examples: int, generators: Sequence[torch.Generator], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Draw what `Local` layers need, `(K, B, ...)`, of each network by its own generator."""
    wanted = {f"{name}.noise": shape for name, shape in shapes.items()} | {f"{name}.z": (rank,) for name in shapes}
    sizes = [examples * prod(shape) for shape in wanted.values()]
    drawn = torch.stack([torch.randn(sum(sizes), generator=own, dtype=dtype) for own in generators]).split(sizes, 1)
    noise = {n: part.unflatten(1, (examples, *shape)) for (n, shape), part in zip(wanted.items(), drawn, strict=True)}
    for name in shapes:
        noise[f"{name}.z"] = nn.functional.pad(noise[f"{name}.z"] / max(1, rank) ** 0.5, (1, 0), value=1.0)
    return noise


def run_noisy(
    network: nn.Module, posterior: Variational, x: Float[Tensor, "networks batch ..."], noise: dict[str, Tensor]
) -> Float[Tensor, "networks batch outputs"]:
    """Run each network on its batch, every example with weights of its own."""
    layout, layers = posterior.treated.layout, layers_of(posterior.treated)
    rows, factors, variances = map(layout.unflatten, (posterior.rows, posterior.factors, posterior.variance))
    alike = posterior.log_variance.shape[1] == 1
    tensors = dict(noise)
    for name, mean in rows.items():
        layer, _, own = name.rpartition(".")
        if layer not in layers:
            tensors[name] = mean
            continue
        tensors[f"{layer}.columns.{own}"] = torch.cat([mean[:, None], factors[name]], 1).flatten(1, 2)
        outputs = 1 if alike and all(posterior.random[place].all() for place in layers[layer].values()) else None
        tensors[f"{layer}.variance.{own}"] = variances[name][:, :outputs]
    if not one_by_one(posterior.treated.module, x.device):
        return vmap(lambda own, batch: functional_call(network, own, (batch,)))(tensors, x)
    each = zip(*(values.unbind() for values in tensors.values()), strict=True)
    return torch.stack(
        [
            functional_call(network, dict(zip(tensors, own, strict=True)), (batch,))
            for own, batch in zip(each, x, strict=True)
        ]
    )
