"""The data set card of a zoo, which the Hub shows as the page of the data set, and its figure."""

import io
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from huggingface_hub import DatasetCardData
from numpy.typing import NDArray

from zoo.errors import extra
from zoo.sharing.configuration import Configuration
from zoo.store.columns import KNOWN, Column
from zoo.store.zoo import Zoo

CARD = "README.md"
FIGURE = "accuracy.png"
TEMPLATE = "dataset_card.md.jinja"
CITATION = (files("zoo.sharing") / "citation.bib").read_text()
LICENCE = "cc-by-4.0"
LICENCE_URL = "https://creativecommons.org/licenses/by/4.0/"
REPOSITORY = "OWNER/asymzoo-{}"  # `OWNER` is replaced by the real owner when a zoo is pushed
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}  # size categories of the Hub
WIDTHS = {"mask": "P / 8", "held_F": "units² of all activations"}  # widths of columns that depend on the recipe
TAGS = ["model-zoo", "weight-space-learning", "metanetworks", "parameter-symmetries", "linear-mode-connectivity"]


def card(zoo: Zoo | None = None, configurations: Sequence[Configuration] = ()) -> str:
    """Return the data set card of a zoo, or the card that describes all zoos.

    Arguments:
        zoo: Zoo of the card; None for the card of all zoos.
        configurations: Configurations of the data set.

    Raises:
        ExtraError: If jinja2 is not installed.
    """
    with extra("report"):
        import jinja2
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("zoo.sharing", "."), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["literal"] = literal
    return environment.get_template(TEMPLATE).render(
        head=_head(zoo, configurations),
        zoo=zoo,
        repository="" if zoo is None else REPOSITORY.format(zoo.name),
        figure=FIGURE,
        rows=[] if zoo is None else [_summary(zoo, treatment) for treatment in zoo.treatments],
        columns=[_describe(column) for column in (KNOWN.values() if zoo is None else zoo.manifest.columns)],
        versions="" if zoo is None else ", ".join(" ".join(pair) for pair in zoo.manifest.versions.items()),
        citation=CITATION,
    )


def _head(zoo: Zoo | None, configurations: Sequence[Configuration]) -> str:
    """Return the head of a card, which the Hub reads, as YAML."""
    networks = 1_000 if zoo is None else len(zoo) * len(zoo.treatments)
    head = DatasetCardData(
        pretty_name="AsymZoo" if zoo is None else f"AsymZoo {zoo.name}",
        license=LICENCE if zoo is None or zoo.manifest.source is None else "other",
        language=["en"],
        annotations_creators=["machine-generated"],
        source_datasets=["original"],
        size_categories=[next(name for most, name in SIZES.items() if networks < most)],
        task_categories=["tabular-regression"],
        tags=TAGS,
        configs=[configuration.data_files for configuration in configurations] or None,
        dataset_info=[configuration.dataset_info for configuration in configurations] or None,
    )
    return head.to_yaml() + "\n"


def _describe(column: Column) -> dict[str, str]:
    """Return the row of a column in the card's table; text that does not come from this package is shown literally."""
    width = column.width or WIDTHS.get(column.name) or ("epochs" if column.kind == "curve" else None)
    shape = "" if width is None else f" ({'P' if width == 'parameters' else width})"
    known = column.name in KNOWN and column.meaning == KNOWN[column.name].meaning
    only = "" if column.treatments is None else " " + literal(f"Only {', '.join(column.treatments)}.")
    return {
        "name": column.name,
        "type": literal(column.dtype) + shape,
        "unit": literal(column.unit),
        "meaning": (column.meaning if known else literal(column.meaning)) + only,
    }


def literal(text: str) -> str:
    """Return text as one line that Markdown and HTML show literally, since the text of a zoo may be anyone's."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return re.sub(r"[^\w\s.,:;()/+=%'-]|_|^[\W\d]", lambda mark: f"&#{ord(mark[0])};", line)


def draw_accuracies(zoo: Zoo) -> bytes:
    """Return a PNG image with a histogram of the test accuracy of trained networks for each treatment.

    Raises:
        ExtraError: If matplotlib is not installed.
    """
    with extra("report"):
        from matplotlib.figure import Figure
    accuracies = {treatment: _accuracies(zoo, treatment) for treatment in zoo.treatments}
    accuracies = {treatment: values[np.isfinite(values)] for treatment, values in accuracies.items()}
    bins = np.histogram_bin_edges(np.concatenate([*accuracies.values()]), 40)
    figure = Figure(figsize=(6.4, 0.7 + 0.6 * len(accuracies)), layout="constrained")
    axes = figure.subplots(len(accuracies), sharex=True, sharey=True, squeeze=False)[:, 0]
    if any(map(len, accuracies.values())):
        axes[0].set_yscale("log")
    for ax, (treatment, values) in zip(axes, accuracies.items(), strict=True):
        if len(values):
            ax.hist(values, bins, color="tab:blue")
            ax.axvline(np.median(values), color="black", linewidth=1)
        ax.set_ylabel(treatment, rotation=0, horizontalalignment="right", verticalalignment="center")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(bottom=0.5)  # shows bars of height 1 on the logarithmic scale
    axes[0].minorticks_off()
    axes[0].yaxis.set_major_formatter("{x:,.0f}")
    axes[-1].set_xlabel("test accuracy (line: median); height: number of networks")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130)
    return image.getvalue()


def _accuracies(zoo: Zoo, treatment: str) -> NDArray[np.float32]:
    return zoo[treatment]["test_accuracy"]


def _summary(zoo: Zoo, treatment: str) -> dict[str, Any]:
    every = zoo.networks(treatment, diverged=True)
    accuracies, treated = _accuracies(zoo, treatment), every[:1].treated
    low, median, high = np.quantile(accuracies, [0.05, 0.5, 0.95]) if len(accuracies) else [np.nan] * 3
    return {
        "treatment": treatment,
        "networks": len(zoo),
        "diverged": len(zoo) - len(accuracies),
        "parameters": treated.layout.size,
        "trainable": int(treated.trainable.reshape(-1, treated.layout.size)[0].sum()),
        "median": median,
        "low": low,
        "high": high,
    }
