"""Modes: what trained weights depend on besides the recipe."""

from pathlib import Path
from platform import machine, processor

import torch

from zoo.store.manifest import Mode
from zoo.training.engines import Engine

COMPILED = "compiled 1"  # name of the compiled engine in a mode; the number changes whenever its results do


def mode_here(engine: Engine, data_digest: str, precision: str = "float32") -> Mode:
    """Return the mode in which this machine trains.

    Arguments:
        engine: Engine that trains.
        data_digest: Digest of the data, see `zoo.data.Data.digest`.
        precision: Precision of the training, see `zoo.recipes.optimizer.Optimizer`.
    """
    on_cpu = engine.device == "cpu"
    return Mode(
        device=engine.device if on_cpu else torch.cuda.get_device_name(engine.device),
        processor=processor_name(),
        torch=str(torch.__version__),
        data=data_digest,
        engine=COMPILED if engine.name == "compiled" else engine.name,
        precision=precision,
        stack=None if on_cpu else engine.stack,
    )


def give_same_bits(one: Mode, other: Mode) -> bool:
    """Return whether trained weights in two modes are the same, bit for bit.

    PyTorch promises that on one kind of processor or GPU and in one version, for stacks of the same size on a GPU; the
    compiled engine gives the same weights on all processors of an architecture, such as x86-64.
    """
    if one.engine != other.engine or one.engine != COMPILED:
        return one == other
    kinds = {mode.processor.partition(",")[0] for mode in (one, other)}
    return len(kinds) == 1 and (one.data, one.precision) == (other.data, other.precision)


def processor_name() -> str:
    """Return the architecture and model of the processor, and the vector instructions that PyTorch uses."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on Linux
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor())
    return f"{machine()}, {model}, {torch.backends.cpu.get_cpu_capability()}"
