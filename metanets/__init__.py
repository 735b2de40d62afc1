"""Learns from zoos: networks that read the weights of networks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metanets.datasets import ZooGraphs, ZooRows
    from metanets.evaluation import Result, evaluate, predict
    from metanets.graph import ParameterGraph
    from metanets.metanet import Metanet
    from metanets.models import Metanetwork
    from metanets.settings import Settings
    from metanets.tasks import Task
    from metanets.training import fit, train
    from metanets.tuning import tune

_HOMES = {
    "ZooGraphs": "datasets",
    "ZooRows": "datasets",
    "Result": "evaluation",
    "evaluate": "evaluation",
    "predict": "evaluation",
    "ParameterGraph": "graph",
    "Metanet": "metanet",
    "Metanetwork": "models",
    "Settings": "settings",
    "Task": "tasks",
    "fit": "training",
    "train": "training",
    "tune": "tuning",
}

__all__ = [
    "Metanet",
    "Metanetwork",
    "ParameterGraph",
    "Result",
    "Settings",
    "Task",
    "ZooGraphs",
    "ZooRows",
    "evaluate",
    "fit",
    "predict",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    # Imported when first used: `asymzoo --help` needs no torch.
    if name in _HOMES:
        return getattr(import_module(f"metanets.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'metanets' has no attribute {name!r}")
