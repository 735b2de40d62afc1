"""Architectures by name. To add one: a module with `axes` and `sites`, and a line here."""

from zoo.architectures.base import Architecture
from zoo.architectures.cnn import CNN
from zoo.architectures.gnn import GNN
from zoo.architectures.mlp import MLP
from zoo.architectures.resnet import ResNet

ARCHITECTURES: dict[str, type[Architecture]] = {"mlp": MLP, "cnn": CNN, "resnet": ResNet, "gnn": GNN}

__all__ = ["ARCHITECTURES", "Architecture"]
