import numpy as np
import pytest
import torch

from benchmark.alignment import outputs
from benchmark.repair import norms_of, repair
from tests.benchmark.test_alignment import some_stack
from tests.scenarios import NETWORKS
from zoo.errors import TaskError

WITH_NORMS = pytest.mark.parametrize("network", ["mlp", "cnn_norm", "resnet8", "resnet_batch", "gnn_batch", "vit"])
T = torch.tensor([0.0, 0.5, 0.75, 1.0], dtype=torch.float64)


def between(network):
    """Networks on the line between each of two ends, and the examples to measure them on."""
    a, b = (some_stack(network, len(T), seed=seed) for seed in (0, 1))
    rows = (1 - T[:, None]) * a.rows + T[:, None] * b.rows
    return a.with_rows(rows), (a, b), NETWORKS[network].examples(50)


def spread(stack, x):
    given = outputs(stack, norms_of(stack.module), x)
    return {name: (each.mean(2), each.std(2)) for name, each in given.items()}


@WITH_NORMS
def test_each_unit_has_the_mean_and_deviation_between_those_of_the_ends(network):
    stack, ends, x = between(network)
    of_a, of_b, before, after = (spread(s, x) for s in (*ends, stack, repair(stack, ends, T, x)))
    for norm in after:
        for own, raw, first, second in zip(after[norm], before[norm], of_a[norm], of_b[norm], strict=True):
            wanted = (1 - T[:, None]) * first + T[:, None] * second
            torch.testing.assert_close(own, wanted)
            assert (raw - wanted).abs().max() > 0.001


@WITH_NORMS
def test_the_ends_are_unchanged_and_norms_alone_change_between_them(network):
    stack, ends, x = between(network)
    repaired = repair(stack, ends, T, x)
    torch.testing.assert_close(repaired.logits(x)[[0, 3]], stack.logits(x)[[0, 3]])
    for parameter in stack.layout.parameters:
        before, after = (s.rows[1:3, stack.layout.slices[parameter.name]] for s in (stack, repaired))
        assert torch.equal(before, after) != (parameter.role in ("norm_scale", "norm_shift"))


def test_a_unit_of_constant_output_is_left_without_spread():
    stack, ends, x = between("mlp")
    silent = stack.layout.slices["hidden.0.norm.weight"]
    for rows in (stack.rows, *(end.rows for end in ends)):
        rows[:, silent.start] = 0
    repaired = repair(stack, ends, T, x)
    assert repaired.rows.isfinite().all()
    assert (repaired.rows[:, silent.start] == 0).all()


def test_without_norms_there_is_nothing_to_repair():
    stack, ends, x = between("mlp_plain")
    with pytest.raises(TaskError, match="repair: the architecture has no norms, or one without scale or shift"):
        repair(stack, ends, T, x)


def test_networks_do_not_depend_on_those_beside_them():
    stack, ends, x = between("mlp")
    whole = repair(stack, ends, T, x).rows
    for k in range(len(T)):
        alone, a, b = (each.take(k) for each in (stack, *ends))
        assert np.allclose(repair(alone, (a, b), T[k : k + 1], x).rows, whole[k : k + 1], atol=1e-12)
