import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from tests.scenarios import NETWORKS, SETTINGS, augment_slowly, small_recipe, some_data, some_thetas, treat
from zoo.data import load_data
from zoo.data.augmentation import Augmentation
from zoo.networks.stack import stack_gradient
from zoo.recipes.optimizer import Optimizer
from zoo.recipes.recipe import HYPERPARAMETERS
from zoo.seeds import rng_for
from zoo.training.compiled.training import train_compiled
from zoo.training.engines import train
from zoo.training.generation import start_rows, train_pairs
from zoo.training.results import MEASURED, Draws
from zoo.training.stacked import train_stacked

SEED, PAIRS = 3, [4, 0, 9]
BATCH, EXAMPLES = 8, 43  # 5 batches an epoch, 3 examples left out
ADAMW = Optimizer(optimizer="adamw", batch_size=BATCH, schedule="triangular", warmup=0.3)
SGD = Optimizer(optimizer="sgd", batch_size=BATCH, schedule="warmup", warmup_epochs=1, momentum=0.8)
OPTIMIZER = pytest.mark.parametrize("settings", [ADAMW, SGD], ids=["adamw", "sgd"])
EVERY = pytest.mark.parametrize("setting", SETTINGS)
ENGINE = pytest.mark.parametrize("train", [train_compiled, train_stacked], ids=["compiled", "torch"])


def hyperparameters(
    rates=(0.02, 0.05, 0.01), decays=(0.1, 0.0, 0.5), smoothings=(0.0, 0.2, 0.1), epochs=(3, 1, 2), pairs=PAIRS
):
    floats = (torch.tensor(values, dtype=torch.float64) for values in (rates, decays, smoothings))
    return Draws(torch.tensor(pairs), *floats, torch.tensor(epochs))


def train_stack(treated, theta, settings, hyper=None, data=None, train=train):
    hyper, data = hyper or hyperparameters(), data or some_data(train=EXAMPLES)
    return train(treated, theta, hyper, data, settings, seed=SEED)


# The reference: one ordinary module, one ordinary optimiser


class Masked(nn.Module):
    """A parametrisation: the weight trains where the mask is true, and is constant elsewhere."""

    def __init__(self, mask, constants):
        super().__init__()
        self.mask, self.constants = mask, constants

    def forward(self, theta):
        return torch.where(self.mask, theta, self.constants)


class Offset(nn.Module):
    def __init__(self, constants):
        super().__init__()
        self.constants = constants

    def forward(self, theta):
        return theta + self.constants


def ordinary_module(treated, theta):
    """A module whose parameters are `theta` and which uses the weights of the treatment."""
    network = treated.stack(theta[None]).network(0)
    if "constants" not in treated.held:
        return network
    held = {name: treated.layout.unflatten(treated.held[name].to(theta)) for name in treated.held}
    for parameter in treated.layout.parameters:
        if parameter.name in treated.layout.statistics:
            continue
        owner, _, kind = parameter.name.rpartition(".")
        constants = held["constants"][parameter.name]
        use = Masked(held["mask"][parameter.name] == 1, constants) if "mask" in held else Offset(constants)
        parametrize.register_parametrization(network.get_submodule(owner), kind, use)
    return network


def read(network, layout):
    """The weights that a module uses, end to end."""
    places = [parameter.name.rpartition(".") for parameter in layout.parameters]
    used = [getattr(network.get_submodule(owner), kind) for owner, _, kind in places]
    return torch.cat([weight.detach().flatten() for weight in used])


def share_of_highest_rate(settings, step, epochs, steps_per_epoch):
    """The schedules of `ADAMW` and `SGD`, for the step that comes after `step` others."""
    if settings is ADAMW:
        steps = epochs * steps_per_epoch
        peak = 0.3 * steps
        return min(1.0, (step + 1) / peak, (steps - step) / (steps - peak))
    return min((step + 1) / steps_per_epoch, 1.0) if settings is SGD else 1.0


def train_alone(treated, theta, settings, data, rate, decay, smoothing, epochs, pair):
    """Train one network with a plain loop; return the weights that it uses after each epoch."""
    network = ordinary_module(treated, theta).train()
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings.optimizer]
    specifics = {"momentum": settings.momentum} if settings.optimizer == "sgd" else {}
    by_hand = None
    if "decay" in treated.held:  # a decay for each entry: more than torch.optim can do
        rates = treated.layout.unflatten(decay * treated.held["decay"].to(theta))
        by_hand = [rates[p.name] for p in treated.layout.parameters if p.name not in treated.layout.statistics]
    parameters = list(network.parameters())
    if by_hand:
        originals = dict(network.named_parameters())
        learned = [p for p in treated.layout.parameters if p.name not in treated.layout.statistics]
        names = [p.name.rpartition(".") for p in learned]
        parameters = [originals[f"{o}.parametrizations.{k}.original".removeprefix(".")] for o, _, k in names]
    optimizer = kind(parameters, lr=rate, weight_decay=0.0 if by_hand else decay, **specifics)
    steps_per_epoch, rows = len(data.train_y) // settings.batch_size, []
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: share_of_highest_rate(settings, step, epochs, steps_per_epoch)
    )
    for epoch in range(epochs):
        order = rng_for(SEED, "order", pair, epoch).permutation(len(data.train_y))[
            : steps_per_epoch * settings.batch_size
        ]
        images = data.train_x[order]
        if settings.augmentation:
            rng = rng_for(SEED, "augmentation", pair, epoch)
            moves = settings.augmentation.draw(rng, len(data.train_y), *data.shape[-2:])
            images = augment_slowly(settings.augmentation, images, type(moves)(*(part[: len(order)] for part in moves)))
        for x, y in zip(images.split(settings.batch_size), data.train_y[order].split(settings.batch_size), strict=True):
            optimizer.zero_grad()
            functional.cross_entropy(network(x), y, label_smoothing=smoothing).backward()
            for parameter, rates in zip(parameters, by_hand or [], strict=bool(by_hand)):
                if settings.optimizer == "sgd":
                    parameter.grad += rates * parameter.detach()
                else:
                    parameter.data *= 1 - schedule.get_last_lr()[0] * rates
            optimizer.step()
            schedule.step()
        rows.append(read(network, treated.layout))
    return torch.stack(rows)


def assert_trained_as_alone(treated, theta, settings, data, train=train, **tolerance):
    hyper = hyperparameters()
    trained = train(treated, theta, hyper, data, settings, seed=SEED)
    data = data.to("cpu", theta.dtype)
    columns = (hyper.learning_rate, hyper.weight_decay, hyper.label_smoothing, hyper.epochs)
    for k, (values, pair) in enumerate(zip(zip(*(c.tolist() for c in columns), strict=True), PAIRS, strict=True)):
        rows = train_alone(treated, theta[k].clone(), settings, data, *values, pair)
        assert (rows[-1] - treated.to_rows(theta)[k]).abs().max() > 1e-3
        torch.testing.assert_close(trained.rows[k], rows[-1], **tolerance)
        epochs, stack = values[-1], treated.stack(rows)
        measured = (*stack.evaluate(data.train_x, data.train_y), *stack.evaluate(data.test_x, data.test_y))
        for name, expected in zip(MEASURED, measured, strict=True):
            torch.testing.assert_close(trained.curves[name][k, :epochs].to(expected), expected, **tolerance)
            torch.testing.assert_close(trained.metrics[name][k].to(expected), expected[-1], **tolerance)
            assert trained.curves[name][k, epochs:].isnan().all()
    assert not trained.diverged.any()


@EVERY
@OPTIMIZER
def test_a_stack_trains_like_separate_networks_in_float64(setting, settings, monkeypatch):
    monkeypatch.setattr("zoo.training.updates.COLUMNS", 100)  # several portions, the last not full
    treated = treat(setting, dtype=torch.float64)
    data = some_data(train=EXAMPLES)
    assert_trained_as_alone(treated, some_thetas(treated), settings, data, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("network", "setting"),
    [(network, setting) for network in ("gnn_batch", "resnet_batch") for setting in SETTINGS]
    + [(network, setting) for network in ("vit", "flat") for setting in ("w_asymmetric", "sigma_asymmetric", "syre")]
    # The reference parametrizes each weight by itself, which unties tied ones.
    + [("unusual", setting) for setting in ("standard", "w_initialised", "sigma_asymmetric")],
)
def test_networks_of_every_kind_of_layer_train_like_separate_ones(network, setting):
    """Batch norm uses the statistics of minibatches, and updates its running ones, as in PyTorch."""
    treated, data = treat(setting, network, dtype=torch.float64), some_data(NETWORKS[network].shape, train=EXAMPLES)
    if network == "gnn_batch":
        nodes = NETWORKS[network].examples(len(data.train_y) + len(data.test_y))
        train_x, test_x = nodes.split([len(data.train_y), len(data.test_y)])
        data = replace(data, train_x=train_x, test_x=test_x)
    assert_trained_as_alone(treated, some_thetas(treated), ADAMW, data, rtol=1e-8, atol=1e-8)


@ENGINE
@EVERY
@OPTIMIZER
def test_networks_train_like_separate_ones_in_float32(setting, settings, train):
    # Of unit 1e-7, grown over 15 steps; AdamW divides by small gradients.
    treated = treat(setting)
    data = some_data(train=EXAMPLES)
    theta = some_thetas(treated, dtype=torch.float32)
    assert_trained_as_alone(treated, theta, settings, data, train, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", ["cnn", "resnet8"])
def test_convolutions_train_on_images_augmented_for_each_pair(network):
    settings = Optimizer(batch_size=BATCH, augmentation=Augmentation(flip=True, translate=2, cutout=3))
    treated, data = treat("w_asymmetric", network, dtype=torch.float64), some_data(NETWORKS[network].shape, 19, 6)
    assert_trained_as_alone(treated, some_thetas(treated), settings, data, rtol=1e-8, atol=1e-8)


# Independence, bit for bit. Widths are even here: with odd ones, MKL's products were seen to differ in the last bit
# with the size of the stack.


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", train_limit=200)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in found.keys() - {"seconds"}:
        a, b = found[name], expected[name]
        if name.startswith("curve_"):  # as long as the longest of the company
            a, b = a[:, : b.shape[1]], b[:, : a.shape[1]]
        np.testing.assert_array_equal(a, b, err_msg=name)


@EVERY
def test_results_do_not_depend_on_the_other_networks_of_a_stack(digits, setting):
    recipe = small_recipe()
    together = train_pairs(recipe, setting, range(6), digits)
    for some in ([5], [0], [4, 1], [2, 3, 0, 5]):
        assert_same(
            train_pairs(recipe, setting, some, digits), {name: values[some] for name, values in together.items()}
        )
    assert (together["status"] == "trained").all()
    assert len(np.unique(together["weights"], axis=0)) == 6


def test_results_do_not_depend_on_the_size_of_stacks(monkeypatch, digits):
    recipe, results = small_recipe(), []
    for size in (1, 4, 100):
        monkeypatch.setattr("zoo.training.engines.stack_size", lambda *_, size=size: size)
        results.append(train_pairs(recipe, "w_asymmetric", range(12), digits))
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


@ENGINE
def test_a_network_ends_at_its_own_epoch(train):
    treated, epochs = treat("standard"), [1, 4, 2]
    theta, hyper = some_thetas(treated, dtype=torch.float32), hyperparameters(epochs=epochs)
    trained = train_stack(treated, theta, ADAMW, hyper, train=train)
    for k, ended in enumerate(epochs):
        one = Draws(*(getattr(hyper, name)[[k]] for name in vars(hyper)))
        alone = train_stack(treated, theta[[k]], ADAMW, one, train=train)
        assert torch.equal(trained.rows[k], alone.rows[0])
        for name, curve in trained.curves.items():
            assert curve.shape == (3, 4)
            assert torch.equal(curve[k, :ended], alone.curves[name][0])
            assert curve[k, ended:].isnan().all()
            assert curve[k, ended - 1] == trained.metrics[name][k]


@ENGINE
@EVERY
@OPTIMIZER
def test_fixed_entries_stay_fixed_bit_for_bit(setting, settings, train):
    treated = treat(setting)
    start = some_thetas(treated, dtype=torch.float32)
    trained = train_stack(treated, start, settings, hyperparameters(decays=(0.5, 0.5, 0.5)), train=train)
    fixed = ~treated.mask
    assert fixed.any() == (SETTINGS[setting]["kind"] == "w_asymmetric")
    if fixed.any():
        assert torch.equal(trained.rows[:, fixed], treated.held["constants"][fixed].expand(3, -1))
    assert (trained.rows != treated.to_rows(start))[:, ~fixed].double().mean() > 0.99


def test_training_does_not_change_its_inputs():
    treated, data = treat("standard"), some_data(train=EXAMPLES)
    start, digest = some_thetas(treated, dtype=torch.float32), data.digest
    before = start.clone()
    train_stack(treated, start, ADAMW, data=data)
    assert torch.equal(start, before)
    assert data.digest == digest


def test_progress_counts_every_network_once():
    treated, ended = treat("standard"), []
    theta = some_thetas(treated, dtype=torch.float32)
    hyper = hyperparameters(epochs=(3, 1, 3))
    train(treated, theta, hyper, some_data(), ADAMW, seed=SEED, progress=ended.append)
    assert sum(ended) == 3


def test_networks_learn():
    treated = treat("standard")
    theta = torch.stack([treated.layout.draw_initial(np.random.default_rng(k)) for k in range(3)])
    hyper = hyperparameters(rates=(0.02,) * 3, decays=(0.0,) * 3, epochs=(20,) * 3)
    trained = train_stack(treated, theta, ADAMW, hyper)
    assert (trained.metrics["train_accuracy"] > 0.9).all()
    assert (trained.metrics["test_accuracy"] > 0.7).all()


# Divergence


@ENGINE
@OPTIMIZER
@pytest.mark.parametrize("rate", [1e30, 1e38])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_diverged_network_is_flagged_and_does_not_affect_the_others(settings, rate, epochs, train):
    treated = treat("standard", "mlp_plain")
    theta, data = some_thetas(treated, dtype=torch.float32), some_data((2, 4), EXAMPLES)
    ends = (epochs + 1, epochs, 2)
    with_it = train_stack(treated, theta, settings, hyperparameters((0.02, rate, 0.01), epochs=ends), data, train)
    others = Draws(*(value[[0, 2]] for value in vars(hyperparameters(epochs=ends)).values()))
    without = train_stack(treated, theta[[0, 2]], settings, others, data, train)
    assert with_it.diverged.tolist() == [False, True, False]
    assert with_it.rows.isfinite().all()
    assert torch.equal(with_it.rows[[0, 2]], without.rows)
    for name in MEASURED:
        assert torch.equal(with_it.metrics[name][[0, 2]], without.metrics[name])
        torch.testing.assert_close(with_it.curves[name][[0, 2]], without.curves[name], rtol=0, atol=0, equal_nan=True)
        assert with_it.curves[name][1].isnan().all()


@ENGINE
@OPTIMIZER
@pytest.mark.parametrize("examples", [BATCH, EXAMPLES], ids=["last step", "first of several"])
def test_a_network_whose_update_overflows_keeps_the_weights_before_it(settings, examples, train):
    treated, data = treat("standard", "mlp_plain"), some_data((2, 4), examples)
    theta = some_thetas(treated, dtype=torch.float32)
    flat = settings.model_copy(update={"schedule": "constant"})
    hyper = hyperparameters((0.02, 1e39, 0.01), epochs=(1, 1, 1))
    trained = train_stack(treated, theta, flat, hyper, data, train)
    assert trained.diverged.tolist() == [False, True, False]
    assert torch.equal(trained.rows[1], theta[1])
    assert not torch.equal(trained.rows[0], theta[0])


@ENGINE
def test_a_diverged_network_keeps_the_weights_of_its_last_finite_loss(train):
    treated, data = treat("standard", "mlp_plain"), some_data((2, 4), EXAMPLES)
    theta = some_thetas(treated, dtype=torch.float32)
    trained = train_stack(treated, theta, SGD, hyperparameters((0.02, 1e3, 0.01)), data, train)
    assert trained.diverged.tolist() == [False, True, False]
    assert trained.metrics["train_loss"].isfinite().all()
    assert not torch.equal(trained.rows[1], theta[1])


# Schedules


def factors(epochs=10, steps=5, **settings):
    return Optimizer(**settings).factors(epochs, steps)


def test_the_constant_rate_is_constant():
    assert (factors(schedule="constant") == 1).all()


@pytest.mark.parametrize(("settings", "peak"), [({"warmup": 0.2}, 10), ({"warmup_epochs": 3}, 15)])
def test_triangular_rate_peaks_at_the_end_of_the_warmup_and_ends_near_zero(settings, peak):
    found = factors(schedule="triangular", **settings)
    rising = np.arange(1, peak + 1) / peak
    np.testing.assert_allclose(found[:peak], rising, rtol=1e-12)
    assert found.max() == found[peak - 1] == found[peak] == 1
    np.testing.assert_allclose(found[peak:], np.arange(50 - peak, 0, -1) / (50 - peak), rtol=1e-12)
    assert found[-1] == pytest.approx(1 / (50 - peak))


def test_triangular_rate_of_a_training_shorter_than_its_warmup_only_rises_and_is_positive():
    found = factors(epochs=2, schedule="triangular", warmup_epochs=5)
    assert (found > 0).all()
    assert found.max() <= 0.4
    assert found[0] == pytest.approx(1 / 25)


def test_warmup_rises_linearly_then_stays():
    found = factors(schedule="warmup", warmup_epochs=2)
    np.testing.assert_allclose(found[:10], np.arange(1, 11) / 10, rtol=1e-12)
    assert (found[10:] == 1).all()


def test_exponential_warmup_rises_from_a_hundredth_by_the_same_factor_each_epoch():
    found = factors(epochs=30, schedule="exponential_warmup", warmup_epochs=20)
    np.testing.assert_allclose(found[:100].reshape(20, 5), 0.01 * 10 ** (np.arange(20) / 10)[:, None] * np.ones(5))
    assert pytest.approx(1.259, abs=1e-3) == 10**0.1  # Lim et al. 2024
    assert (found[100:] == 1).all()


@pytest.mark.parametrize("schedule", ["triangular", "warmup", "exponential_warmup"])
def test_without_warmup_the_rate_begins_at_its_highest(schedule):
    assert factors(schedule=schedule, warmup=0)[0] == 1


# Pairing


def test_treatments_of_a_pair_differ_only_in_the_treatment(monkeypatch, digits):
    augmentation = {"flip": True, "translate": 1, "cutout": 2}
    plain = small_recipe()
    training = plain.training.model_copy(update={"augmentation": Augmentation(**augmentation)})
    recipe, seen, results = plain.model_copy(update={"training": training}), {}, {}
    for name in recipe.treatments:
        batches = seen[name] = []

        def gradient(stack, x, *labels, batches=batches):
            batches.append(copy.deepcopy(x))
            return stack_gradient(stack, x, *labels)

        monkeypatch.setattr("zoo.training.ways.stack_gradient", gradient)
        results[name] = train_pairs(recipe, name, range(3), digits)
    standard = results["standard"]
    for name, result in results.items():
        for array in (n for n in standard if n in (*HYPERPARAMETERS, "pair", "split")):
            np.testing.assert_array_equal(result[array], standard[array])
        assert len(seen[name]) == len(seen["standard"])
        assert all(torch.equal(a, b) for a, b in zip(seen[name], seen["standard"], strict=True))
        assert name == "standard" or not np.array_equal(result["weights"], standard["weights"])
    assert len(set(standard["learning_rate"])) == 3


@EVERY
def test_treatments_of_a_pair_start_at_the_same_values(setting):
    recipe, pairs = small_recipe(), [0, 1, 5]
    treated, standard = (recipe.treat(name) for name in (setting, "standard"))
    start, shared = start_rows(recipe, setting, treated, pairs), start_rows(recipe, "standard", standard, pairs)
    assert len(start.unique(dim=0)) == 3
    if setting == "narrow":
        assert start.shape[1] < shared.shape[1]
    elif SETTINGS[setting]["kind"] == "w_initialised":
        changed = 2 * sum(weight.shape[0] for weight in treated.layout.weights)
        assert (start != shared).sum(1).tolist() == [changed] * 3
    else:
        assert torch.equal(start, shared)
    for pair, row in zip(pairs, start, strict=True):
        assert torch.equal(start_rows(recipe, setting, treated, [pair])[0], row)
