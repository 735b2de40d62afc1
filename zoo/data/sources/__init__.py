"""Sources of data sets: `DATASETS` has a line for each, and each kind of source or file format has a file here."""

from zoo.data.sources.digits import Digits
from zoo.data.sources.hub import Repository
from zoo.data.sources.nodes import Nodes
from zoo.data.sources.published import FORMATS, Published
from zoo.data.sources.source import Source, Split, Splits

DATASETS: dict[str, Source] = {
    "digits": Digits(),
    "sbm": Nodes(classes=5),
    "ogbn-arxiv": Nodes(classes=40),
    "mnist1d": Published(Repository("christopher/mnist1d", image="x", label="y")),
    "mnist": Published(Repository("ylecun/mnist"), formats=("saved", "idx")),
    "fashion_mnist": Published(Repository("zalando-datasets/fashion_mnist"), formats=("saved", "idx")),
    "kmnist": Published(Repository("tanganke/kmnist"), formats=("saved", "idx")),
    "cifar10": Published(Repository("uoft-cs/cifar10", image="img"), formats=("saved", "cifar")),
    "svhn": Published(Repository("ufldl-stanford/svhn", config="cropped_digits")),
}

__all__ = ["DATASETS", "FORMATS", "Source", "Split", "Splits"]
