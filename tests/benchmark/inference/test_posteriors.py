"""What holds for every module that finds posteriors."""

from dataclasses import fields, is_dataclass
from inspect import Parameter, signature

import pytest
import torch

from benchmark.inference import langevin, laplace, swag, variational
from benchmark.predictive import Posterior
from tests.scenarios import some_data, some_thetas, treat

BRIEF = {
    variational: variational.Settings(steps=2, batch_size=8),
    swag: swag.Settings(epochs=3, rank=2, batch_size=8),
    laplace: laplace.Settings(),
    langevin: langevin.Settings(burn_in=2, draws=5, every=1, batch_size=8),
}
EVERY = pytest.mark.parametrize("module", BRIEF, ids=lambda module: module.__name__.rpartition(".")[2])


@EVERY
def test_fit_takes_networks_data_settings_and_pairs(module):
    parameters = signature(module.fit).parameters
    assert list(parameters)[:5] == ["treated", "rows", "data", "settings", "pairs"]
    assert all(parameters[name].kind == Parameter.KEYWORD_ONLY for name in list(parameters)[4:])
    assert is_dataclass(module.Settings)
    assert "precision" in {field.name for field in fields(module.Settings)}


@EVERY
def test_fit_returns_posteriors_of_which_rows_are_drawn(module):
    treated = treat("w_asymmetric")
    rows = treated.to_rows(some_thetas(treated, 3, dtype=torch.float32))
    posterior = module.fit(treated, rows, some_data(), BRIEF[module], pairs=[4, 1, 7])
    assert isinstance(posterior, Posterior)
    draws = posterior.draw(2, torch.Generator().manual_seed(0))
    assert draws.shape == (3, 2, treated.layout.size)
    assert draws.isfinite().all()
    assert torch.equal(draws[..., ~treated.mask], treated.constants[~treated.mask].expand(3, 2, -1))
    assert (draws[:, 0] != draws[:, 1])[:, treated.mask].any(1).all()
