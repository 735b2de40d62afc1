import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmark.lines import barrier, excess
from benchmark.phenomena.mode_connectivity import VARIANTS, measure, measure_variant
from benchmark.selection import good
from tests.benchmark.conftest import TREATMENTS
from zoo.errors import TaskError
from zoo.seeds import rng_for
from zoo.store.networks import Networks

T = np.linspace(0, 1, 25)
TREATMENT = pytest.mark.parametrize("treatment", TREATMENTS)
CURVES = {"train_loss", "train_accuracy", "test_loss", "test_accuracy"}


@pytest.fixture
def mirror(monkeypatch):
    """A function after which the network at the end of each line is the one at its beginning, its units permuted."""

    def replace_ends(permutations):
        original = Networks.stack

        def stack(networks):
            first = original(Networks(networks.zoo, networks.treatment, networks.pairs // 2 * 2))
            return first.permute(permutations) if networks.pairs[0] % 2 else first

        monkeypatch.setattr(Networks, "stack", stack)

    return replace_ends


def some_permutations(networks):
    return networks.layout.random_permutations(rng_for(0, "permutation"))


def measure_plainly(network, x, y):
    with torch.no_grad():
        logits = network(x)
    return float(functional.cross_entropy(logits, y)), float((logits.argmax(1) == y).float().mean())


@TREATMENT
def test_curves_are_those_of_modules_loaded_with_interpolated_weights(replicas, data, treatment):
    networks = replicas[treatment]
    result = measure_variant(networks, data)
    for line in (0, 3):
        a, b = (networks.module(i).state_dict() for i in result.couples[line])
        network = networks.module(0)
        for point in (0, 1, 12, 20, 24):
            t = T[point]
            network.load_state_dict({name: (1 - t) * a[name] + t * b[name] for name in a})
            for split, x, y in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y)):
                loss, accuracy = measure_plainly(network, x, y)
                assert result.curves[f"{split}_loss"][line, point] == pytest.approx(loss, abs=1e-5)
                assert result.curves[f"{split}_accuracy"][line, point] == pytest.approx(accuracy, abs=1e-5)


def test_the_loss_at_the_ends_is_what_the_zoo_recorded(replicas, data):
    result = measure_variant(replicas["standard"], data)
    recorded = replicas["standard"]["test_loss"][result.couples]
    assert np.allclose(result.curves["test_loss"][:, [0, -1]], recorded, atol=1e-5)


@TREATMENT
def test_every_network_is_at_the_end_of_one_line(replicas, data, treatment):
    result = measure_variant(replicas[treatment], data, points=3)
    assert result.couples == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert {name: curves.shape for name, curves in result.curves.items()} == dict.fromkeys(CURVES, (4, 3))


def test_the_ends_of_lines_are_named_by_their_pairs(replicas, data):
    result = measure_variant(replicas["standard"][[0, 2, 3, 5, 8]], data, points=3)
    assert result.couples == [(0, 2), (3, 5)]


def test_of_varied_networks_the_good_half_is_connected(varied, data):
    pairs = good(varied["standard"], 4).pairs
    for result in measure(varied["standard"], data, points=3):
        assert np.ravel(result.couples).tolist() == pairs[: len(pairs) // 2 * 2].tolist()


def test_the_first_lines_are_measured_as_among_all(replicas, data):
    few, whole = (measure_variant(replicas["standard"], data, lines=lines) for lines in (2, 50))
    assert few.couples == whole.couples[:2]
    for name, curves in few.curves.items():
        np.testing.assert_array_equal(curves, whole.curves[name][:2])


@pytest.mark.parametrize("function", [measure, measure_variant])
def test_two_lines_are_the_least(replicas, data, function):
    with pytest.raises(TaskError, match="standard has 3 good networks; 4 or more are needed"):
        function(replicas["standard"][:3], data)


def test_portions_change_nothing(replicas, data, monkeypatch):
    whole, portions = measure_variant(replicas["standard"], data, points=5), []
    monkeypatch.setattr("benchmark.selection.stack_size", lambda *network: 17)
    parts = measure_variant(replicas["standard"], data, points=5, progress=portions.append)
    assert portions == [3, 1]
    for name in CURVES:
        assert np.allclose(parts.curves[name], whole.curves[name], atol=1e-6)


@TREATMENT
def test_a_network_and_itself_have_no_barrier(replicas, mirror, data, treatment):
    mirror({})
    result = measure_variant(replicas[treatment], data)
    for name in CURVES:
        assert np.ptp(result.curves[name], axis=1).max() < 1e-5
        assert result.barriers[name].mean == pytest.approx(0, abs=1e-5)


def test_a_network_and_its_permuted_self_have_equal_ends_and_a_barrier(replicas, mirror, data):
    mirror(some_permutations(replicas["standard"]))
    result = measure_variant(replicas["standard"], data)
    for name, curves in result.curves.items():
        assert np.allclose(curves[:, 0], curves[:, -1], atol=1e-5)
        assert result.barriers[name].low > 0.1
        assert result.midpoints[name].low > 0.1
    middle = result.curves["test_accuracy"][:, 12]
    dip = result.curves["test_accuracy"][:, [0, -1]].mean(1) - middle
    assert result.midpoints["test_accuracy"].mean == pytest.approx(dip.mean(), abs=1e-6)


def test_barriers_are_means_over_lines_of_the_largest_excess(replicas, data):
    result = measure_variant(replicas["standard"], data)
    for name, curves in result.curves.items():
        chord = curves[:, :1] + T * (curves[:, -1:] - curves[:, :1])
        above = chord - curves if name.endswith("accuracy") else curves - chord
        for estimate, values in ((result.barriers[name], above.max(1)), (result.midpoints[name], above[:, 12])):
            assert estimate.mean == pytest.approx(values.mean(), abs=1e-6)
            assert np.allclose(estimate.values, values, atol=1e-6)
            assert (estimate.n, estimate.varies) == (len(result.couples), "lines on these examples")


@pytest.mark.parametrize("height", [-2.0, -0.3, 0.0, 0.3, 2.0])
def test_barrier_of_a_parabola_on_a_slope_is_its_height_or_nothing(height):
    slopes = np.array([[0.0], [-3.0], [5.0]])
    curves = 1 + slopes * T + 4 * height * T * (1 - T)
    assert np.allclose(excess(curves)[:, 12], height)
    assert np.allclose(barrier(curves), max(0, height))


def test_ends_have_no_excess_and_no_barrier_is_negative():
    curves = np.random.default_rng(0).normal(size=(200, 25)).cumsum(1).astype(np.float32)
    assert (excess(curves)[:, [0, -1]] == 0).all()
    assert (barrier(curves) >= 0).all()


@pytest.mark.parametrize("variant", ["weights", "activations", "repaired"])
def test_copies_of_a_network_in_another_order_are_one_network_once_aligned(replicas, mirror, data, variant):
    mirror(some_permutations(replicas["standard"]))
    result = measure_variant(replicas["standard"], data, variant, points=5)
    for name, curves in result.curves.items():
        assert np.ptp(curves, axis=1).max() < 1e-4
        assert result.barriers[name].mean < 1e-4
    assert max(result.distance["whole"].values) < 1e-5


def test_aligned_networks_are_nearer_and_repair_starts_from_the_weights(replicas, data):
    by_variant = {result.variant: result for result in measure(replicas["standard"], data, points=5)}
    assert tuple(by_variant) == VARIANTS
    naive, weights, repaired = (by_variant[variant] for variant in ("naive", "weights", "repaired"))
    assert weights.distance["whole"].high < naive.distance["whole"].low
    assert repaired.distance == weights.distance
    for result in by_variant.values():  # aligned or not, the ends are the same networks
        assert np.allclose(result.curves["test_loss"][:, [0, -1]], naive.curves["test_loss"][:, [0, -1]], atol=1e-4)
    assert not np.allclose(repaired.curves["test_loss"], weights.curves["test_loss"], atol=1e-3)


def test_distance_is_that_of_the_rows(replicas, data):
    networks = replicas["w_asymmetric"]
    result = measure_variant(networks, data, points=3)
    rows = networks.weights[:].double()
    distance = np.array([float((rows[b] - rows[a]).square().sum().sqrt()) for a, b in result.couples])
    trainable = int(networks.mask.sum())
    assert result.distance["whole"].mean == pytest.approx(distance.mean(), rel=1e-5)
    assert result.distance["per_parameter"].mean == pytest.approx(distance.mean() / np.sqrt(trainable), rel=1e-5)


def test_networks_whose_units_have_activations_of_their_own_are_measured_unchanged(replicas, data):
    (result,) = measure(replicas["sigma_asymmetric"], data, points=3)
    assert result.variant == "naive"
    with pytest.raises(TaskError, match="permuting hidden units changes what these networks compute"):
        measure_variant(replicas["sigma_asymmetric"], data, "weights", points=3)
