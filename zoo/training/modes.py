"""The mode of this machine: trained weights of two runs in the same mode are equal bit for bit."""

from pathlib import Path
from platform import machine, processor

import torch

from zoo.store.manifest import Mode


def mode_here(device: str, data_digest: str) -> Mode:
    """Return the mode of this machine.

    Arguments:
        device: Device that trains, such as `cpu` or `cuda`.
        data_digest: Digest of the data, see `zoo.data.Data.digest`.
    """
    return Mode(
        device=device if device == "cpu" else torch.cuda.get_device_name(device),
        processor=processor_name(),
        torch=str(torch.__version__),
        data=data_digest,
    )


def processor_name() -> str:
    """Return the architecture and model of the processor, and the vector instructions that PyTorch uses."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on Linux
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor())
    return f"{machine()}, {model}, {torch.backends.cpu.get_cpu_capability()}"
