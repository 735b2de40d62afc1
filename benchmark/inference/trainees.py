"""Variational posteriors in training: their random outputs, their divergence from the prior and its gradient."""

from dataclasses import replace
from math import log

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, vmap

from benchmark.inference.gaussian import Variational
from benchmark.inference.local import layers_of, localise
from zoo.networks.stack import one_by_one


class Trainees:
    """Posteriors in training. Each parameter has a tensor of its own, so that what a step works on stays in cache.

    Arguments:
        posterior: Initial posteriors.

    Attributes:
        theta: Means of the trained parameters theta, `(K, *shape)` by parameter.
        spread: Factors `(K, r, *shape)` of layers' weights by parameter, or log variances `(K, *shape)` if r is 0.
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
        self.used = None  # constants and scales of the rows, where these are not `theta` itself
        if treated.constants is not None and treated.scale is not None:
            self.used = split(treated.constants), split(treated.scale)

    @property
    def tensors(self) -> list[Tensor]:
        """Tensors that train."""
        return [*self.theta.values(), *self.spread.values()]

    def posterior(self) -> Variational:
        """Return the posteriors in their present state."""
        layout, begun = self.begun.treated.layout, self.begun
        theta = layout.flatten({name: tensor.detach() for name, tensor in self.theta.items()})
        spreads = layout.unflatten(begun.factors if self.rank else begun.log_variance)  # norms keep their initial ones
        spread = layout.flatten(spreads | {name: tensor.detach() for name, tensor in self.spread.items()})
        if self.rank:
            return replace(begun, theta=theta, factors=spread)
        return replace(begun, theta=theta, log_variance=spread)

    def __call__(
        self, x: Float[Tensor, "networks batch ..."], noise: dict[str, Tensor]
    ) -> Float[Tensor, "networks batch outputs"]:
        """Run each network on its batch, every example with its own random weights.

        Arguments:
            x: Batch of each network.
            noise: Buffers that `benchmark.inference.local.draw_noise` returns.
        """
        tensors = dict(noise)
        for name, theta in self.theta.items():
            mean = theta if self.used is None else torch.addcmul(self.used[0][name], self.used[1][name], theta)
            layer, _, kind = name.rpartition(".")
            tensors |= self._local(layer, kind, mean) if layer in self.layers else {name: mean}
        if not self.alone:
            return vmap(lambda network, batch: functional_call(self.network, network, (batch,)))(tensors, x)
        single = {name: tensor.squeeze(0) for name, tensor in tensors.items()}
        return functional_call(self.network, single, (x.squeeze(0),))[None]

    def _local(self, layer: str, kind: str, mean: Tensor) -> dict[str, Tensor]:
        """Return the parameters and buffers of `Local` for a layer's weight or bias."""
        name = f"{layer}.{kind}"
        spread, random = self.spread[name], self.random.get(name)
        if self.rank:
            part, values = ("factors.weight", spread.flatten(1, 2)) if kind == "weight" else ("factor_bias", spread)
            factors = {f"{layer}.{part}": values}
            variance = self._constant_variance.view(-1, *[1] * (mean.ndim - 1))
            if any(f"{layer}.{k}" in self.random for k in self.layers[layer]):
                variance = variance.expand_as(mean)
            else:
                variance = variance.expand(-1, 1, *mean.shape[2:])  # the same for all outputs
        else:
            factors, variance = {}, spread.exp()
        variance = variance if random is None else variance * random
        if kind == "bias":
            variance = variance + torch.finfo(mean.dtype).tiny
        return {f"{layer}.mean.{kind}": mean, f"{layer}.variance.{kind}": variance, **factors}

    def keep_fixed(self) -> None:
        """Set the gradients of the spread to zero where weights are not random."""
        for name, random in self.random.items():
            _gradient(self.spread[name]).mul_(random)

    @property
    def _constant_variance(self) -> Float[Tensor, " networks"]:
        """Variance `s`, if there are factors."""
        return self.begun.log_variance[:, 0].exp()

    @torch.no_grad()
    def divergence(self, scale: float = 0.0) -> Float[Tensor, " networks"]:
        """Return `KL(q || p)` of each posterior, in nats, and add `scale` times its gradient to the gradients.

        All n random weights of a layer have the same prior precision p, so for each layer

            2 KL = p (|mu|^2 + tr S + |V|^2 / r) - log det(S + V V^T / r) - n (log p + 1)

        where `log det(S + V V^T / r) = log det S + log det(I + V^T V / (r s))`. A weight without variance contributes
        only its negative log prior `p mu^2 / 2`.
        """
        total = torch.zeros_like(self.begun.theta[:, 0])
        for layer, places in self.layers.items():
            names, precision = [f"{layer}.{kind}" for kind in places], self.precision[layer]
            for name in names:
                total += precision * self.theta[name].flatten(1).norm(dim=1).square()
                if scale:
                    _gradient(self.theta[name]).add_(self.theta[name], alpha=scale * precision)
            total -= sum(self.count[name] for name in names) * (log(precision) + 1)
            total += (self._factor_terms if self.rank else self._variance_terms)(names, precision, scale)
        return total / 2

    def _factor_terms(self, names: list[str], precision: float, scale: float) -> Float[Tensor, " networks"]:
        """Return `p (tr S + |V|^2 / r) - log det(S + V V^T / r)` of a layer."""
        factors = {name: self.spread[name].flatten(2) for name in names}  # (K, r, n)
        gram = torch.stack([v @ v.mT for v in factors.values()]).sum(0) / self.rank
        s, one = self._constant_variance[:, None, None], torch.eye(self.rank, dtype=gram.dtype, device=gram.device)
        if scale:
            change = (precision * one - torch.linalg.inv_ex(s * one + gram).inverse) * (scale / self.rank)
            for name, v in factors.items():
                _gradient(self.spread[name]).view(v.shape).baddbmm_(change, v)
        each = precision * self._constant_variance - self.begun.log_variance[:, 0]  # of a weight
        diagonal = sum(self.count[name] for name in names) * each
        return diagonal + precision * gram.diagonal(dim1=1, dim2=2).sum(1) - torch.logdet(one + gram / s)

    def _variance_terms(self, names: list[str], precision: float, scale: float) -> Float[Tensor, " networks"]:
        """Return `p tr S - log det S` of a layer."""
        total = torch.zeros_like(self.begun.theta[:, 0])
        for name in names:
            log_variance, random = self.spread[name], self.random.get(name)
            variance, logarithm = log_variance.exp(), log_variance
            if random is not None:
                variance, logarithm = variance * random, logarithm * random
            total += (precision * variance.flatten(1).sum(1)) - logarithm.flatten(1).sum(1)
            if scale:
                gradient = _gradient(log_variance).add_(variance, alpha=scale * precision / 2)
                gradient.sub_(1.0 if random is None else random, alpha=scale / 2)
        return total


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad
