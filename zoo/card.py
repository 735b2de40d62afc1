"""The data set card of a zoo, which the Hub shows as its page, and the figure in it."""

import io
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
from huggingface_hub import DatasetCardData
from numpy.typing import NDArray

from zoo.store import Zoo

CARD = "README.md"
FIGURE = "accuracy.png"
TEMPLATE = "dataset_card.md.jinja"
CITATION = (files("zoo") / "citation.bib").read_text()
LICENCE = "cc-by-4.0"
LICENCE_URL = "https://creativecommons.org/licenses/by/4.0/"
REPOSITORY = "OWNER/asymzoo-{}"
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}  # the Hub's, in networks
TAGS = ["model-zoo", "weight-space-learning", "metanetworks", "parameter-symmetries", "linear-mode-connectivity"]


def card(zoo: Zoo | None = None, configurations: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the data set card of a zoo, or of the family of all zoos.

    Arguments:
        zoo: whose card it is.
        configurations: of the data set: `config_name`, `data_files`, and what the Hub calls `dataset_info`.
    """
    networks = 1_000 if zoo is None else len(zoo) * len(zoo.treatments)
    head = DatasetCardData(
        pretty_name="AsymZoo" if zoo is None else f"AsymZoo {zoo.recipe.name}",
        license=LICENCE if zoo is None or zoo.recipe.imported is None else "other",
        language=["en"],
        annotations_creators=["machine-generated"],
        source_datasets=["original"],
        size_categories=[next(name for most, name in SIZES.items() if networks < most)],
        task_categories=["tabular-regression"],
        tags=TAGS,
        configs=[{name: each[name] for name in ("config_name", "data_files")} for each in configurations] or None,
        dataset_info=[{name: each[name] for name in each if name != "data_files"} for each in configurations] or None,
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("zoo", "."), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["literal"] = literal
    return environment.get_template(TEMPLATE).render(
        head=head.to_yaml() + "\n",
        zoo=zoo,
        repository="" if zoo is None else REPOSITORY.format(zoo.recipe.name),
        figure=FIGURE,
        rows=[] if zoo is None else [_summary(zoo, treatment) for treatment in zoo.treatments],
        versions="" if zoo is None else ", ".join(" ".join(pair) for pair in zoo.manifest.versions.items()),
        citation=CITATION,
    )


def literal(text: str) -> str:
    """Return text on one line that Markdown and HTML show as it stands: the words of a zoo may be a stranger's."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return re.sub(r"[^\w\s.,:;()/+=%'-]|_|^[\W\d]", lambda mark: f"&#{ord(mark[0])};", line)


def draw_accuracies(zoo: Zoo) -> bytes:
    """Return a PNG image of how the test accuracy of trained networks is distributed under each treatment."""
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
    axes[0].set_ylim(bottom=0.5)  # of one network, so that it is seen
    axes[0].minorticks_off()
    axes[0].yaxis.set_major_formatter("{x:,.0f}")
    axes[-1].set_xlabel("test accuracy, and how many networks have it (line: median)")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130)
    return image.getvalue()


def _accuracies(zoo: Zoo, treatment: str) -> NDArray[np.float32]:
    return zoo.field(treatment, "metrics/test_accuracy")[zoo.index(treatment)]


def _summary(zoo: Zoo, treatment: str) -> dict[str, Any]:
    accuracies, treated = _accuracies(zoo, treatment), zoo.treated(treatment)
    low, median, high = np.quantile(accuracies, [0.05, 0.5, 0.95]) if len(accuracies) else [np.nan] * 3
    return {
        "treatment": treatment,
        "networks": len(zoo),
        "diverged": len(zoo) - len(accuracies),
        "parameters": treated.layout.size,
        "trainable": int(treated.trainable.sum()),
        "median": median,
        "low": low,
        "high": high,
    }
