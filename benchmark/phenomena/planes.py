"""The loss on the plane through three networks in weight space.

Source: Garipov, Izmailov, Podoprikhin, Vetrov, Wilson 2018, *Loss Surfaces, Mode Connectivity, and Fast Ensembling of
DNNs*, appendix A.3, https://arxiv.org/abs/1802.10026.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.figures import Figure, panels
from benchmark.repair import reestimate
from benchmark.selection import good
from zoo.data import Data
from zoo.progress import Progress, ignore
from zoo.store.networks import Networks

POINTS = 21  # along each side of the grid; its 441 networks give smooth contours
MARGIN = 0.25  # around the three networks, as a fraction of their extent, so that the loss around them shows


@dataclass(frozen=True)
class Plane:
    """Test loss and accuracy on a plane.

    Attributes:
        treatment: Name of the networks' treatment.
        networks: Numbers of the pairs of the three networks on the plane.
        corners: Coordinates of the three networks, `(3, 2)`, in the unit of distance between rows; the first is the
            origin, the second lies on the first axis.
        x: First coordinates of the grid, `(points,)`.
        y: Second coordinates of the grid, `(points,)`.
        test_loss: Mean cross-entropy at `[place in y, place in x]`, in nats.
        test_accuracy: Accuracy at `[place in y, place in x]`.
        zoo: Name and digest of the zoo's recipe.
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
        """State how far apart the networks are."""
        sides = np.linalg.norm(self.corners - np.roll(self.corners, 1, 0), axis=1)
        return f"plane through networks {self.networks}, {', '.join(f'{side:.2f}' for side in sides)} apart"


def measure(networks: Networks, data: Data, *, points: int = POINTS, progress: Progress = ignore) -> list[Plane]:
    """Measure the plane through the first three good networks, see `benchmark.selection.good`.

    Arguments:
        networks: Networks of one treatment.
        data: Data on whose test split the loss is measured.
        points: Number of points along each side of the grid.
        progress: Function that is called with the number of networks just measured.

    Raises:
        TaskError: If there are fewer than three good networks.
    """
    networks = good(networks, 3)[:3]
    stack = networks.stack()
    axes, corners = span(stack.rows)
    low, high = corners.amin(0), corners.amax(0)
    margin = MARGIN * (high - low)
    x, y = (torch.linspace(float(a), float(b), points) for a, b in zip(low - margin, high + margin, strict=True))
    places = torch.cartesian_prod(y, x).flip(1)  # (points^2, 2), x fastest
    rows = stack.rows[0] + places @ axes
    measured = reestimate(stack.with_rows(rows), data.train_x).evaluate(data.test_x, data.test_y)
    loss, accuracy = (values.view(points, points).numpy() for values in (measured.loss, measured.accuracy))
    progress(len(networks))
    return [
        Plane(
            treatment=networks.treatment,
            networks=networks.pairs.tolist(),
            corners=corners.numpy(),
            x=x.numpy(),
            y=y.numpy(),
            test_loss=loss,
            test_accuracy=accuracy,
            zoo=networks.zoo.origin,
        )
    ]


def span(rows: Float[Tensor, "3 parameters"]) -> tuple[Float[Tensor, "2 parameters"], Float[Tensor, "3 2"]]:
    """Return orthonormal axes of the plane through three rows, and the rows' coordinates; the first is the origin."""
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
