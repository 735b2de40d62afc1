import pytest
import torch
from torch.nn import functional

from benchmark.phenomena.planes import measure, span
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
    networks = replicas["standard"]
    (found,) = measure(networks, data, points=6)
    rows = networks.weights[:3]
    axes, _ = span(rows)
    there = rows[0] + found.x[column] * axes[0] + found.y[row] * axes[1]
    network = networks.module(0)
    network.load_state_dict(networks.layout.unflatten(there))
    with torch.no_grad():
        logits = network(data.test_x)
    assert found.test_loss[row, column] == pytest.approx(float(functional.cross_entropy(logits, data.test_y)), rel=1e-4)
    accuracy = (logits.argmax(1) == data.test_y).double().mean()
    assert found.test_accuracy[row, column] == pytest.approx(float(accuracy), abs=0.01)


def test_the_grid_goes_round_the_first_three_networks_and_names_their_pairs(replicas, data):
    (found,) = measure(replicas["standard"][[6, 2, 4, 1]], data, points=3)
    assert found.networks == [6, 2, 4]
    assert (found.corners > [found.x[0], found.y[0]]).all()
    assert (found.corners < [found.x[-1], found.y[-1]]).all()


def test_three_networks_are_the_least(replicas, data):
    with pytest.raises(TaskError, match="standard has 2 good networks; 3 or more are needed"):
        measure(replicas["standard"][:2], data)
