import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmark.phenomena.planes import planes, span
from zoo.errors import TaskError


def test_axes_are_orthonormal_and_keep_the_distances_of_the_networks():
    rows = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    axes, corners = span(rows)
    torch.testing.assert_close(axes @ axes.T, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(torch.cdist(corners, corners), torch.cdist(rows, rows))
    torch.testing.assert_close(rows[0] + corners @ axes, rows)
    assert corners[0].tolist() == [0, 0]
    assert corners[1, 1].abs() < 1e-12


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 4), (5, 2)])
def test_the_loss_on_the_grid_is_that_of_a_module_there(replicas, data, row, column):
    (found,) = planes(replicas, "standard", data, points=6)
    rows = replicas.rows("standard", found.networks)
    axes, _ = span(rows)
    there = rows[0] + found.x[column] * axes[0] + found.y[row] * axes[1]
    network = replicas.module("standard", 0)
    network.load_state_dict(replicas.treated("standard").layout.unflatten(there))
    with torch.no_grad():
        logits = network(data.test_x)
    assert found.test_loss[row, column] == pytest.approx(float(functional.cross_entropy(logits, data.test_y)), rel=1e-4)
    accuracy = (logits.argmax(1) == data.test_y).double().mean()
    assert found.test_accuracy[row, column] == pytest.approx(float(accuracy), abs=0.01)


def test_the_grid_goes_round_all_three_networks(replicas, data):
    (found,) = planes(replicas, "standard", data, points=3)
    assert (found.corners > [found.x[0], found.y[0]]).all()
    assert (found.corners < [found.x[-1], found.y[-1]]).all()


def test_three_networks_are_the_least(replicas, data, monkeypatch):
    monkeypatch.setattr(replicas, "index", lambda treatment: np.arange(2))
    with pytest.raises(TaskError, match="standard has 2 good networks; 3 or more are needed"):
        planes(replicas, "standard", data)
