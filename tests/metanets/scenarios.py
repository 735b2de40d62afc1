"""Tasks and metanetworks that tests of metanets share."""

from torch import nn
from torch_geometric.nn import GraphConv, global_mean_pool

from metanets.evaluation import evaluate
from metanets.models import Metanetwork
from metanets.settings import Settings
from metanets.tasks import Task
from tests.conftest import PLANTED

CHEAP = ("linear", "mlp", "statnn", "gmn")  # one for each kind of input, and a large state
FEW = Settings(epochs=3, batch_size=32)
BRIEF = Settings(epochs=5, batch_size=16)
LONG = Settings(epochs=60, learning_rate=1e-3)


def ask(treatment="standard", **fields):
    """A task about a planted zoo."""
    return Task.read({"recipe": "small", "learn_from": treatment} | fields)


def measure(zoo, task, model, **options):
    """The result of two short trainings, unless options say otherwise."""
    return evaluate(task, zoo, model, **{"seeds": 2, "settings": BRIEF} | options)


def held_out(zoo, treatment="standard"):
    return zoo[treatment].split("test")


STANDARD = ask()
CLASSES = ask(PLANTED, target="treatment")


class Mean(Metanetwork):
    """A metanetwork of a user's own, with an option."""

    reads = "statistics"
    settings = Settings(epochs=3)
    choices = {"width": (1, 2)}

    def __init__(self, reader, outputs=1, width=4):
        super().__init__(reader)
        self.layers = nn.Sequential(nn.Linear(reader.features, width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, x):
        return self.layers(x)


class GraphRegressor(nn.Module):
    """As any user of PyG would write it."""

    def __init__(self, nodes, edges):
        super().__init__()
        self.conv, self.output = GraphConv(nodes, 16), nn.Linear(16, 1)
        self.weight = nn.Linear(edges, 1)

    def forward(self, batch):
        x = self.conv(batch.x, batch.edge_index, self.weight(batch.edge_attr).flatten()).relu()
        return self.output(global_mean_pool(x, batch.batch))
