"""Turns results into one self-contained HTML page of tables and figures."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmark.figures import Figure, panels, png, styled
from benchmark.phenomena.mode_connectivity import ModeConnectivity
from benchmark.phenomena.mode_connectivity import draw as draw_lines
from metanets.evaluation import Result
from zoo.errors import extra
from zoo.files import write_whole
from zoo.statistics import describe
from zoo.store.zoo import Zoo

with extra("report"):
    import jinja2
    from matplotlib.axes import Axes


def write_report(
    path: Path,
    varied: Zoo,
    replicas: Zoo,
    predictions: Sequence[Result],
    connectivity: Sequence[ModeConnectivity],
    made: Mapping[str, str],
) -> Path:
    """Write the report of two zoos and what was measured on them.

    Arguments:
        path: Path of the page.
        varied: Zoo whose hyperparameters vary, which metanetworks read.
        replicas: Zoo whose pairs differ only in their seeds, on which connectivity was measured.
        predictions: Results of metanetworks.
        connectivity: Findings of each treatment.
        made: How the results were made, see `benchmark.evidence.evidence`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmark", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    with styled():
        figures = {
            "accuracies": accuracy_histograms(varied),
            "predictions": predicted_against_true(predictions),
            "lines": draw_lines(connectivity),
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
        describe=describe,
    )
    write_whole(path, page.encode())
    return path


def embed(figure: Figure) -> str:
    """Return a figure as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png(figure)).decode()


def accuracy_histograms(zoo: Zoo) -> Figure:
    """Show the distribution of test accuracies under each treatment."""
    figure, axes = panels(zoo.treatments, sharex=True, sharey=True)
    for ax, treatment in zip(axes[0], zoo.treatments, strict=True):
        ax.hist(100 * zoo[treatment]["test_accuracy"], bins=np.linspace(0, 100, 41), color="C0")
        ax.set_xlabel("test accuracy, %")
    axes[0, 0].set_ylabel("networks")
    return figure


def predicted_against_true(predictions: Sequence[Result]) -> Figure:
    """Show each metanetwork's predictions, mean over seeds, against measured accuracies."""
    models = [model for model in dict.fromkeys(r.model for r in predictions) if model != "mean"]
    treatments = list(dict.fromkeys(r.treatment for r in predictions))
    figure, axes = panels(treatments, len(models), sharex=True, sharey=True)
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
    for row, model in zip(axes, models, strict=True):
        row[0].set_ylabel(f"{model}: predicted, %")
    for ax in axes[-1]:
        ax.set_xlabel("test accuracy, %")
    return figure
