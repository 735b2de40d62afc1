"""Trains metanetworks by AdamW on the train split and keeps the epoch that is best on the validation split.

Several seeds of a small metanetwork train as one stack, their parameters `(S, ...)`, each on batches of its own.
"""

import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from metanets.examples import Examples
from metanets.links import Link
from metanets.metrics import selection_score
from metanets.settings import Settings
from zoo.errors import TaskError
from zoo.seeds import rng_for

LEARNING_RATE = 1e-3
EVALUATION_BATCH = 128  # networks; bounds memory, hardly changes the time


class Seeds:
    """Metanetworks of S seeds in training; each of their tensors has the seeds as its first dimension.

    Arguments:
        modules: S modules of one class. More than one are run by `vmap`.
        outputs: Number of outputs that each must give.
    """

    def __init__(self, modules: Sequence[nn.Module], outputs: int) -> None:
        self.module, self.outputs, self.together = modules[0], outputs, len(modules) > 1
        self.parameters, self.state = dict(modules[0].named_parameters()), modules[0].state_dict()
        if self.together:
            self.parameters, buffers = stack_module_state(list(modules))
            self.state = {**self.parameters, **buffers}
        self.modules = modules

    def __call__(self, x: object) -> Float[Tensor, "seeds batch outputs"]:
        """Run each module on its own batch."""
        if not self.together:
            return run(self.module, x[0] if isinstance(x, Tensor) else x, self.outputs)[None]
        return vmap(lambda own, inputs: _columns(functional_call(self.module, own, (inputs,)), self.outputs))(
            self.state, x
        )

    def clip(self, norm: float) -> None:
        """Shorten the gradient of each module to at most `norm`."""
        if not self.together:
            nn.utils.clip_grad_norm_(self.parameters.values(), norm)
            return
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        total = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
        factor = (norm / (total + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(factor.view(-1, *[1] * (gradient.ndim - 1)))

    def snapshot(self) -> list[Tensor]:
        """Return a copy of all parameters and buffers, `(S, ...)`."""
        state = [tensor.detach().clone() for tensor in self.state.values()]
        return state if self.together else [tensor[None] for tensor in state]

    def restore(self, snapshot: list[Tensor]) -> None:
        """Give each module the parameters and buffers of a snapshot."""
        for s, module in enumerate(self.modules):
            state = dict(zip(self.state, (tensor[s] for tensor in snapshot), strict=True))
            module.load_state_dict({name: state[name] for name in module.state_dict()})


def run(module: nn.Module, x: object, outputs: int) -> Float[Tensor, "batch outputs"]:
    """Return a module's outputs for a batch, `(N, outputs)`; of one output, `(N,)` will do.

    Raises:
        TaskError: If it gives another number of outputs.
    """
    return _columns(module(x), outputs)


def _columns(z: Tensor, outputs: int) -> Float[Tensor, "batch outputs"]:
    z = z[:, None] if z.ndim == 1 and outputs == 1 else z
    if z.ndim != 2 or z.shape[1] != outputs:
        raise TaskError(
            f"module: gives {tuple(z.shape)} for a batch, not (networks, {outputs}); correct its last layer"
        )
    return z


def descend(
    modules: Sequence[nn.Module],
    train: Examples,
    validation: Examples,
    link: Link,
    settings: Settings,
    seeds: Sequence[int],
    at_once: int | None = None,
) -> list[tuple[int, int]]:
    """Train modules, one for each seed, and leave each at its best epoch.

    Arguments:
        modules: Modules of one class; several train as one stack, so they take tensors.
        train: Networks to learn from.
        validation: Networks to choose the epoch by, that of the highest `metanets.metrics.selection_score`.
        link: From outputs to predictions; its loss is minimised.
        settings: Settings of the training.
        seeds: Seeds of the order in which networks are seen.
        at_once: Number of networks of a batch that are run at once on a CPU; all by default.

    Returns:
        Numbers of epochs trained and best epoch of each seed; other seeds change them by rounding alone.
    """
    trainees = Seeds(modules, link.outputs)
    rate, decay = settings.learning_rate or LEARNING_RATE, settings.weight_decay
    optimizer = torch.optim.AdamW(trainees.parameters.values(), rate, weight_decay=decay, fused=True)
    size = at_once if at_once and train.y.device.type == "cpu" else settings.batch_size
    best, best_epoch, epoch = trainees.snapshot(), np.zeros(len(seeds), int), 0
    now = best_score = _validate(trainees, link, validation)
    for epoch in range(1, settings.epochs + 1):
        cosine = 0.5 * (1 + math.cos(math.pi * (epoch - 1) / settings.epochs))
        optimizer.param_groups[0]["lr"] = rate * cosine if settings.schedule == "cosine" else rate
        trainees.module.train()
        for index, rngs in _batches(len(train.y), settings, seeds, epoch):
            optimizer.zero_grad()
            for part in index.to(train.y.device).split(size, dim=1):
                x, y = train.batch(part, rngs)
                (link.loss(trainees(x), y, settings.huber) / index.shape[1]).backward()
            trainees.clip(settings.clip)
            optimizer.step()
        waiting = settings.patience is None or epoch - best_epoch <= settings.patience
        better = np.flatnonzero(((now := _validate(trainees, link, validation)) > best_score) & waiting)
        for kept, latest in zip(best, trainees.snapshot(), strict=True):
            kept[better] = latest[better]
        best_score[better], best_epoch[better] = now[better], epoch
        if settings.patience is not None and (epoch - best_epoch >= settings.patience).all():
            break
    _warn(np.array(seeds)[(best_epoch == 0) & np.isfinite(best_score) & (now == -np.inf)])
    trainees.restore(best)
    return [(epoch, int(b)) for b in best_epoch]


def _warn(seeds: Int[np.ndarray, " diverged"]) -> None:
    """Warn of seeds that kept their initial weights since their training diverged."""
    for seed in seeds:
        warnings.warn(f"seed {seed}: training diverged, the initial weights are kept; lower the rate", stacklevel=3)


def _batches(
    networks: int, settings: Settings, seeds: Sequence[int], epoch: int
) -> Iterator[tuple[Int[Tensor, "seeds batch"], list[np.random.Generator]]]:
    """Yield the networks of each step of an epoch, in the order of each seed, and generators of augmentation."""
    passes = settings.passes(networks)
    for number in range((epoch - 1) * passes + 1, epoch * passes + 1):
        orders = [rng_for(seed, "metanetwork/order", number).permutation(networks) for seed in seeds]
        rngs = [rng_for(seed, "metanetwork/augment", number) for seed in seeds]
        for index in torch.from_numpy(np.stack(orders)).split(settings.batch_size, dim=1):
            yield index, rngs


@torch.no_grad()
def _validate(trainees: Seeds, link: Link, validation: Examples) -> Float[np.ndarray, " seeds"]:
    """Return the `selection_score` of each module."""
    trainees.module.eval()
    predicted, true = [], []
    for index in torch.arange(len(validation.y)).split(EVALUATION_BATCH):
        x, y = validation.batch(index.expand(len(trainees.modules), -1))
        predicted.append(link(trainees(x)))
        true.append(y)
    scores = zip(torch.cat(true, 1).cpu().numpy(), torch.cat(predicted, 1).cpu().numpy(), strict=True)
    return np.array([selection_score(y, p) for y, p in scores])
