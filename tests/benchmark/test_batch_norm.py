"""Batch norm between networks: its statistics are measured again wherever weights are not those of one training."""

import pytest
import torch

from benchmark.alignment import outputs
from benchmark.repair import norms_of, reestimate
from tests.benchmark.test_alignment import some_stack
from tests.scenarios import NETWORKS

WITH_BATCH_NORM = pytest.mark.parametrize("network", ["resnet_batch", "gnn_batch"])


@WITH_BATCH_NORM
def test_statistics_are_those_of_what_each_norm_is_given_in_training(network):
    """With the module in training mode, each norm's input has these means and variances (over one batch of all)."""
    stack, x = some_stack(network), NETWORKS[network].examples(40)
    measured = reestimate(stack, x)
    assert torch.equal(measured.rows[:, stack.layout.learned], stack.rows[:, stack.layout.learned])
    for k in range(len(stack)):
        module, found = measured.network(k).train(), measured.layout.unflatten(measured.rows[k].clone())
        for name in norms_of(module):

            def check(norm, inputs, output, name=name, found=found):
                units = inputs[0].transpose(0, 1).flatten(1)
                torch.testing.assert_close(found[f"{name}.running_mean"], units.mean(1))
                torch.testing.assert_close(found[f"{name}.running_var"], units.var(1))

            module.get_submodule(name).register_forward_hook(check)
        module(x)


def test_over_several_batches_each_counts_as_much(monkeypatch):
    monkeypatch.setattr("benchmark.repair.batch_size", lambda *_: 10)
    stack, x = some_stack("resnet_batch"), NETWORKS["resnet_batch"].examples(30)
    whole = stack.layout.unflatten(reestimate(stack, x).rows)
    parts = [stack.layout.unflatten(reestimate(stack, x[i : i + 10]).rows) for i in (0, 10, 20)]
    for kind in ("running_mean", "running_var"):
        torch.testing.assert_close(whole[f"ln1.{kind}"], torch.stack([part[f"ln1.{kind}"] for part in parts]).mean(0))


def test_no_batch_is_much_smaller_than_the_others(monkeypatch):
    monkeypatch.setattr("benchmark.repair.batch_size", lambda *_: 10)
    sizes, x = [], NETWORKS["resnet_batch"].examples(31)
    stack = some_stack("resnet_batch", 1)
    stack.module.conv1.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    reestimate(stack, x)
    assert sizes == [8, 8, 8, 7]


@WITH_BATCH_NORM
def test_reestimated_norms_give_each_unit_its_shift_as_mean_and_its_scale_as_deviation(network):
    stack, x = some_stack(network), NETWORKS[network].examples(60)
    measured = reestimate(stack, x)
    tensors = stack.layout.unflatten(stack.rows)
    for name, values in outputs(measured, norms_of(stack.module), x).items():
        torch.testing.assert_close(values.mean(2), tensors[f"{name}.bias"], rtol=0.05, atol=0.05)
        torch.testing.assert_close(values.std(2), tensors[f"{name}.weight"].abs(), rtol=0.05, atol=0.05)


def test_networks_without_batch_norm_stay_the_same():
    stack = some_stack("mlp")
    assert reestimate(stack, NETWORKS["mlp"].examples()) is stack
