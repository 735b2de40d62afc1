"""Devices: which are here, and that a GPU computes as a CPU does, in float32, with the same bits in every run."""

import os

from zoo.errors import AsymZooError


def use_device(device: str) -> None:
    """Check that a device is here, and until the process ends make a GPU's results float32 and repeatable.

    By default, PyTorch rounds the factors of convolutions on a GPU to 10 bits (TF32), and cuDNN and cuBLAS may choose
    kernels whose sums have no fixed order.

    https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    https://docs.pytorch.org/docs/stable/notes/randomness.html

    Raises:
        AsymZooError: If this machine does not have the device.
    """
    import torch

    known = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    kind, _, number = device.partition(":")
    if kind not in known or (number and not (number.isdecimal() and int(number) < max(1, torch.cuda.device_count()))):
        raise AsymZooError(f"device: there is no {device!r} here; use {' or '.join(known)}")
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first product
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
