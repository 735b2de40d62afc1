"""Trains metanetworks on the train split and chooses their epoch on the validation split.

Several seeds of a small metanetwork train as one stack, their parameters `(S, ...)`, each on batches of its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import smooth_l1_loss
from torch.utils.data import Dataset

from metanets.datasets import Examples, Networks
from metanets.metrics import selection_score
from metanets.settings import Settings
from zoo.seeds import rng_for, seed_for

EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Head:
    """From a metanetwork's number, of order 1, to a prediction in the units of the target.

    Arguments:
        mean, std: of the training networks' targets.
        link: `identity`, or `sigmoid` for accuracies, which it keeps between 0 and 1; both rise alike at the mean.
    """

    mean: float
    std: float
    link: Literal["identity", "sigmoid"] = "identity"

    @classmethod
    def of(cls, y: Float[Tensor, " networks"], *, share: bool) -> "Head":
        """Fit to targets; a `share` lies between 0 and 1."""
        mean = float(y.mean())
        return cls(mean, float(y.std()), "sigmoid" if share and 0 < mean < 1 else "identity")

    def __call__(self, z: Float[Tensor, "*networks"]) -> Float[Tensor, "*networks"]:
        """Return predictions."""
        if self.link == "identity":
            return self.mean + self.std * z
        slope = self.std / (self.mean * (1 - self.mean))
        return torch.sigmoid(math.log(self.mean / (1 - self.mean)) + slope * z)


@dataclass(frozen=True)
class Predictor:
    """A trained metanetwork and its head.

    Attributes:
        network: gives a number of order 1.
        head: makes it a prediction.
        epochs: how many it trained for, and which was the best.
    """

    network: nn.Module
    head: Head
    epochs: tuple[int, int] = (0, 0)

    @torch.no_grad()
    def __call__(self, dataset: Networks) -> Float[Tensor, " networks"]:
        """Predict, in the units of the targets, in batches."""
        examples = Examples.of(dataset)
        self.network.eval()
        batches = torch.arange(len(examples)).split(EVALUATION_BATCH)
        return torch.cat([self.head(self.network(examples.take(index)).flatten()) for index in batches])


class Trainees:
    """Metanetworks in training; every tensor of theirs has them as its first dimension.

    Arguments:
        networks: S of one class. More than one are run by `vmap`.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.network, self.together = networks[0], len(networks) > 1
        self.parameters, self.state = dict(networks[0].named_parameters()), networks[0].state_dict()
        if self.together:
            self.parameters, buffers = stack_module_state(list(networks))
            self.state = {**self.parameters, **buffers}
        self.networks = networks

    def __call__(self, x: object) -> Float[Tensor, "seeds batch"]:
        """Run each network on its own batch."""
        if not self.together:
            return self.network(x[0] if isinstance(x, Tensor) else x).view(1, -1)
        return vmap(lambda own, inputs: functional_call(self.network, own, (inputs,)).flatten())(self.state, x)

    def clip(self, norm: float) -> None:
        """Shorten the gradient of each network to at most `norm`."""
        if not self.together:
            nn.utils.clip_grad_norm_(self.parameters.values(), norm)
            return
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        total = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
        share = (norm / (total + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(share.view(-1, *[1] * (gradient.ndim - 1)))

    def snapshot(self) -> list[Tensor]:
        """Return a copy of all parameters and buffers, `(S, ...)`."""
        state = [tensor.detach().clone() for tensor in self.state.values()]
        return state if self.together else [tensor[None] for tensor in state]


def build(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Construct a module whose start depends on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "metanetwork"))
        return make()


def fit(
    networks: nn.Module | Sequence[nn.Module],
    examples: Examples | Dataset[Any],
    validation: Examples | Dataset[Any],
    settings: Settings | None = None,
    *,
    seeds: Sequence[int] = (0,),
    share: bool = False,
) -> list[Predictor]:
    """Train metanetworks with AdamW on `smooth_l1_loss` of standardised targets, and keep the best epoch of each.

    Arguments:
        networks: one for each seed, of one class; any modules that take what the examples hold, batched. Several
            train as one stack, so they take tensors.
        examples: to learn from; a data set, too, of pairs `(x, y)` or of graphs with a `y`.
        validation: to choose the epoch by, the greatest `metanets.metrics.selection_score`.
        settings: of the training.
        seeds: of the order in which examples are seen.
        share: whether targets lie between 0 and 1.

    Returns:
        A predictor for each network. Results of one do not depend on its companions, but for rounding.
    """
    settings = settings or Settings()
    examples, validation = Examples.of(examples), Examples.of(validation)
    networks = [networks] if isinstance(networks, nn.Module) else list(networks)
    head = Head.of(examples.y, share=share)
    if hasattr(networks[0], "fit"):
        return [_fit_itself(*pair, head, examples, validation) for pair in zip(networks, seeds, strict=True)]
    trainees = Trainees(networks)
    rate = settings.learning_rate or float(getattr(networks[0], "learning_rate", 1e-3))
    optimizer = torch.optim.AdamW(trainees.parameters.values(), rate, weight_decay=settings.weight_decay, fused=True)
    best, best_epoch = trainees.snapshot(), np.zeros(len(seeds), int)
    best_score, epoch = _validate(trainees, head, validation), 0
    for epoch in range(1, settings.epochs + 1):
        if settings.schedule == "cosine":
            optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / settings.epochs))
        _train_epoch(trainees, head, examples, settings, optimizer, seeds, epoch)
        waiting = settings.patience is None or epoch - best_epoch <= settings.patience
        better = ((now := _validate(trainees, head, validation)) > best_score) & waiting
        for kept, latest in zip(best, trainees.snapshot(), strict=True):
            kept[better] = latest[better]
        best_score, best_epoch = np.where(better, now, best_score), np.where(better, epoch, best_epoch)
        if settings.patience is not None and (epoch - best_epoch >= settings.patience).all():
            break
    for s, network in enumerate(networks):
        state = dict(zip(trainees.state, (tensor[s] for tensor in best), strict=True))
        network.load_state_dict({name: state[name] for name in network.state_dict()})
    return [Predictor(n, head, (epoch, int(b))) for n, b in zip(networks, best_epoch, strict=True)]


def _fit_itself(network: Any, seed: int, head: Head, examples: Examples, validation: Examples) -> Predictor:
    """Let a metanetwork that is not trained by gradients fit itself."""
    head = replace(head, link="identity")
    y, validation_y = ((part.y - head.mean) / head.std for part in (examples, validation))
    network.fit(examples.x, y, validation.x, validation_y, seed)
    return Predictor(network, head)


def _train_epoch(
    trainees: Trainees,
    head: Head,
    examples: Examples,
    settings: Settings,
    optimizer: torch.optim.Optimizer,
    seeds: Sequence[int],
    epoch: int,
) -> None:
    """Show every network all examples, as often as the settings say, in the order of its seed."""
    trainees.network.train()
    at_once = getattr(trainees.network, "at_once", None) if examples.y.device.type == "cpu" else None
    passes = settings.passes(len(examples))
    for number in range((epoch - 1) * passes + 1, epoch * passes + 1):
        orders = [rng_for(seed, "metanetwork/order", number).permutation(len(examples)) for seed in seeds]
        rngs = [rng_for(seed, "metanetwork/augment", number) for seed in seeds]
        for index in torch.from_numpy(np.stack(orders)).to(examples.y.device).split(settings.batch_size, dim=1):
            optimizer.zero_grad()
            for some in index.split(at_once or settings.batch_size, dim=1):
                predicted, y = head(trainees(examples.take(some, rngs))) / head.std, examples.y[some] / head.std
                (smooth_l1_loss(predicted, y, reduction="sum", beta=settings.huber) / index.shape[1]).backward()
            trainees.clip(settings.clip)
            optimizer.step()


@torch.no_grad()
def _validate(trainees: Trainees, head: Head, validation: Examples) -> Float[np.ndarray, " seeds"]:
    """Return the `selection_score` of each network."""
    trainees.network.eval()
    seeds, predicted = len(trainees.networks), []
    for index in torch.arange(len(validation)).split(EVALUATION_BATCH):
        predicted.append(head(trainees(validation.take(index.expand(seeds, -1)))))
    true = validation.y.cpu().numpy()
    return np.array([selection_score(true, own) for own in torch.cat(predicted, 1).cpu().numpy()])
