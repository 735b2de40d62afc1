"""Modes: what trained weights depend on besides the recipe."""

from pathlib import Path
from platform import machine, processor

import torch

from zoo.store.manifest import Mode
from zoo.training.engines import Engine

# Names of engines in a mode. The number of the compiled one changes whenever its results do.
NAMES: dict[Engine, str] = {"torch": "torch", "compiled": "compiled 1"}


def mode_here(device: str, data_digest: str, engine: Engine) -> Mode:
    """Return the mode in which this machine trains.

    Arguments:
        device: Device that trains, such as `cpu` or `cuda`.
        data_digest: Digest of the data, see `zoo.data.Data.digest`.
        engine: Engine that trains.
    """
    return Mode(
        device=device if device == "cpu" else torch.cuda.get_device_name(device),
        processor=processor_name(),
        torch=str(torch.__version__),
        data=data_digest,
        engine=NAMES[engine],
    )


def give_same_bits(one: Mode, other: Mode) -> bool:
    """Return whether trained weights in two modes are the same, bit for bit.

    PyTorch promises that on one kind of processor and in one version; the compiled engine gives the same weights on
    all processors of an architecture, such as x86-64.
    """
    if one.engine != other.engine or one.engine == NAMES["torch"]:
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
