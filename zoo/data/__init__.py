"""Data sets as tensors: their sources, graphs, and augmentation."""

from zoo.data.dataset import Data, load_data
from zoo.data.sources import DATASETS

__all__ = ["DATASETS", "Data", "load_data"]
