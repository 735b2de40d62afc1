"""Dimensions that index more than one thing: units at positions, and units in blocks."""

import itertools

import numpy as np
import pytest
import torch

from benchmark.alignment import weight_matching
from tests.scenarios import some_thetas, treat
from tests.unusual import Unusual
from zoo.networks.parameter import Parameter, Part, parts_of
from zoo.networks.parameters import ParameterLayout

HEADS = (("head", 2), ("unit", 3))
LAYOUT = ParameterLayout(
    (
        Parameter("up", (6, 5), (HEADS, "input"), "weight"),
        Parameter("slope", (2,), ("head",), "scale"),
        Parameter("down", (4, 6), ("output", HEADS), "weight"),
    )
)


def test_a_dimension_is_an_axis_positions_or_a_product_of_them():
    assert parts_of("hidden", 5) == (Part("hidden", 5),)
    assert parts_of(None, 3) == (Part(None, 3),)
    assert parts_of((("c", 6), (None, 9)), 54) == (Part("c", 6), Part(None, 9))
    assert parts_of(((None, 3), ("head", 4), ("unit", 16)), 192) == (Part(None, 3), Part("unit", 64, ("head", 4)))


def test_flattened_channels_are_permuted_with_all_of_their_positions():
    linear = Parameter("linear", (1, 6), ("output", (("channel", 3), (None, 2))), "weight")
    layout = ParameterLayout((Parameter("conv", (3, 1, 1, 1), ("channel", "input", None, None), "weight"), linear))
    moved = layout.permute(torch.arange(9.0), {"channel": torch.tensor([2, 0, 1])})
    assert moved.tolist() == [2, 0, 1, 7, 8, 3, 4, 5, 6]


def test_every_order_of_blocks_and_of_units_in_each_is_drawn_equally_often():
    rng, draws = np.random.default_rng(0), 3600
    seen = [tuple(torch.cat([*LAYOUT.random_permutations(rng).values()]).tolist()) for _ in range(draws)]
    _, counts = np.unique(seen, axis=0, return_counts=True)
    assert len(counts) == 2 * 6 * 6
    assert np.square(counts - draws / 72).sum() / (draws / 72) < 120  # chi-squared with 71 degrees of freedom, p = 2e-4


def test_units_stay_in_their_block_and_blocks_keep_their_units():
    row = torch.arange(float(LAYOUT.size))
    across, within = torch.arange(6).roll(1), torch.tensor([1, 2, 0, 3, 5, 4])
    blocks = {"head": torch.tensor([1, 0]), "unit": torch.tensor([3, 4, 5, 0, 1, 2])}
    for wrong in ({"unit": across}, {"head": blocks["head"]}, {"unit": blocks["unit"]}, {"unit": across[None]}):
        with pytest.raises(ValueError, match="unit: its units leave their head; permute both, as"):
            LAYOUT.permute(row if wrong["unit" if "unit" in wrong else "head"].ndim == 1 else row[None], wrong)
    assert LAYOUT.unflatten(LAYOUT.permute(row, {"unit": within}))["slope"].tolist() == [30, 31]
    assert LAYOUT.unflatten(LAYOUT.permute(row, blocks))["slope"].tolist() == [31, 30]


@pytest.mark.parametrize("seed", range(3))
def test_no_order_of_blocks_and_units_brings_networks_nearer_than_weight_matching(seed):
    rng = np.random.default_rng(seed)
    rows, targets = (torch.from_numpy(rng.normal(size=(1, LAYOUT.size))) for _ in range(2))
    found = weight_matching(LAYOUT, rows, targets, rng)
    distances = []
    for head in itertools.permutations(range(2)):
        for first, second in itertools.product(itertools.permutations(range(3)), repeat=2):
            units = [3 * block + unit for block in head for unit in (first, second)[block]]
            order = {"head": torch.tensor(head), "unit": torch.tensor(units)}
            distances.append(float((LAYOUT.permute(rows, order) - targets).norm()))
    assert float((LAYOUT.permute(rows, found) - targets).norm()) == pytest.approx(min(distances), rel=1e-12)
    assert len(distances) == 72


def test_tied_weights_are_one_parameter_and_their_biases_start_by_the_same_layer():
    module = Unusual(hidden=40)
    layout = ParameterLayout.of(module)
    assert "right.weight" not in [p.name for p in layout.parameters]
    assert layout["right.bias"].layer_weight == "left.weight"
    start = layout.unflatten(layout.draw_initial(np.random.default_rng(0)))
    assert 0.1 < start["right.bias"].abs().max() * 40**0.5 <= 1
    treated = treat("standard", "unusual")
    network = treated.stack(some_thetas(treated, dtype=torch.float32)).network(1)
    assert network.left.weight is network.right.weight


def test_embeddings_start_as_those_of_pytorch():
    module = torch.nn.Embedding(50, 40)
    module.axes = {"weight": ("input", "hidden")}
    layout = ParameterLayout.of(module)
    assert layout["weight"].role == "embedding"
    drawn = layout.draw_initial(np.random.default_rng(0))
    assert abs(drawn.mean()) < 0.1
    assert abs(drawn.std() - 1) < 0.05
    assert drawn.isfinite().all()
    assert abs(drawn.abs().sort().values[int(0.6827 * len(drawn))] - 1) < 0.06  # a normal's share within one deviation
