import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from torch.nn import functional

from benchmark.phenomena.monotonic_interpolation import (
    MEASURES,
    largest_increase,
    locally_convex,
    monotone,
    monotonic_interpolation,
    under_chord,
)
from tests.scenarios import small_recipe
from zoo import generate
from zoo.data import load_data
from zoo.errors import TaskError

T = np.linspace(0, 1, 25)
TREATMENTS = ("standard", "w_asymmetric")


@pytest.fixture(scope="module")
def data():
    return load_data("digits", train_limit=200)


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    training = {"batch_size": 32, "learning_rate": {"log_uniform": [1e-3, 1e-1]}, "epochs": 2}
    return generate(small_recipe(7, training=training).only(TREATMENTS), tmp_path_factory.mktemp("zoos") / "varied")


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_curves_are_those_of_modules_on_the_way_from_start_to_end(varied, data, treatment):
    (result,) = monotonic_interpolation(varied, treatment, data)
    assert result.networks == list(range(7))
    for row, t in ((0, 0), (2, 8), (6, 24)):
        start, end = (varied.rows(treatment, [row], initial=initial)[0] for initial in (True, False))
        network, layout = varied.module(treatment, row), varied.treated(treatment).layout
        network.load_state_dict(layout.unflatten((1 - T[t]) * start + T[t] * end))
        with torch.no_grad():
            loss = functional.cross_entropy(network(data.train_x), data.train_y)
        assert result.train_loss[row, t] == pytest.approx(float(loss), abs=1e-5)


def test_portions_change_nothing(varied, data, monkeypatch):
    (whole,), portions = monotonic_interpolation(varied, "standard", data, points=5), []
    monkeypatch.setattr("benchmark.phenomena.monotonic_interpolation.stack_size", lambda *network: 16)
    (parts,) = monotonic_interpolation(varied, "standard", data, points=5, progress=portions.append)
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


def test_shares_count_inner_points():
    curves = np.array([[4.0, 0.0, 4.0, 5.0, 4.0, 0.0]])  # second differences: 8, -3, -2, -3
    assert locally_convex(curves)[0] == 0.25
    assert under_chord(curves)[0] == 0.25  # the chord falls from 4 to 0


def test_each_measure_is_told_against_each_hyperparameter_that_differs(varied, data):
    (result,) = monotonic_interpolation(varied, "standard", data)
    rates = varied.field("standard", "learning_rate")
    assert result.against.keys() == MEASURES.keys()
    for name, measure in MEASURES.items():
        assert result.against[name].keys() == {"learning_rate"}
        expected = np.nan_to_num(kendalltau(measure(result.train_loss), rates).statistic)
        assert result.against[name]["learning_rate"] == pytest.approx(expected)
        assert result.measures[name].mean == pytest.approx(measure(result.train_loss).mean())


def test_two_networks_are_the_least(varied, data, monkeypatch):
    monkeypatch.setattr(varied, "index", lambda treatment: np.arange(1))
    with pytest.raises(TaskError, match="standard has 1 trained networks; 2 or more are needed"):
        monotonic_interpolation(varied, "standard", data)
