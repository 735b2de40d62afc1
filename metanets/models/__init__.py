"""Metanetworks by name. To add one: a module that says what it `reads`, and a line here."""

from metanets.models.base import Metanetwork
from metanets.models.boosted import Boosted
from metanets.models.deepsets import DeepSets
from metanets.models.dmc import DMC
from metanets.models.gmn import GMN
from metanets.models.linear import Linear
from metanets.models.mlp import RowMLP
from metanets.models.neural_graph_transformer import NeuralGraphTransformer
from metanets.models.nfn import HNP, NP
from metanets.models.scale_gmn import ScaleGMN
from metanets.models.set_transformer import SetTransformer
from metanets.models.statnn import StatNN

MODELS: dict[str, type[Metanetwork]] = {
    "linear": Linear,
    "boosted": Boosted,
    "statnn": StatNN,
    "mlp": RowMLP,
    "dmc": DMC,
    "deepsets": DeepSets,
    "set_transformer": SetTransformer,
    "nfn_np": NP,
    "nfn_hnp": HNP,
    "gmn": GMN,
    "neural_graph_transformer": NeuralGraphTransformer,
    "scale_gmn": ScaleGMN,
}

__all__ = ["MODELS", "Metanetwork"]
