import numpy as np
import pytest

from metanets.training import train
from tests.metanets.scenarios import FEW, STANDARD
from zoo import statistics
from zoo.store.columns import KNOWN, SPLITS


@pytest.fixture
def rough_intervals(monkeypatch):
    """Intervals from few resamples."""
    monkeypatch.setattr(statistics, "RESAMPLES", 40)


@pytest.fixture(scope="session")
def trained(planted_zoo):
    """A small metanetwork of statistics; for reading only."""
    settings = FEW.model_copy(update={"options": {"hidden": 8}})
    return train(STANDARD, planted_zoo, "statnn", settings=settings)[0]


@pytest.fixture(scope="session")
def deep_zoo(plant_zoo):
    """A zoo with rows before training and after a tenth of it, larger by 1 and by 2 than those after all of it."""

    def change(arrays):
        arrays["initial_weights"] = arrays["weights"] + np.float32(1)
        arrays["weights_at_0_1"] = arrays["weights"] + np.float32(2)

    checkpoint = KNOWN["weights"].model_copy(update={"name": "weights_at_0_1"})
    return plant_zoo(change, columns=[checkpoint], pairs=40)


@pytest.fixture(scope="session")
def other_zoo(plant_zoo):
    """A zoo of another name, with a treatment that the planted zoo lacks."""

    def change(arrays):
        arrays["weights"] *= 2

    return plant_zoo(change, name="other", treatments=["standard", "syre"])


@pytest.fixture(scope="session")
def gappy_zoo(plant_zoo):
    """A zoo whose test losses are not finite in three networks of each split."""

    def change(arrays):
        for split in SPLITS:
            arrays["test_loss"][np.flatnonzero(arrays["split"] == split)[1:4]] = [np.nan, np.inf, -np.inf]

    return plant_zoo(change)
