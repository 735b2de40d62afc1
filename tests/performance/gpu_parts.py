"""Parts of `make gpu`, see `tests.performance.gpu`; each takes how much to measure and returns what JSON can hold."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmark.inference import variational
from benchmark.lines import measure_lines
from metanets.examples import InMemory
from metanets.inputs import READERS
from metanets.models import MODELS
from metanets.settings import Settings
from metanets.training import fit
from tests.performance.generation import WIDE, change, noise, train_ordinary
from zoo.data import Data
from zoo.networks.stack import is_convolutional
from zoo.recipes.distribution import Distribution
from zoo.recipes.recipe import Recipe
from zoo.training.engines import Engine, engine_for
from zoo.training.generation import start_rows, train_pairs
from zoo.training.replay import WARM_UP, repeatable
from zoo.training.results import Draws
from zoo.training.stacked import begin, take_step
from zoo.training.timing import times_of_ways

# Greatest number of float32 operations in a second, without tensor cores, by a word in the name of the device.
# https://www.nvidia.com/en-us/data-center/h100/, https://www.nvidia.com/en-us/data-center/h200/ (SXM)
PEAK = {"H100": 67e12, "H200": 67e12}
PAPER = 72.0  # GPU-seconds of a network of the paper's zoo, on an RTX 2080 Ti
Result = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        device: Device to measure.
        tiny: Whether sizes are those of a test.
    """

    device: str
    tiny: bool

    def __call__(self, full: int, tiny: int) -> int:
        """Return one of two sizes."""
        return tiny if self.tiny else full

    def wait(self) -> None:
        """Wait until the device has done all that was asked of it."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Return the seconds that work takes, and what it returns."""
        self.wait()
        began, value = time.perf_counter(), work()
        self.wait()
        return time.perf_counter() - began, value


def name_of(device: str) -> str:
    """Return the name of a device."""
    return device if device == "cpu" else torch.cuda.get_device_name(device)


# Agreement with the CPU


def agreement(scale: Scale) -> Result:
    """Initial weights bit for bit, the first epoch within rounding, and statistics of networks trained to the end."""
    mild = change("digits-mlp", epochs=Distribution(constant=1), learning_rate=Distribution(constant=1e-3))
    data = mild.load_data()
    result: Result = {}
    for treatment in ("standard", "w_asymmetric", "sigma_asymmetric"):
        there, here = (
            train_pairs(mild, treatment, range(8), data, engine=engine)
            for engine in (engine_for(mild.treat(treatment), data, mild.training, scale.device), Engine("torch"))
        )
        change_of = np.linalg.norm(here["weights"] - here["initial_weights"])
        result[treatment] = {
            "initial weights": bool(np.array_equal(there["initial_weights"], here["initial_weights"])),
            "first epoch, weights": float(np.linalg.norm(there["weights"] - here["weights"]) / change_of),
            "first epoch, loss": float(np.abs(there["test_loss"] / here["test_loss"] - 1).max()),
        }
    recipe, pairs = change("digits-mlp"), range(scale(256, 8))
    if scale.tiny:
        recipe = change("digits-mlp", epochs=Distribution(constant=2))
    engine = engine_for(recipe.treat("standard"), data, recipe.training, scale.device)
    both = engine, Engine("torch", stack=128)  # not the compiled one, which takes time to compile
    there, here = (train_pairs(recipe, "standard", pairs, data, engine=one) for one in both)
    for name in ("test_accuracy", "test_loss"):
        difference = there[name] - here[name]
        error = float(difference.std(ddof=1) / len(pairs) ** 0.5)
        result[name] = {
            "mean there": float(there[name].mean()),
            "mean here": float(here[name].mean()),
            "of": len(pairs),
        }
        result[name] |= {"mean difference": float(difference.mean()), "standard error": error}
    result["diverged"] = [int((arrays["status"] == "diverged").sum()) for arrays in (there, here)]
    return result


# Speed


def digits(scale: Scale) -> Result:
    """The recipe `digits-mlp`, in a stack of thousands."""
    recipe = change("digits-mlp", epochs=Distribution(constant=2)) if scale.tiny else change("digits-mlp")
    return speed(scale, recipe, recipe.load_data(), scale(4096, 8), 2)


def wide(scale: Scale) -> Result:
    """MLPs of 40, 64, 64 and 10 units."""
    recipe = change("digits-mlp", WIDE, epochs=Distribution(constant=scale(5, 1)))
    return speed(scale, recipe, noise((40,), scale(4000, 80), scale(1000, 40)), scale(4096, 4), 1)


def cnn(scale: Scale) -> Result:
    """The network of the Small CNN Zoo."""
    recipe = change("mnist-cnn", epochs=Distribution(constant=scale(3, 1)))
    return speed(scale, recipe, noise((1, 28, 28), scale(12000, 128), scale(2000, 50)), scale(256, 2), 1)


def resnet(scale: Scale) -> Result:
    """ResNet8 on images like those of CIFAR-10, and the GPU-seconds of a network of the paper's zoo."""
    recipe, data = resnet_case(scale)
    result = speed(scale, recipe, data, scale(32, 1), 1)
    examples, epochs = len(data.train_y) / 50_000, Recipe.load("cifar10-resnet8").training.epochs
    mean = (epochs.low + epochs.high) / 2
    result["GPU-seconds of a network of the recipe"] = mean / examples / result["epochs a second"]
    result["GPU-seconds of the paper"] = PAPER
    return result


def resnet_case(scale: Scale, **training: Any) -> tuple[Recipe, Data]:
    """Return the recipe of ResNet8, shortened, and images."""
    settings = {"epochs": Distribution(constant=scale(2, 1)), "batch_size": scale(512, 16)} | training
    recipe = change("cifar10-resnet8", **settings)
    return recipe, noise((3, 32, 32), scale(10_240, 32), scale(2048, 16))


def speed(scale: Scale, recipe: Recipe, data: Data, networks: int, alone: int) -> Result:
    """Return how many epochs of networks a second takes, in stacks and one at a time on the same device."""
    treated, settings, device = recipe.treat("standard"), recipe.training, scale.device
    engine = engine_for(treated, data, settings, device)
    measured = device != "cpu" and is_convolutional(treated.module)
    ways = times_of_ways(treated, data, settings, device) if measured else {}
    train = partial(train_pairs, recipe, "standard", data=data, engine=engine)
    train(pairs=range(min(2, networks)))  # to begin: libraries choose kernels
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    seconds, _ = scale.timed(partial(train, pairs=range(networks)))
    memory = torch.cuda.max_memory_allocated() / 2**30 if device != "cpu" else None
    epochs = sum(int(recipe.draw(pair)["epochs"]) for pair in range(networks))
    there = data.to(device)
    train_ordinary(recipe, range(1), there.map_examples(lambda x: x))
    one, _ = scale.timed(partial(train_ordinary, recipe, range(alone), there))
    epochs_alone = sum(int(recipe.draw(pair)["epochs"]) for pair in range(alone))
    rate, work = epochs / seconds, flops_of_epoch(recipe, data)
    peak = next((value for word, value in PEAK.items() if word in name_of(device)), None)
    return {
        "engine": engine.name,
        "networks": networks,
        "most in a stack": engine.stack,
        "epochs a second": rate,
        "one at a time, epochs a second": epochs_alone / one,
        "times one at a time": rate * one / epochs_alone,
        "networks a second": networks / seconds,
        "GPU-seconds of a network": seconds / networks,
        "operations a second": rate * work,
        "fraction of peak": None if peak is None else rate * work / peak,
        "GiB": memory,
        "seconds of a step of a network": ways,
    }


def flops_of_epoch(recipe: Recipe, data: Data) -> float:
    """Return the floating-point operations of an epoch of a network, with its measurement."""
    module, examples = recipe.treat("standard").module, data.train_x[:16]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(examples)
    forward = counter.get_total_flops() / len(examples)
    return forward * (4 * len(data.train_y) + len(data.test_y))


# Whether results repeat


def repeated(scale: Scale) -> Result:
    """Whether the same run gives the same bits, also in smaller stacks, and what kernels with a fixed order cost."""
    recipe, data = resnet_case(scale)
    mlp, images = change("digits-mlp", epochs=Distribution(constant=scale(4, 1))), change("digits-mlp").load_data()
    result: Result = {}
    for name, one, examples, count in (("digits-mlp", mlp, images, scale(64, 4)), ("ResNet8", recipe, data, 2)):
        engine = engine_for(one.treat("standard"), examples, one.training, scale.device)
        runs = [train_pairs(one, "standard", range(count), examples, engine=engine)["weights"] for _ in range(2)]
        alone = train_pairs(one, "standard", range(1), examples, engine=engine)["weights"]
        result[name] = {
            "the same bits again": bool(np.array_equal(*runs, equal_nan=True)),
            "the same bits alone": bool(np.array_equal(runs[0][:1], alone, equal_nan=True)),
        }
        train = partial(train_pairs, one, "standard", range(count), examples, engine=engine)
        fixed, free = [], []
        for _ in range(3):
            for deterministic, times in ((True, fixed), (False, free)):
                torch.backends.cudnn.deterministic = deterministic
                times.append(scale.timed(train)[0])
        torch.backends.cudnn.deterministic = True
        result[name]["times as long with a fixed order"] = min(fixed) / min(free)
    return result


def precision(scale: Scale) -> Result:
    """How much faster ResNet8 trains in bfloat16, and how far its losses are."""
    result: Result = {}
    for name in ("float32", "bfloat16"):
        recipe, data = resnet_case(scale, precision=name)
        engine = engine_for(recipe.treat("standard"), data, recipe.training, scale.device)
        train = partial(train_pairs, recipe, "standard", data=data, engine=engine)
        train(pairs=range(1))
        seconds, arrays = scale.timed(partial(train, pairs=range(scale(16, 1))))
        result[name] = {"engine": engine.name, "seconds": seconds, "mean loss": float(np.nanmean(arrays["train_loss"]))}
    result["times as fast"] = result["float32"]["seconds"] / result["bfloat16"]["seconds"]
    return result


# A step in detail


def profile(scale: Scale) -> Result:
    """Launches and the slowest kernels of a step of a stack of `digits-mlp`, new and repeated."""
    recipe, count = change("digits-mlp", epochs=Distribution(constant=2)), scale(2048, 4)
    data, treated = recipe.load_data().to(scale.device), recipe.treat("standard").to(scale.device)
    start = start_rows(recipe, "standard", treated.to("cpu"), range(count)).to(scale.device)
    same = torch.ones(count, dtype=torch.int64)
    draws = Draws(0 * same, 1e-3 * same, 0.0 * same, 0.0 * same, 20 * same)
    live = begin(treated, start, draws, data, recipe.training)
    new = partial(take_step, live, data, recipe.training)
    step = repeatable(new, start.device)
    for _ in range(WARM_UP + 1):
        step()
    result: Result = {}
    for name, work in (("new", new), ("repeated", step)):
        with torch.profiler.profile(acc_events=True) as profiler:
            work()
            scale.wait()
        events = profiler.key_averages()
        launches = {event.key: event.count for event in events if "Launch" in event.key}
        slowest = sorted(events, key=lambda event: -event.self_device_time_total)[:12]
        kernels = [[event.key[:80], event.count, event.self_device_time_total] for event in slowest]
        result[name] = {"launches": launches, "kernels, calls, microseconds": kernels}
        result[name]["seconds"] = min(scale.timed(work)[0] for _ in range(5))
    return result


# Metanetworks, lines and posteriors


def metanetworks(scale: Scale) -> Result:
    """Seconds of an epoch of metanetworks on the device and on the CPU, and how far their predictions are."""
    recipe, count = change("digits-mlp"), scale(1024, 48)
    treated = recipe.treat("standard")
    rows = start_rows(recipe, "standard", treated, range(count))
    y = torch.from_numpy(np.random.default_rng(0).uniform(size=count)).float()
    settings, result = Settings(epochs=scale(3, 1), batch_size=64), {}
    for name in ("gmn", "statnn", "mlp"):
        predicted, times = [], []
        for device in (scale.device, "cpu"):
            torch.manual_seed(0)
            reader = READERS[MODELS[name].reads].of(treated).fit(rows)
            x = reader(rows).to(device)
            module, examples = MODELS[name](reader).to(device), InMemory(x, y.to(device))
            fit(module, examples, examples, settings.model_copy(update={"epochs": 1}))
            times.append(scale.timed(partial(fit, module, examples, examples, settings))[0] / settings.epochs)
            with torch.no_grad():
                predicted.append(module(x).cpu())
        apart = float((predicted[0] - predicted[1]).abs().max())
        result[name] = {"seconds of an epoch": times[0], "on the CPU": times[1], "predictions apart by": apart}
    return result


def phenomena(scale: Scale) -> Result:
    """Seconds of lines and of variational posteriors on the device and on the CPU, and how far results are."""
    recipe, count = change("digits-mlp"), scale(64, 4)
    treated, data = recipe.treat("standard"), recipe.load_data()
    rows = start_rows(recipe, "standard", treated, range(count))
    curves, losses, times = [], [], {"lines": [], "posteriors": []}
    for device in (scale.device, "cpu"):
        there, examples = treated.to(device), data.to(device)
        ends = [there.stack(end.to(device)) for end in (rows[::2], rows[1::2])]
        measure_lines(*(end.take([0]) for end in ends), examples, 3)
        seconds, found = scale.timed(partial(measure_lines, *ends, examples, scale(25, 3)))
        times["lines"].append(seconds)
        curves.append(found)
        seen: list[torch.Tensor] = []
        settings = variational.Settings(steps=scale(200, 4))

        def see(step: int, posteriors: Any, expected: Any, divergence: Any, seen: list[Any] = seen) -> None:
            seen.append(expected)

        train = partial(variational.fit, there, rows[:16].to(device), examples, settings, pairs=range(len(rows[:16])))
        times["posteriors"].append(scale.timed(partial(train, on_step=see))[0])
        losses.append(float(torch.stack(seen)[-20:].mean()))
    apart = max(float(np.abs(curves[0][name] - curves[1][name]).max()) for name in curves[0])
    return {
        "lines": {"seconds": times["lines"][0], "on the CPU": times["lines"][1], "apart by": apart},
        "posteriors": {
            "seconds": times["posteriors"][0],
            "on the CPU": times["posteriors"][1],
            "loss": losses[0],
            "loss on the CPU": losses[1],
        },
    }
