"""Learns from zoos: networks that read the weights of networks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metanets.datasets import ZooDataset, ZooRows
    from metanets.evaluation import evaluate_model, score
    from metanets.graph import ParameterGraph
    from metanets.metanet import Metanet, train_model
    from metanets.settings import Settings
    from metanets.training import fit

_HOMES = {
    "ZooDataset": "datasets",
    "ZooRows": "datasets",
    "evaluate_model": "evaluation",
    "score": "evaluation",
    "ParameterGraph": "graph",
    "Metanet": "metanet",
    "train_model": "metanet",
    "Settings": "settings",
    "fit": "training",
}

__all__ = [
    "Metanet",
    "ParameterGraph",
    "Settings",
    "ZooDataset",
    "ZooRows",
    "evaluate_model",
    "fit",
    "score",
    "train_model",
]


def __getattr__(name: str) -> Any:
    # Imported when first used: `asymzoo --help` needs no torch.
    if name in _HOMES:
        return getattr(import_module(f"metanets.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'metanets' has no attribute {name!r}")
