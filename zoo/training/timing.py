"""Measures which way to train convolutions is the fastest on a GPU, for networks of one shape."""

import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from zoo.data import Data
from zoo.recipes.optimizer import Optimizer
from zoo.training.memory import networks_that_fit
from zoo.training.replay import WARM_UP, repeatable
from zoo.training.results import Draws
from zoo.training.stacked import begin, take_step
from zoo.training.ways import WAYS
from zoo.treatments import Treated

TIMED = 16  # networks that are timed together, or fewer if no more fit
STEPS = 5  # steps that are timed
_times: dict[object, dict[str, float]] = {}


def fastest_way(treated: Treated, data: Data, settings: Optimizer, device: str) -> str:
    """Return the fastest way to train networks of one shape."""
    times = times_of_ways(treated, data, settings, device)
    return min(times, key=lambda way: times[way])


def times_of_ways(treated: Treated, data: Data, settings: Optimizer, device: str) -> dict[str, float]:
    """Return `time_of_step` for every way, which is measured once in a process for networks of one shape."""
    key = str(treated.module), data.shape, settings, device
    if key not in _times:
        _times[key] = {way: time_of_step(replace(treated, way=way), data, settings, device) for way in WAYS}
    return _times[key]


def time_of_step(treated: Treated, data: Data, settings: Optimizer, device: str) -> float:
    """Return the seconds of a training step for each network of a stack."""
    count = min(TIMED, networks_that_fit(treated, data, settings, device))
    one = treated.layout.draw_initial(np.random.default_rng(0))
    start, same = one.repeat(count, 1).to(device), torch.ones(count, dtype=torch.int64)
    draws = Draws(0 * same, 1e-3 * same, 0.0 * same, 0.0 * same, (WARM_UP + 1 + STEPS) * same)
    treated, data = treated.take(torch.zeros(count, dtype=torch.int64)).to(device), data.to(device)
    live = begin(treated, start, draws, data, settings)
    step = repeatable(partial(take_step, live, data, settings), start.device)
    for _ in range(WARM_UP + 1):
        step()
    _wait(start)
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    _wait(start)
    return (time.perf_counter() - began) / STEPS / count


def _wait(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
