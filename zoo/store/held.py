"""Converts constants that differ between networks to columns of a shard, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.networks.architectures.base import Sites
from zoo.networks.parameters import ParameterLayout
from zoo.store.columns import KNOWN, Column
from zoo.treatments.base import F_OF, Held


def pack_held(held: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Return the columns that store the constants `(K, ...)` of K networks."""
    columns = {name: held[name].numpy() for name in ("constants", "decay") if name in held}
    if "mask" in held:
        columns["mask"] = np.packbits(held["mask"].numpy(), axis=1)
    if matrices := [F.flatten(1) for name, F in held.items() if name.startswith(F_OF)]:
        columns["held_F"] = torch.cat(matrices, 1).numpy()
    return columns


def unpack_held(columns: Mapping[str, NDArray[Any]], layout: ParameterLayout, sites: Sites) -> Held:
    """Return the constants `(K, ...)` of K networks from their columns: the inverse of `pack_held`."""
    held = {name: torch.from_numpy(columns[name]) for name in ("constants", "decay") if name in columns}
    if "mask" in columns:
        held["mask"] = torch.from_numpy(np.unpackbits(columns["mask"], axis=1, count=layout.size).astype(bool))
    if "held_F" in columns:
        units = {site: layout.axes[axis] for site, (axis, _) in sites.items()}
        matrices = torch.from_numpy(columns["held_F"]).split([n * n for n in units.values()], dim=1)
        for (site, n), F in zip(units.items(), matrices, strict=True):
            held[F_OF + site] = F.unflatten(1, (n, n))
    return held


def columns_held(held: Mapping[str, Tensor], treatment: str) -> list[Column]:
    """Return the descriptions of the columns that store a treatment's constants `(K, ...)`."""
    columns = []
    for name, values in pack_held({name: tensor[:1] for name, tensor in held.items()}).items():
        known = KNOWN[name]
        width = known.width or values.shape[1]
        columns.append(known.model_copy(update={"width": width, "treatments": (treatment,)}))
    return columns
