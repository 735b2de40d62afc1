"""Geometry of the networks of a zoo: distances, angles and dimension, unchanged and with their units aligned.

Source: Gao et al. 2017, *A theory of multineuronal dimensionality, dynamics and measurement*,
https://doi.org/10.1101/214262, for the dimension, the participation ratio of the spectrum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.alignment import is_permutable, permute_checked, weight_matching
from benchmark.figures import Figure, panels
from benchmark.lines import on_scales
from benchmark.selection import trained
from zoo.data import Data
from zoo.progress import Progress, ignore
from zoo.seeds import rng_for
from zoo.statistics import Estimate, over_couples
from zoo.store.networks import Networks

NETWORKS = 64  # networks per treatment, at most; digits-mlp-replicas has as many
FRACTIONS = (0.5, 0.9, 0.99)  # fractions of the variance for which principal components are counted


@dataclass(frozen=True)
class Geometry:
    """Distances, angles and dimensions of a set of networks.

    Attributes:
        treatment: Name of the networks' treatment.
        aligned: Whether the units of all networks were permuted to match those of the first.
        networks: Numbers of their pairs, `(networks,)`.
        distance: Mean distance over all choices of two networks: `whole`, and `per_parameter`, divided by the square
            root of the number of trainable parameters.
        cosine: Mean cosine of the angle between the trainable entries of two networks, over the same choices.
        spectrum: Variances v along the principal components, the largest first, as fractions of their sum.
        dimension: Participation ratio `(sum v)^2 / sum v^2`.
        components: Number of principal components that hold a fraction of the variance, by fraction.
        zoo: Name and digest of the zoo's recipe.
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
        """State distance, cosine and dimension."""
        how = "aligned" if self.aligned else "unchanged"
        return f"{how:12}distance {self.distance['whole']}, cosine {self.cosine}, dimension {self.dimension:.1f}"


def measure(
    networks: Networks, data: Data, *, most: int = NETWORKS, seed: int = 0, progress: Progress = ignore
) -> list[Geometry]:
    """Measure networks unchanged and, if permuting hidden units keeps what they compute, aligned to the first.

    Arguments:
        networks: Networks of one treatment.
        data: Data on which aligned networks are checked.
        most: Largest number of networks; the first are used.
        seed: Seed of weight matching.
        progress: Function that is called with the number of networks just measured.

    Raises:
        TaskError: If there are fewer than three trained networks.
    """
    networks = trained(networks, 3)[:most]
    stack = networks.stack()
    stacks = {False: stack}
    if is_permutable(stack, data.train_x):
        orders = weight_matching(stack.layout, stack.rows, stack.rows[:1], rng_for(seed, "alignment"))
        stacks[True] = permute_checked(stack, orders, data.train_x)
    findings = []
    for aligned, chosen in stacks.items():
        rows = chosen.rows[:, networks.trainable].double()
        distances = on_scales(torch.pdist(rows).numpy(), rows.shape[1])
        spectrum = principal_variances(rows)
        findings.append(
            Geometry(
                treatment=networks.treatment,
                aligned=aligned,
                networks=networks.pairs.tolist(),
                distance={name: over_couples(values) for name, values in distances.items()},
                cosine=over_couples(cosines(rows)),
                spectrum=spectrum,
                dimension=float(1 / np.square(spectrum).sum()),
                components={str(part): int((spectrum.cumsum() < part).sum()) + 1 for part in FRACTIONS},
                zoo=networks.zoo.origin,
            )
        )
        progress(len(networks))
    return findings


def draw(findings: Sequence[Geometry]) -> Figure:
    """Show the fraction of the variance in the first principal components against their number."""
    treatments = list(dict.fromkeys(finding.treatment for finding in findings))
    figure, axes = panels(treatments, sharex=True, sharey=True)
    for finding in findings:
        ax = axes[0, treatments.index(finding.treatment)]
        label = "aligned" if finding.aligned else "unchanged"
        ax.plot(range(1, len(finding.spectrum) + 1), finding.spectrum.cumsum(), label=label)
        ax.set_xlabel("components")
    axes[0, 0].set_ylabel("fraction of the variance")
    axes[0, 0].legend(fontsize=6)
    return figure


def cosines(rows: Float[Tensor, "networks parameters"]) -> Float[np.ndarray, " couples"]:
    """Return the cosine of the angle between every two rows i < j, in the order of `torch.pdist`."""
    directions = rows / rows.norm(dim=1, keepdim=True)
    return (directions @ directions.T)[tuple(torch.triu_indices(len(rows), len(rows), 1))].numpy()


def principal_variances(rows: Float[Tensor, "networks parameters"]) -> Float[np.ndarray, " components"]:
    """Return the variances along the principal components as fractions of their sum, the largest first."""
    variances = torch.linalg.svdvals(rows - rows.mean(0)).square()[:-1]  # the last is 0, because the mean is subtracted
    return (variances / variances.sum()).numpy()
