"""Style and panels of all figures, and how they are written to files."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from zoo.errors import extra
from zoo.files import write_whole
from zoo.statistics import Estimate

if TYPE_CHECKING:
    import matplotlib.figure

Figure: TypeAlias = "matplotlib.figure.Figure"  # as a string, because matplotlib is imported only to draw

STYLE: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}


def panels(titles: Sequence[str], rows: int = 1, **shared: Any) -> tuple[Figure, np.ndarray]:
    """Return a figure with a column of panels under each title, and its axes, `(rows, columns)`."""
    with extra("report"):
        import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(2.3 * len(titles), 2.1 * rows), layout="constrained")
    axes = figure.subplots(rows, len(titles), squeeze=False, **shared)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    return figure, axes


def error_bars(estimates: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    """Return means, and how far their intervals reach below and above them, 0 where there is none; `(2, estimates)`."""
    ends = [(e.mean if e.low is None else e.low, e.mean, e.mean if e.high is None else e.high) for e in estimates]
    low, mean, high = np.array(ends).T
    return mean, np.stack([mean - low, high - mean]).clip(0)  # a mean may lie outside a bootstrap interval


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG image."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130, bbox_inches="tight")
    return image.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    write_whole(path, png(figure))


def styled() -> Any:
    """Return a context in which figures are drawn in the project's style."""
    with extra("report"):
        import matplotlib

    return matplotlib.rc_context(STYLE)
