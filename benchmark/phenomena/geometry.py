"""Where the networks of a zoo lie: how far apart, in how many directions, before and after their units are aligned.

Source: Gao et al. 2017, *A theory of multineuronal dimensionality, dynamics and measurement*,
https://doi.org/10.1101/214262, for the number of dimensions, the participation ratio of the spectrum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.alignment import is_permutable, permute, weight_matching
from benchmark.figures import Figure, panels
from benchmark.lines import mean_distances, trained_networks
from zoo.data import Data
from zoo.seeds import rng_for
from zoo.statistics import Estimate, mean_interval
from zoo.store.zoo import Zoo

NETWORKS = 64
SHARES = (0.5, 0.9, 0.99)  # of the variance


@dataclass(frozen=True)
class Geometry:
    """Distances, angles and dimensions of a set of networks.

    Attributes:
        treatment: whose networks.
        aligned: whether all had their units brought into the order of the first.
        networks: which, `(networks,)`.
        distance: between two networks, mean over networks of the mean to all others, with its 95 % interval; and per
            square root of the number of trainable parameters.
        cosine: of the angle between two networks' trainable entries, likewise.
        spectrum: variances along the principal components, the largest first, as shares of their sum.
        dimension: the participation ratio `(sum v)^2 / sum v^2` of these variances.
        components: how many of them hold a share of the variance, by share.
        zoo: name and digest of the zoo's recipe.
    """

    treatment: str
    aligned: bool
    networks: list[int]
    distance: dict[str, Estimate]
    cosine: Estimate
    spectrum: Float[np.ndarray, " components"]
    dimension: float
    components: dict[str, int]
    zoo: dict[str, str]

    def headline(self) -> str:
        """Say how far apart and in how many directions."""
        how = "aligned" if self.aligned else "as they are"
        return f"{how:12}distance {self.distance['whole']}, cosine {self.cosine}, dimension {self.dimension:.1f}"


def geometry(
    zoo: Zoo,
    treatment: str,
    data: Data,
    *,
    networks: int = NETWORKS,
    seed: int = 0,
    progress: Callable[[int], None] = lambda networks: None,
) -> list[Geometry]:
    """Measure networks as they are and, where permuting keeps what they compute, aligned to the first.

    Arguments:
        zoo, treatment: whose networks; those that diverged are left out.
        data: on which aligned networks are checked.
        networks: the first so many.
        seed: of the turns of weight matching.
        progress: called with the number of networks just done.

    Raises:
        TaskError: if there are fewer than three trained networks.
    """
    index = trained_networks(zoo, treatment, 3)[:networks]
    treated, stack = zoo.treated(treatment), zoo.stack(treatment, index)
    stacks = {False: stack}
    if is_permutable(stack, data.train_x):
        found = weight_matching(stack.layout, stack.rows, stack.rows[:1], rng_for(seed, "alignment"))
        stacks[True] = permute(stack, found, data.train_x)
    findings = []
    for aligned, some in stacks.items():
        rows = some.rows[:, treated.trainable].double()
        distance = mean_to_others(torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist"))
        directions = rows / rows.norm(dim=1, keepdim=True)
        spectrum = principal_variances(rows)
        findings.append(
            Geometry(
                treatment=treatment,
                aligned=aligned,
                networks=index.tolist(),
                distance=mean_distances(distance, rows.shape[1]),
                cosine=mean_interval(mean_to_others(directions @ directions.T)),
                spectrum=spectrum,
                dimension=float(1 / np.square(spectrum).sum()),
                components={str(share): int((spectrum.cumsum() < share).sum()) + 1 for share in SHARES},
                zoo=zoo.origin,
            )
        )
        progress(len(index))
    return findings


def draw(findings: Sequence[Geometry]) -> Figure:
    """Show the share of the variance in the first so many principal components."""
    treatments = list(dict.fromkeys(finding.treatment for finding in findings))
    figure, axes = panels(treatments, sharex=True, sharey=True)
    for finding in findings:
        ax = axes[0, treatments.index(finding.treatment)]
        label = "aligned" if finding.aligned else "as they are"
        ax.plot(range(1, len(finding.spectrum) + 1), finding.spectrum.cumsum(), label=label)
        ax.set_xlabel("components")
    axes[0, 0].set_ylabel("share of the variance")
    axes[0, 0].legend(fontsize=6)
    return figure


def mean_to_others(between: Float[Tensor, "networks networks"]) -> Float[np.ndarray, " networks"]:
    """Return for each network the mean of what is between it and every other."""
    others = ~torch.eye(len(between), dtype=torch.bool)
    return between[others].view(len(between), -1).mean(1).numpy()


def principal_variances(rows: Float[Tensor, "networks parameters"]) -> Float[np.ndarray, " components"]:
    """Return the variances along the principal components as shares of their sum, the largest first."""
    variances = torch.linalg.svdvals(rows - rows.mean(0)).square()[:-1]  # the mean takes one direction
    return (variances / variances.sum()).numpy()
