import copy

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian  # torch.func.hessian is wrong for the scale of a LayerNorm
from torch.func import functional_call
from torch.nn import functional

from benchmark.phenomena import curvature
from zoo.errors import TaskError


@pytest.mark.parametrize("treatment", ["standard", "w_asymmetric"])
def test_traces_are_those_of_exact_hessians_within_their_errors(replicas, data, treatment, monkeypatch):
    monkeypatch.setattr(curvature, "PROBES", 64)
    monkeypatch.setattr(curvature, "EXAMPLES", 50)
    x, y = data.train_x[:50].double(), data.train_y[:50]
    networks = replicas[treatment][[4, 1]]
    (found,) = curvature.measure(networks, data)
    assert found.networks == [4, 1]
    trainable = networks.mask.nonzero().flatten()
    for k, row in enumerate(networks.weights):
        row = row.double()
        network = copy.deepcopy(networks.treated.module).double()

        def loss(entries, row=row, network=network):
            whole = row.index_copy(0, trainable, entries)
            return functional.cross_entropy(functional_call(network, networks.layout.unflatten(whole), (x,)), y)

        exact = hessian(loss, row[trainable])
        assert abs(found.trace[k] - exact.trace()) < 4 * found.trace_error[k]
        assert found.trace_error[k] < 0.2 * exact.trace()
        largest = torch.linalg.eigvalsh(exact).flip(0)
        assert found.eigenvalues[k, 0] == pytest.approx(float(largest[0]), rel=1e-3)
    assert found.means["trace"].mean == pytest.approx(found.trace.mean())


def test_two_networks_are_the_least(replicas, data):
    with pytest.raises(TaskError, match="standard has 1 trained networks; 2 or more are needed"):
        curvature.measure(replicas["standard"][:1], data)


def test_the_first_networks_are_measured(replicas, data):
    (found,) = curvature.measure(replicas["standard"][2:], data, most=2)
    assert found.networks == [2, 3]


def test_portions_change_nothing(replicas, data, monkeypatch):
    networks, portions = replicas["standard"][:3], []
    monkeypatch.setattr("benchmark.selection.stack_size", lambda *network: 4)
    (found,) = curvature.measure(networks, data, progress=portions.append)
    assert portions == [1, 1, 1]
    monkeypatch.undo()
    (whole,) = curvature.measure(networks, data)
    assert np.allclose(found.eigenvalues[:, 0], whole.eigenvalues[:, 0], rtol=1e-3)
