"""The loss on the plane through three networks.

Source: Garipov, Izmailov, Podoprikhin, Vetrov, Wilson 2018, *Loss Surfaces, Mode Connectivity, and Fast Ensembling of
DNNs*, appendix A.3, https://arxiv.org/abs/1802.10026.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.figures import Figure, panels
from benchmark.lines import good_networks
from zoo.data import Data
from zoo.store.zoo import Zoo

POINTS = 21  # along each side
MARGIN = 0.25  # of the triangle's extent, on each side


@dataclass(frozen=True)
class Plane:
    """Test loss and accuracy on a plane.

    Attributes:
        treatment: whose networks.
        networks: the three that it goes through.
        corners: where they are on it, `(3, 2)`, as distances between rows; the first is the origin, the second on the
            first axis.
        x, y: of the grid, `(points,)`.
        test_loss, test_accuracy: `(points, points)`, at `[row of y, column of x]`.
        zoo: name and digest of the zoo's recipe.
    """

    treatment: str
    networks: list[int]
    corners: Float[np.ndarray, "3 2"]
    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, " points"]
    test_loss: Float[np.ndarray, "points points"]
    test_accuracy: Float[np.ndarray, "points points"]
    zoo: dict[str, str]

    def headline(self) -> str:
        """Say how far apart the networks are."""
        sides = np.linalg.norm(self.corners - np.roll(self.corners, 1, 0), axis=1)
        return f"plane through networks {self.networks}, {', '.join(f'{side:.2f}' for side in sides)} apart"


def planes(
    zoo: Zoo,
    treatment: str,
    data: Data,
    *,
    points: int = POINTS,
    progress: Callable[[int], None] = lambda networks: None,
) -> list[Plane]:
    """Measure the plane through the first three networks.

    Arguments:
        zoo, treatment: whose networks: replicas, of varied networks the good half, see `good_networks`.
        data: whose test split measures.
        points: along each side of the grid.
        progress: called with the number of networks.

    Raises:
        TaskError: if there are fewer than three networks.
    """
    index = good_networks(zoo, treatment, 3)[:3]
    stack = zoo.stack(treatment, index)
    axes, corners = span(stack.rows)
    low, high = corners.amin(0), corners.amax(0)
    margin = MARGIN * (high - low)
    x, y = (torch.linspace(float(a), float(b), points) for a, b in zip(low - margin, high + margin, strict=True))
    places = torch.cartesian_prod(y, x).flip(1)  # (points^2, 2), x fastest
    rows = stack.rows[0] + places @ axes
    measured = stack.with_rows(rows).evaluate(data.test_x, data.test_y)
    loss, accuracy = (values.view(points, points).numpy() for values in (measured.loss, measured.accuracy))
    progress(3)
    return [Plane(treatment, index.tolist(), corners.numpy(), x.numpy(), y.numpy(), loss, accuracy, zoo.origin)]


def span(rows: Float[Tensor, "3 parameters"]) -> tuple[Float[Tensor, "2 parameters"], Float[Tensor, "3 2"]]:
    """Return orthonormal axes of the plane through three rows, the first as origin, and where the rows are on it."""
    sides = rows[1:] - rows[0]
    first = sides[0] / sides[0].norm()
    second = sides[1] - (sides[1] @ first) * first
    axes = torch.stack([first, second / second.norm()])
    return axes, (rows - rows[0]) @ axes.T


def draw(findings: Sequence[Plane]) -> Figure:
    """Show the test loss as contours, and the three networks."""
    figure, axes = panels([finding.treatment for finding in findings])
    for ax, finding in zip(axes[0], findings, strict=True):
        shown = ax.contourf(finding.x, finding.y, np.log(finding.test_loss), levels=12, cmap="viridis")
        ax.plot(*finding.corners.T, "o", color="white", markeredgecolor="black", markersize=4)
        ax.set_aspect("equal")
        ax.set_xlabel("distance")
        figure.colorbar(shown, ax=ax, label="log test loss")
    return figure
