"""What this machine is, by which trained weights can be compared bit for bit."""

from pathlib import Path
from platform import machine, processor

import torch

from zoo.store.manifest import Mode


def mode_here(device: str, data_digest: str) -> Mode:
    """Describe this machine."""
    return Mode(
        device=device if device == "cpu" else torch.cuda.get_device_name(device),
        processor=processor_name(),
        torch=str(torch.__version__),
        data=data_digest,
    )


def processor_name() -> str:
    """Return the processor's family, model and vector instructions, as PyTorch sees them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor())
    return f"{machine()}, {model}, {torch.backends.cpu.get_cpu_capability()}"
