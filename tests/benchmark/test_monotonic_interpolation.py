import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from torch.nn import functional

from benchmark.phenomena.monotonic_interpolation import (
    MEASURES,
    largest_increase,
    locally_convex,
    measure,
    monotone,
    under_chord,
)
from zoo.errors import TaskError

T = np.linspace(0, 1, 25)


@pytest.mark.parametrize("treatment", ["standard", "w_asymmetric"])
def test_curves_are_those_of_modules_between_start_and_end(varied, data, treatment):
    networks = varied[treatment][3:10]
    (result,) = measure(networks, data)
    assert result.networks == list(range(3, 10))
    for row, t in ((0, 0), (2, 8), (6, 24)):
        start, end = networks.initial_weights[row], networks.weights[row]
        network = networks.module(row)
        network.load_state_dict(networks.layout.unflatten((1 - T[t]) * start + T[t] * end))
        with torch.no_grad():
            loss = functional.cross_entropy(network(data.train_x), data.train_y)
        assert result.train_loss[row, t] == pytest.approx(float(loss), abs=1e-5)


def test_portions_change_nothing(varied, data, monkeypatch):
    networks = varied["standard"][:7]
    (whole,), portions = measure(networks, data, points=5), []
    monkeypatch.setattr("benchmark.selection.stack_size", lambda *network: 16)
    (parts,) = measure(networks, data, points=5, progress=portions.append)
    assert portions == [3, 3, 1]
    assert np.allclose(parts.train_loss, whole.train_loss, atol=1e-6)


def test_measures_of_a_parabola_are_known():
    # (t - m)^2 falls to m, then rises; its second difference is positive; it is under its chord throughout.
    for m in (0.25, 0.5, 1.0):
        curve = (T - m)[None] ** 2
        assert largest_increase(curve)[0] == pytest.approx((1 - m) ** 2 - (1 - 1 / 24 - m) ** 2)
        assert monotone(curve)[0] == (m == 1)
        assert locally_convex(curve)[0] == 1
        assert under_chord(curve)[0] == 1
        assert locally_convex(-curve)[0] == 0
        assert under_chord(-curve)[0] == 0


def test_largest_increase_is_negative_where_the_loss_falls_throughout():
    curves = np.array([[3.0, 2.0, 1.5], [3.0, 3.0, 1.0], [1.0, 4.0, 0.0]])
    assert largest_increase(curves).tolist() == [-0.5, 0.0, 3.0]
    assert monotone(curves).tolist() == [1, 1, 0]


def test_fractions_count_inner_points():
    curves = np.array([[4.0, 0.0, 4.0, 5.0, 4.0, 0.0]])  # second differences: 8, -3, -2, -3
    assert locally_convex(curves)[0] == 0.25
    assert under_chord(curves)[0] == 0.25  # the chord falls from 4 to 0


def test_each_measure_is_compared_with_each_hyperparameter_that_differs(varied, data):
    networks = varied["standard"]
    (result,) = measure(networks, data)
    assert result.against.keys() == MEASURES.keys()
    for name, function in MEASURES.items():
        assert result.against[name].keys() == {"learning_rate", "epochs"}
        for hyperparameter, tau in result.against[name].items():
            expected = kendalltau(function(result.train_loss), networks[hyperparameter]).statistic
            assert tau == pytest.approx(np.nan_to_num(expected))
        assert result.measures[name].mean == pytest.approx(function(result.train_loss).mean())


def test_two_networks_are_the_least(varied, data):
    with pytest.raises(TaskError, match="standard has 1 trained networks; 2 or more are needed"):
        measure(varied["standard"][:1], data)
