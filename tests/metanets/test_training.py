import copy
import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from metanets.datasets import ZooRows
from metanets.examples import InMemory
from metanets.identity import identify
from metanets.inputs import fit_reader
from metanets.models import MODELS
from metanets.selection import select
from metanets.settings import Settings
from metanets.tasks import ACCESS
from metanets.training import build, fit, train
from tests.metanets.scenarios import CLASSES, STANDARD, Mean, ask
from zoo.errors import TaskError, ZooError
from zoo.store.columns import SPLITS

FEW = Settings(epochs=2, batch_size=32)


def assert_equal(module, other):
    torch.testing.assert_close(module.state_dict(), other.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("task", [STANDARD, CLASSES], ids=["number", "classes"])
@pytest.mark.parametrize("model", ["linear", "mlp", "gmn"])  # two whose seeds train as one stack, one whose do not
def test_metanetworks_of_several_seeds_are_those_trained_alone(planted_zoo, model, task):
    calls, rows = [], planted_zoo["standard"].weights[:]
    settings = Settings(epochs=2, batch_size=32, learning_rate=1e-3)
    together = train(task, planted_zoo, model, seeds=3, settings=settings, progress=calls.append)
    learnt, validation, _ = (ZooRows.of(task, planted_zoo, split, reads=MODELS[model].reads) for split in SPLITS)
    assert sum(calls) == 3
    for seed, metanet in enumerate(together):
        module = build(partial(MODELS[model], learnt.reader, outputs=metanet.link.outputs), seed)
        alone = fit(module, learnt, validation, settings, seed=seed)
        assert metanet.origin.seed == seed
        torch.testing.assert_close(metanet.predict(rows), alone.predict(rows), rtol=0, atol=1e-5)
    assert not np.allclose(together[0].predict(rows), together[1].predict(rows), atol=1e-4)


def test_a_metanetwork_says_where_it_comes_from(planted_zoo):
    (metanet,) = train(STANDARD, planted_zoo, "linear", settings=FEW)
    assert (metanet.origin.model, metanet.origin.task, metanet.origin.settings) == ("linear", STANDARD, FEW)
    assert metanet.origin.data == identify(STANDARD, planted_zoo)
    assert metanet.origin.epochs[0] == 2
    assert metanet.origin.seconds > 0


def test_a_task_is_taken_by_its_path(planted_zoo, tmp_path):
    path = tmp_path / "task.toml"
    path.write_text('recipe = "small"\nlearn_from = "standard"\n')
    (by_path,), (by_task,) = (train(task, planted_zoo, "linear", settings=FEW) for task in (path, STANDARD))
    assert by_path.origin.task == STANDARD
    assert_equal(by_path.module, by_task.module)


def test_a_class_of_a_users_own_is_trained_with_its_settings_and_options(planted_zoo):
    options = Settings(epochs=2, options={"width": 3})
    for settings, width, epochs in ((None, 4, 3), (options, 3, 2)):
        for task in (STANDARD, CLASSES):
            metanets = train(task, planted_zoo, Mean, seeds=2, settings=settings)
            for metanet in metanets:
                assert isinstance(metanet.module, Mean)
                assert metanet.module.layers[0].weight.shape == (width, metanet.reader.features)
                assert metanet.origin.epochs[0] == epochs
                assert metanet.origin.model == f"{Mean.__module__}:Mean"
            assert not torch.equal(*(metanet.module.layers[0].weight for metanet in metanets))


@pytest.mark.parametrize("plain", [False, True])
def test_a_module_is_trained_as_a_copy_by_each_seed(planted_zoo, plain):
    reads = "rows" if plain else "statistics"
    reader = fit_reader(reads, planted_zoo["standard"].split("train"))
    module = nn.Linear(reader.features, 1) if plain else Mean(reader)
    before = copy.deepcopy(module)
    first, second = train(STANDARD, planted_zoo, module, seeds=2, settings=FEW)
    assert_equal(module, before)
    assert first.module is not module
    assert type(first.module) is type(module)
    assert not torch.equal(first.predict(planted_zoo["standard"]), second.predict(planted_zoo["standard"]))
    untrained = train(STANDARD, planted_zoo, module, settings=FEW.model_copy(update={"epochs": 0}))[0]
    assert_equal(untrained.module, before)
    assert untrained.reader.name == reads


@pytest.mark.parametrize("allowed", ACCESS)
@pytest.mark.parametrize("needed", ACCESS)
def test_a_metanetwork_that_uses_more_than_the_task_allows_is_refused(planted_zoo, allowed, needed):
    curious = type("Curious", (Mean,), {"access": needed})
    task = ask(access=allowed)
    if ACCESS.index(needed) <= ACCESS.index(allowed):
        assert train(task, planted_zoo, curious, settings=FEW)
    else:
        with pytest.raises(
            TaskError, match=re.escape(f"Curious: uses {needed}, but the task {task.name} allows {allowed}")
        ):
            train(task, planted_zoo, curious, settings=FEW)


@pytest.mark.parametrize("model", MODELS)
def test_wrong_options_are_named(planted_zoo, model):
    with pytest.raises(TaskError, match=f"^{model}: options: .*beauty"):
        train(STANDARD, planted_zoo, model, settings=Settings(options={"beauty": 1}))


@pytest.mark.parametrize(("wrong", "meant"), [("statn", " (did you mean 'statnn'?)"), ("crystal_ball", "")])
def test_an_unknown_model_is_named_with_the_nearest_known(planted_zoo, wrong, meant):
    with pytest.raises(TaskError) as error:
        train(STANDARD, planted_zoo, wrong)
    assert str(error.value) == f"model: no metanetwork {wrong!r}{meant}; there are {', '.join(MODELS)}"


def test_unknown_treatments_and_other_data_are_refused(planted_zoo):
    with pytest.raises(ZooError, match="has no treatment 'syre'; it has standard, w_asymmetric"):
        train(ask("syre"), planted_zoo, "linear")
    pinned = ask(data={"recipe": "7", "pairs": 120})
    with pytest.raises(TaskError, match=r"recipe of the zoo is .*, but the task is pinned to 7$"):
        train(pinned, planted_zoo, "linear")


def test_networks_without_a_target_train_nothing(plant_zoo):
    def change(arrays):
        arrays["test_loss"][np.flatnonzero(arrays["split"] != "test")[::3]] = np.nan

    zoo, examples = plant_zoo(change), []
    with pytest.warns(UserWarning, match="are left out"):
        (metanet,) = train(ask(target="test_loss"), zoo, "linear", settings=FEW)
    for split in ("train", "validation"):
        networks = zoo["standard"].split(split)
        known = networks[np.isfinite(networks["test_loss"])]
        assert 0 < len(known) < len(networks)
        examples.append(InMemory(metanet.reader(known.weights[:]), torch.from_numpy(known["test_loss"])))
    alone = fit(build(lambda: MODELS["linear"](metanet.reader), 0), *examples, FEW)
    assert_equal(alone.module, metanet.module)


def test_entries_that_do_not_train_are_read_when_asked_for(planted_zoo):
    layout, mask = planted_zoo.shared("w_asymmetric").layout, planted_zoo.shared("w_asymmetric").mask
    for include_fixed, features in ((False, int(mask.sum())), (True, layout.size)):
        settings = FEW.model_copy(update={"include_fixed": include_fixed})
        assert train(ask("w_asymmetric"), planted_zoo, "linear", settings=settings)[0].reader.features == features


def test_augmented_training_differs_only_for_what_sees_the_order_of_units(planted_zoo):
    networks = planted_zoo["standard"].split("test")
    for model, alike in (("statnn", True), ("mlp", False)):
        plain, augmented = (
            train(STANDARD, planted_zoo, model, settings=Settings(epochs=2, augment=augment))[0].predict(networks)
            for augment in (None, "permute")
        )
        assert ((plain - augmented).abs().max() < 1e-4) == alike


def test_augmentation_needs_a_treatment_that_holds_nothing_constant(planted_zoo):
    settings = Settings(epochs=1, augment="permute")
    for task in (ask("w_asymmetric"), CLASSES):
        with pytest.raises(TaskError, match="augment: w_asymmetric networks hold entries constant at fixed places"):
            train(task, planted_zoo, "mlp", settings=settings)


def test_other_rows_are_learnt_from(plant_zoo):
    def change(arrays):
        arrays["initial_weights"] = arrays["weights"][::-1].copy()

    zoo = plant_zoo(change)
    initial, settings = ask(rows="initial", target="epochs"), Settings(epochs=20)
    (metanet,) = train(initial, zoo, "statnn", settings=settings)
    networks = zoo["standard"].split("test")
    assert torch.equal(metanet.predict(networks), metanet.predict(networks.initial_weights[:]))
    assert torch.equal(metanet.predict(networks), metanet.predict(select(initial, zoo, "test")))
    assert not torch.equal(metanet.predict(networks), metanet.predict(networks.weights[:]))
    learnt, validation, _ = (ZooRows.of(initial, zoo, split) for split in SPLITS)
    own = fit(nn.Linear(learnt.num_features, 1), learnt, validation, settings)
    assert torch.equal(own.predict(networks), own.predict(networks.initial_weights[:]))
