"""What holds for every treatment in `TREATMENTS`, on every architecture."""

import pytest
import torch

from tests.scenarios import NETWORKS, SETTINGS, some_thetas, treat, treatment_of
from zoo.seeds import rng_for
from zoo.treatments import TREATMENTS, Treated

EVERY = pytest.mark.parametrize("setting", SETTINGS)
NETWORK = pytest.mark.parametrize("network", ["mlp", "cnn_norm", "resnet8"])


def test_every_treatment_has_a_scenario():
    assert {setting["kind"] for setting in SETTINGS.values()} == TREATMENTS.keys()
    assert all(treatment.model_fields["kind"].annotation.__args__ == (k,) for k, treatment in TREATMENTS.items())


@EVERY
@pytest.mark.parametrize("network", NETWORKS)
def test_stack_gives_the_logits_of_each_network_run_alone(setting, network):
    treated, x = treat(setting, network, dtype=torch.float64), NETWORKS[network].examples()
    stack = treated.stack(treated.to_rows(some_thetas(treated)))
    alone = torch.stack([stack.network(k)(x) for k in range(len(stack))])
    torch.testing.assert_close(stack.logits(x), alone, rtol=1e-10, atol=1e-10)
    assert (alone[0] - alone[1]).abs().max() > 1e-3


@EVERY
@NETWORK
def test_fixed_entries_are_the_constants_whatever_theta_is(setting, network):
    treated = treat(setting, network)
    theta = 1e3 * torch.randn(2, treated.layout.size, generator=torch.Generator().manual_seed(0))
    rows, fixed = treated.to_rows(theta), ~treated.mask
    assert torch.equal(treated.to_rows(treated.keep_trainable(theta)), rows)
    assert treated.keep_trainable(theta)[:, fixed].eq(0).all()
    if fixed.any():
        assert treated.constants is not None
        assert torch.equal(rows[:, fixed], treated.constants[fixed].expand(2, -1))


@EVERY
@NETWORK
def test_only_trainable_entries_have_gradients_and_theirs_are_one(setting, network):
    treated = treat(setting, network, dtype=torch.float64)
    theta = some_thetas(treated, 2).requires_grad_()
    treated.to_rows(theta).sum().backward()
    assert torch.equal(theta.grad, treated.mask.double().expand(2, -1))


@EVERY
@NETWORK
def test_treated_state_dict_fits_the_plain_architecture(setting, network):
    treated = treat(setting, network)
    plain = treatment_of(setting).architecture(NETWORKS[network].name, NETWORKS[network].arguments)
    stack = treated.stack(treated.to_rows(some_thetas(treated, 1, dtype=torch.float32)))
    state = stack.network(0).state_dict()
    plain.load_state_dict(state, strict=True)
    assert torch.equal(treated.layout.flatten(plain.state_dict()), stack.rows[0])


@EVERY
@NETWORK
def test_what_a_zoo_holds_rebuilds_the_treatment(setting, network):
    treated, scenario = treat(setting, network), NETWORKS[network]
    treatment, x = treatment_of(setting), scenario.examples().float()
    again = Treated.of(treatment, scenario.name, scenario.arguments, seed=99, held=treated.held)
    theta = some_thetas(treated, dtype=torch.float32)
    logits = [t.stack(t.to_rows(theta)).logits(x) for t in (treated, again)]
    assert torch.equal(*logits)
    assert torch.equal(treated.decay, again.decay)
    assert torch.equal(treated.mask, again.mask)


@EVERY
def test_moving_a_treatment_leaves_the_original_as_it_was(setting):
    treated, x = treat(setting), NETWORKS["mlp"].examples().float()
    stack = treated.stack(treated.to_rows(some_thetas(treated, dtype=torch.float32)))
    before = stack.logits(x)
    treated.to("cpu", torch.float64)
    assert torch.equal(stack.logits(x), before)


@EVERY
def test_start_keeps_the_numbers_that_treatments_share_where_entries_are_free(setting):
    treated = treat(setting)
    initial = treated.layout.draw_initial(rng_for(0, "initial", 0))
    start = treatment_of(setting).start(initial, treated.layout, 0, 0)
    assert start.shape == initial.shape
    free = treated.mask
    if SETTINGS[setting]["kind"] == "w_initialised":
        free = start == initial
        assert (~free).sum() == 2 * sum(weight.shape[0] for weight in treated.layout.weights)
    assert torch.equal(start[free], initial[free])
