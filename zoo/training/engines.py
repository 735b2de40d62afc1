"""The engines that train networks, and the choice between them.

`compiled` trains one network after the other on a CPU, with functions that Numba compiles; `torch` trains stacks of
networks with PyTorch, on any device. Both give the same networks up to rounding.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.data import Data
from zoo.progress import Progress, ignore
from zoo.recipes.optimizer import Optimizer
from zoo.training.results import Draws, Trained
from zoo.training.stacked import train_stacked
from zoo.treatments import Treated

Engine = Literal["compiled", "torch"]


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
    """Train K networks with the fastest engine that can.

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
    engine = engine_for(treated, data, settings, start.device) if single else "torch"
    return trainer(engine)(treated, start, draws, data, settings, seed=seed, progress=progress)


def engine_for(treated: Treated, data: Data, settings: Optimizer, device: torch.device | str) -> Engine:
    """Return the fastest engine that can train networks.

    The compiled one needs Numba and a CPU, and an architecture whose operations it knows (see
    `zoo.training.compiled.lowering`), without augmentation of the examples.

    Arguments:
        treated: Architecture and treatment of the networks.
        data: Data that the networks learn.
        settings: Optimiser and schedule.
        device: Device that trains.
    """
    if torch.device(device).type != "cpu" or settings.augmentation is not None or not can_compile():
        return "torch"
    from zoo.training.compiled.checking import program_for

    return "torch" if program_for(treated, data.shape, settings.batch_size) is None else "compiled"


def can_compile() -> bool:
    """Return whether Numba is installed, works with the other packages that are, and is not switched off."""
    try:
        from numba import config
    except ImportError:
        return False
    return not config.DISABLE_JIT


def trainer(engine: Engine) -> Callable[..., Trained]:
    """Return the function of an engine, with the arguments of `train`."""
    if engine == "torch":
        return train_stacked
    from zoo.training.compiled.training import train_compiled

    return train_compiled
