"""The engines that train networks, and the choice between them.

`compiled` trains one network after the other on a CPU, with functions that Numba compiles. The others train stacks of
networks with PyTorch on any device; on a GPU, there are several ways to train convolutions. All give the same networks
up to rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.data import Data
from zoo.networks.stack import is_convolutional, stack_size
from zoo.progress import Progress, ignore
from zoo.recipes.optimizer import Optimizer
from zoo.training.memory import networks_that_fit
from zoo.training.results import Draws, Trained
from zoo.training.stacked import train_stacked
from zoo.training.timing import fastest_way
from zoo.treatments import Treated


@dataclass(frozen=True)
class Engine:
    """How networks train.

    Attributes:
        name: `compiled`, `torch`, or a way to train convolutions on a GPU, see `zoo.training.ways.WAYS`.
        device: Device that trains, such as `cpu` or `cuda`.
        stack: Most networks that train together; None if all that are given do.
    """

    name: str
    device: str = "cpu"
    stack: int | None = None

    @property
    def train(self) -> Callable[..., Trained]:
        """Function that trains, with the arguments of `train`."""
        if self.name == "compiled":
            from zoo.training.compiled.training import train_compiled

            return train_compiled
        return lambda treated, *others, **options: train_stacked(replace(treated, way=self.name), *others, **options)


def train(
    treated: Treated,
    start: Float[Tensor, "networks parameters"],
    draws: Draws,
    data: Data,
    settings: Optimizer,
    *,
    seed: int,
    progress: Progress = ignore,
) -> Trained:
    """Train K networks with the fastest engine that can, all of them together.

    Arguments:
        treated: Architecture and treatment of the networks.
        start: Initial `theta`, `(K, P)`. Training runs on its device and in its precision.
        draws: Pair and hyperparameters of each network.
        data: Data that the networks learn.
        settings: Optimiser and schedule, the same for all networks.
        seed: Seed of the recipe.
        progress: Called with the number of networks whose training has just ended.
    """
    single = start.dtype == torch.float32
    engine = engine_for(treated, data, settings, str(start.device)) if single else Engine("torch")
    return engine.train(treated, start, draws, data, settings, seed=seed, progress=progress)


def engine_for(treated: Treated, data: Data, settings: Optimizer, device: str = "cpu") -> Engine:
    """Return the fastest engine that can train networks.

    The compiled one needs Numba and a CPU, and an architecture whose operations it knows (see
    `zoo.training.compiled.lowering`), without augmentation of the examples, in float32. On a GPU, stacks are as large
    as free memory allows, and the way to train convolutions is the one that is measured to be the fastest.

    Arguments:
        treated: Architecture and treatment of the networks.
        data: Data that the networks learn.
        settings: Optimiser and schedule.
        device: Device that trains.
    """
    if torch.device(device).type != "cpu":
        way = fastest_way(treated, data, settings, device) if is_convolutional(treated.module) else "torch"
        return Engine(way, device, networks_that_fit(replace(treated, way=way), data, settings, device))
    stacks = Engine("torch", stack=stack_size(treated.module, treated.layout, "cpu"))
    if settings.augmentation is not None or settings.precision != "float32" or not can_compile():
        return stacks
    from zoo.training.compiled.checking import program_for

    return stacks if program_for(treated, data.shape, settings.batch_size) is None else Engine("compiled")


def can_compile() -> bool:
    """Return whether Numba is installed, works with the other packages that are, and is not switched off."""
    try:
        from numba import config
    except ImportError:
        return False
    return not config.DISABLE_JIT
