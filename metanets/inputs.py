"""What a metanetwork reads of a zoo: rows as they are, or statistics of each tensor. Both follow from the layout."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.errors import TaskError
from zoo.parameters import ParameterLayout
from zoo.store import Zoo

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
SPLITS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Examples:
    """Networks as a metanetwork sees them: inputs `x (N, features)` and what is to be predicted, `y (N,)`."""

    x: Float[Tensor, "networks features"]
    y: Float[Tensor, " networks"]


def flat_rows(
    rows: Float[Tensor, "networks parameters"], layout: ParameterLayout, read: Bool[Tensor, " parameters"]
) -> Float[Tensor, "networks features"]:
    """Return the entries to be `read` of each row."""
    return rows[:, read]


def statistics(
    rows: Float[Tensor, "networks parameters"], layout: ParameterLayout, read: Bool[Tensor, " parameters"]
) -> Float[Tensor, "networks features"]:
    """Return seven statistics of each parameter tensor: mean, variance, minimum, quartiles, maximum.

    Only the entries to be `read` count; a tensor of which none is read is left out.
    Source: Unterthiner et al. 2020.
    """
    features = []
    quantiles = torch.tensor(QUANTILES, dtype=rows.dtype)
    for where in layout.slices.values():
        if read[where].any():
            values = rows[:, where][:, read[where]]
            mean, variance = values.mean(1), values.var(1, correction=0)
            features += [mean[:, None], variance[:, None], values.quantile(quantiles, dim=1).T]
    return torch.cat(features, 1)


READERS: dict[str, Callable[[Tensor, ParameterLayout, Tensor], Tensor]] = {
    "rows": flat_rows,
    "statistics": statistics,
}


def read_zoo(
    zoo: Zoo,
    treatment: str,
    reads: Literal["rows", "statistics"],
    *,
    task: str = "test_accuracy",
    fixed: bool = False,
) -> dict[str, Examples]:
    """Read the three splits of a treatment, inputs standardised with the statistics of the training networks.

    Arguments:
        zoo: the networks; those that diverged are left out.
        treatment: whose.
        reads: rows, or statistics of each tensor.
        task: what is to be predicted, a metric of the zoo.
        fixed: whether to read also the entries that are the same in all networks.

    Raises:
        TaskError: if a split has fewer than two networks, or all have the same target.
        ZooError: if the zoo has no such treatment or metric.
    """
    treated = zoo.treated(treatment)
    read = torch.ones_like(treated.trainable) if fixed else treated.trainable
    targets = torch.from_numpy(zoo.field(treatment, f"metrics/{task}").astype(np.float32))
    splits = {}
    for split in SPLITS:
        index = zoo.index(treatment, split)
        if len(index) < 2:
            raise TaskError(
                f"{zoo.folder}: {treatment} has {len(index)} networks in its {split} split; generate more pairs"
            )
        x = READERS[reads](zoo.rows(treatment, index), treated.layout, read)
        splits[split] = Examples(x, targets[index])
        if len(targets[index].unique()) == 1:
            raise TaskError(
                f"{zoo.folder}: {treatment}'s {split} networks all have the same {task}; nothing to predict"
            )
    mean, std = splits["train"].x.mean(0), splits["train"].x.std(0)
    std = torch.where(std > 0, std, 1)
    return {split: Examples((examples.x - mean) / std, examples.y) for split, examples in splits.items()}
