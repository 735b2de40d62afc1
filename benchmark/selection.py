"""Selects the networks of a treatment that are measured, and portions that are measured at once."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from zoo.errors import TaskError
from zoo.networks.stack import stack_size
from zoo.store.networks import Networks


def trained(networks: Networks, least: int) -> Networks:
    """Return the networks that did not diverge.

    Arguments:
        networks: Networks of one treatment.
        least: Least number of networks that is needed.

    Raises:
        TaskError: If there are fewer than `least`.
    """
    return _enough(networks[networks["status"] == "trained"], "trained", least)


def good(networks: Networks, least: int) -> Networks:
    """Return the networks that are worth connecting or merging.

    These are all trained ones if they have the same hyperparameters, as replicas do. Otherwise they are those of the
    better half of the pairs, by the mean train accuracy of a pair's trained networks over all treatments of the zoo. So
    of the same pairs, the same are chosen under every treatment.

    Arguments:
        networks: Networks of one treatment.
        least: Least number of networks that is needed.

    Raises:
        TaskError: If there are fewer than `least`, or they do not share their activations.
    """
    check_shared(networks, "activations")
    chosen = trained(networks, 0)
    if len(chosen) and any(np.ptp(values) > 0 for values in chosen.group("hyperparameter").values()):
        accuracy = _mean_accuracy(chosen)
        chosen = chosen[accuracy >= np.median(accuracy)]
    return _enough(chosen, "good", least)


def _mean_accuracy(networks: Networks) -> Float[np.ndarray, " networks"]:
    """Return the mean train accuracy of each pair's trained networks over all treatments of the zoo."""
    every = [Networks(networks.zoo, treatment, networks.pairs) for treatment in networks.zoo.treatments]
    known = [networks, *(each for each in every if "train_accuracy" in each and each.treatment != networks.treatment)]
    accuracies = [np.where(each["status"] == "trained", each["train_accuracy"], np.nan) for each in known]
    return np.nanmean(accuracies, axis=0)


def check_shared(networks: Networks, what: Literal["activations", "constants"]) -> None:
    """Check that networks share their activations, or everything that their treatment holds constant.

    The mean of two networks with different activations is not a network of the zoo.

    Arguments:
        networks: Networks of one treatment.
        what: What they must share.

    Raises:
        TaskError: If each network has its own.
    """
    own = networks.own_constants
    if "held_F" in own or (own and what == "constants"):
        raise TaskError(
            f"{networks.zoo.folder}: {networks.treatment} networks have their own {what}; "
            "take a treatment that shares them"
        )


def portions(networks: Networks, device: torch.device, *, group: int = 1, load: int = 1) -> Iterator[Networks]:
    """Yield the networks a few groups at a time, so that what is computed together stays in cache.

    Arguments:
        networks: Networks of one treatment, the members of a group side by side.
        device: Device that they run on.
        group: Number of networks in a group.
        load: Memory of a group, as a number of networks, such as the number of points on a line.
    """
    size = group * max(1, stack_size(networks[:1].treated.module, networks.layout, device) // load)
    return (networks[begin : begin + size] for begin in range(0, len(networks), size))


def _enough(networks: Networks, kind: str, least: int) -> Networks:
    if len(networks) < least:
        raise TaskError(
            f"{networks.zoo.folder}: {networks.treatment} has {len(networks)} {kind} networks; {least} or more are "
            f"needed: asymzoo zoo generate {networks.zoo.name} with more --pairs"
        )
    return networks
