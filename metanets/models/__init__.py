"""Metanetworks by name. To add one: a module that says what it `reads`, and a line here."""

from metanets.models.base import Metanetwork
from metanets.models.linear import Linear
from metanets.models.mlp import MLP
from metanets.models.statnn import StatNN

MODELS: dict[str, type[Metanetwork]] = {"linear": Linear, "mlp": MLP, "statnn": StatNN}

__all__ = ["MODELS", "Metanetwork"]
