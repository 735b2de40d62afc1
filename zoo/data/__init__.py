"""Data sets as tensors: reading them, graphs, augmentation."""

from zoo.data.dataset import Data, load_data
from zoo.data.sources import DATASETS

__all__ = ["DATASETS", "Data", "load_data"]
