"""Turns results into one self-contained HTML page of tables and figures."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.phenomena.mode_connectivity import ModeConnectivity
from metanets.evaluation import Result
from zoo.manifest import write_whole
from zoo.store import Zoo

STYLE: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}


def write_report(
    path: Path,
    varied: Zoo,
    replicas: Zoo,
    predictions: Sequence[Result],
    connectivity: Sequence[ModeConnectivity],
    made: Mapping[str, str],
) -> Path:
    """Write the report of a zoo of varied networks, one of replicas, and what was measured on them."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmark", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    with matplotlib.rc_context(STYLE):
        figures = {
            "accuracies": accuracy_histograms(varied),
            "predictions": predicted_against_true(predictions),
            "lines": interpolation_curves(connectivity),
        }
    treatments = list(dict.fromkeys(result.treatment for result in predictions))
    models = list(dict.fromkeys(result.model for result in predictions))
    page = environment.get_template("report.html.jinja").render(
        varied=varied,
        replicas=replicas,
        treatments=treatments,
        models=models,
        results={(result.model, result.treatment): result for result in predictions},
        connectivity={result.treatment: result for result in connectivity},
        figures={name: embed(figure) for name, figure in figures.items()},
        made=made,
    )
    write_whole(path, page.encode())
    return path


def embed(figure: Figure) -> str:
    """Return a figure as a data URI."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(image.getvalue()).decode()


def _row_of_axes(columns: int, rows: int = 1, **shared: Any) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(2.3 * columns, 2.1 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def accuracy_histograms(zoo: Zoo) -> Figure:
    """Show the distribution of test accuracies under each treatment."""
    figure, axes = _row_of_axes(len(zoo.treatments), sharex=True, sharey=True)
    for ax, treatment in zip(axes[0], zoo.treatments, strict=True):
        accuracy = zoo.field(treatment, "metrics/test_accuracy")[zoo.index(treatment)]
        ax.hist(100 * accuracy, bins=np.linspace(0, 100, 41), color="C0")
        ax.set_title(treatment)
        ax.set_xlabel("test accuracy, %")
    axes[0, 0].set_ylabel("networks")
    return figure


def predicted_against_true(predictions: Sequence[Result]) -> Figure:
    """Show each metanetwork's predictions, mean over seeds, against measured accuracies."""
    models = [model for model in dict.fromkeys(r.model for r in predictions) if model != "mean"]
    treatments = list(dict.fromkeys(r.treatment for r in predictions))
    figure, axes = _row_of_axes(len(treatments), len(models), sharex=True, sharey=True)
    places = {
        (model, treatment): ax
        for model, row in zip(models, axes, strict=True)
        for treatment, ax in zip(treatments, row, strict=True)
    }
    for result in predictions:
        if result.model == "mean":
            continue
        ax: Axes = places[result.model, result.treatment]
        ax.plot([0, 100], [0, 100], color="0.8", linewidth=1)
        ax.plot(100 * np.array(result.true), 100 * np.mean(result.predicted, 0), ".", markersize=3)
        ax.set(xlim=(0, 102), ylim=(-10, 112))
        ax.text(4, 98, f"R² {result.metrics['r2'].mean:.2f}, τ {result.metrics['kendall_tau'].mean:.2f}", fontsize=8)
    for ax, treatment in zip(axes[0], treatments, strict=True):
        ax.set_title(treatment)
    for row, model in zip(axes, models, strict=True):
        row[0].set_ylabel(f"{model}: predicted, %")
    for ax in axes[-1]:
        ax.set_xlabel("test accuracy, %")
    return figure


def interpolation_curves(connectivity: Sequence[ModeConnectivity]) -> Figure:
    """Show the test loss along every line between replicas, and its mean."""
    figure, axes = _row_of_axes(len(connectivity), sharex=True, sharey=True)
    for ax, result in zip(axes[0], connectivity, strict=True):
        curves = result.curves["test_loss"]
        t = np.linspace(0, 1, curves.shape[1])
        ax.plot(t, curves.T, color="C0", alpha=0.25, linewidth=0.7)
        ax.plot(t, curves.mean(0), color="C3", linewidth=2)
        ax.set_title(result.treatment)
        ax.set_xlabel("from one network to another")
    axes[0, 0].set_ylabel("test loss, nats")
    return figure
