"""How many networks fit into the memory of a GPU."""

from typing import Any

import torch
from torch import Tensor

from zoo.data import Data
from zoo.recipes.optimizer import Optimizer
from zoo.training.minibatches import batch_size_of
from zoo.training.ways import WAYS
from zoo.treatments import Treated

FRACTION = 0.6  # of free memory that a stack may take; the rest is for evaluation and the allocator
UNKNOWN = 64  # networks in a stack, if their memory cannot be estimated
MOST = 8192  # networks in a stack, beyond which nothing is gained
ROWS = 14  # rows of P numbers that a network needs: parameters, moments, gradient, and what updates compute
ORDER, MOVES = 8, 33  # bytes of a training example's place in an epoch, and of what the augmentation does with it
BACKWARD = 2  # memory of activations and their gradients, in that of what the forward pass keeps


def networks_that_fit(treated: Treated, data: Data, settings: Optimizer, device: str) -> int:
    """Return the number of networks that can train together in the free memory of a GPU."""
    try:
        size = bytes_of_network(treated, data, settings)
    except Exception:  # runs code of the module, which may read numbers that are not there
        return UNKNOWN
    return max(1, min(MOST, int(FRACTION * _free_bytes(torch.device(device)) / size)))


def _free_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU, with what PyTorch holds but does not use; 1 GiB for other devices."""
    if device.type != "cuda":
        return 1 << 30
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def bytes_of_network(treated: Treated, data: Data, settings: Optimizer) -> int:
    """Return an estimate of the memory that a network takes while it trains in a stack."""
    few, more = (_bytes_kept(treated, data, examples) for examples in (2, 4))
    by_example = (more - few) / 2
    batch = batch_size_of(data, settings.batch_size)
    drawn = ORDER + (MOVES if settings.augmentation else 0)
    return int(ROWS * 4 * treated.layout.size + BACKWARD * by_example * batch + drawn * len(data.train_y))


def _bytes_kept(treated: Treated, data: Data, examples: int) -> int:
    """Return the memory of all that the forward pass of a network keeps for the backward pass."""
    meta = torch.device("meta")  # tensors without numbers, on which nothing is computed
    treated = treated.take(torch.tensor([0])).to(meta)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Any:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.empty(1, examples, *data.shape, device=meta)
    y = torch.empty(1, examples, dtype=torch.int64, device=meta)
    rows = torch.empty(1, treated.layout.size, device=meta)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        WAYS[treated.way](treated.module)(treated.stack(rows), x, y, torch.zeros(1, device=meta))
    return sum(kept.values())
