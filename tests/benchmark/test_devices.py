"""Lines and posteriors on a second device: the same results as on the CPU.

A GPU draws other noise than a CPU. The device here has no generators of its own, so its noise is that of the CPU.
"""

import numpy as np
import pytest
import torch

from benchmark.inference import langevin, laplace, swag, variational
from benchmark.lines import measure_lines
from benchmark.predictive import predict, quality
from benchmark.repair import repair
from tests import pretend
from tests.scenarios import NETWORKS, some_data, some_thetas, treat

pytestmark = pytest.mark.skipif(
    not pretend.available(), reason="this version of PyTorch has no devices written in Python"
)
DEVICES = ("cpu", "pretend")
POSTERIORS = {
    "variational": (variational, variational.Settings(steps=20, batch_size=8)),
    "factors": (variational, variational.Settings(steps=20, batch_size=8, rank=2)),
    "swag": (swag, swag.Settings(epochs=4, batch_size=8, rank=3, learning_rate=1e-3)),
    "laplace": (laplace, laplace.Settings()),
    "langevin": (langevin, langevin.Settings(burn_in=5, draws=4, every=2, step_size=1e-3)),
}


@pytest.mark.parametrize(("network", "repaired"), [("mlp", False), ("mlp", True), ("cnn", False)])
def test_lines_are_the_same_on_a_second_device(network, repaired):
    treated, data = treat("standard", network), some_data(NETWORKS[network].shape)
    rows = some_thetas(treated, networks=4, dtype=torch.float32)

    def measure(device):
        there, examples = treated.to(device), data.to(device)
        change = (lambda *lines: repair(*lines, x=examples.train_x)) if repaired else None
        ends = (there.stack(end.to(device)) for end in (rows[:2], rows[2:]))
        return measure_lines(*ends, examples, 5, change=change)

    with pretend.Pretend():
        expected, found = map(measure, DEVICES)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("setting", ["standard", "w_asymmetric", "sigma_asymmetric"])
@pytest.mark.parametrize("method", POSTERIORS)
def test_a_posterior_is_the_same_on_a_second_device(method, setting):
    (kind, settings), treated, data = POSTERIORS[method], treat(setting), some_data()
    rows = treated.to_rows(some_thetas(treated, dtype=torch.float32))

    def measure(device):
        there, examples = treated.to(device), data.to(device)
        posterior = kind.fit(there, rows.to(device), examples, settings, pairs=range(3))
        p = predict(posterior, there, examples.test_x, 3, torch.Generator().manual_seed(0))
        assert p.device.type == device
        return quality(p, examples.test_y)

    with pretend.Pretend():
        expected, found = map(measure, DEVICES)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4)
