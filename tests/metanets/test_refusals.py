"""What does not fit together is refused in one line, and never scored silently."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import random_split

from metanets.datasets import ZooGraphs, ZooRows
from metanets.evaluation import evaluate, predict
from metanets.metanet import Metanet
from metanets.models import Metanetwork
from metanets.selection import select
from metanets.settings import Settings
from metanets.training import build, fit, train
from metanets.tuning import tune
from tests.conftest import PLANTED
from tests.metanets.scenarios import CLASSES, STANDARD, Mean, ask
from zoo.errors import TaskError

FEW = Settings(epochs=2)


def split(zoo, name, treatment="standard", kind=ZooRows, **options):
    return kind(zoo[treatment].split(name), **options)


def linear(data):
    return build(lambda: nn.Linear(data.num_features, 1), 0)


@pytest.fixture(scope="module")
def rows(planted_zoo):
    """The train split as rows."""
    return split(planted_zoo, "train")


@pytest.fixture(scope="module")
def metanet(planted_zoo):
    """One that predicts test accuracies of standard networks."""
    return train(STANDARD, planted_zoo, "linear", settings=FEW)[0]


@pytest.mark.parametrize(
    "options", [{"target": "test_loss"}, {"raw": True}, {"treatment": "w_asymmetric"}], ids=["target", "raw", "reader"]
)
def test_a_validation_set_of_other_targets_or_inputs_is_refused(planted_zoo, rows, options):
    other = split(planted_zoo, "validation", **options)
    with pytest.raises(TaskError, match=r"^validation: "):
        fit(linear(rows), rows, other, FEW)


@pytest.mark.parametrize("options", [{"target": "test_loss"}, {"raw": True}, {"treatment": "w_asymmetric"}])
def test_a_metanetwork_is_not_evaluated_on_data_sets_of_other_targets_or_inputs(planted_zoo, metanet, options):
    with pytest.raises(TaskError, match=r"^data set: "):
        metanet.evaluate(split(planted_zoo, "test", **options))
    assert metanet.evaluate(split(planted_zoo, "test", reader=metanet.reader)).keys() >= {"r2"}


def test_a_random_split_keeps_target_and_units(planted_zoo):
    rates = split(planted_zoo, "train", target="learning_rate")
    parts = random_split(rates, [40, len(rates) - 40], torch.Generator().manual_seed(0))
    metanet = fit(linear(rates), *parts, FEW)
    assert metanet.target == "learning_rate"
    assert (metanet.predict(parts[1]) > 0).all()
    assert torch.allclose(metanet.predict(rates), metanet.predict(planted_zoo["standard"].split("train")))


def test_rows_and_modules_are_predicted_but_not_evaluated(planted_zoo, metanet):
    for networks in (planted_zoo["standard"].weights[:3], [planted_zoo["standard"].module(0)]):
        assert len(metanet.predict(networks)) == len(networks)
        with pytest.raises(TaskError, match=r"^evaluate: rows and modules have no targets"):
            metanet.evaluate(networks)


def test_a_metanetwork_of_other_rows_is_refused(deep_zoo):
    early = train(ask(rows="initial"), deep_zoo, "linear", settings=FEW)
    for ask_it in (lambda: evaluate(STANDARD, deep_zoo, early), lambda: predict(STANDARD, deep_zoo, early[0])):
        with pytest.raises(TaskError, match=r"reads initial_weights, but the task .* has weights$"):
            ask_it()


@pytest.mark.parametrize(
    "fields", [{"learn_from": "w_asymmetric"}, {"max_train": 10}, {"train_where": ["epochs >= 1"]}], ids=str
)
def test_a_result_says_what_its_metanetworks_learnt_from(planted_zoo, metanet, fields):
    with pytest.raises(TaskError, match=f"learnt from other networks .*: {next(iter(fields))} differs$"):
        evaluate(ask(**{"learn_from": "standard", "test_on": "standard"} | fields), planted_zoo, metanet)
    assert evaluate(STANDARD, planted_zoo, metanet).treatment == "standard"


def test_metanetworks_of_two_kinds_are_not_one_result(planted_zoo, metanet):
    others = train(STANDARD, planted_zoo, "mlp", settings=FEW)
    with pytest.raises(TaskError, match=r"^model: these are metanetworks of two kinds, linear and mlp"):
        evaluate(STANDARD, planted_zoo, [metanet, *others])


@pytest.mark.parametrize("count", [0, -1])
def test_no_trainings_and_no_trials_are_refused(planted_zoo, count):
    with pytest.raises(TaskError, match=r"^seeds: "):
        train(STANDARD, planted_zoo, "linear", seeds=count)
    with pytest.raises(TaskError, match=r"^trials: "):
        tune(STANDARD, planted_zoo, "linear", trials=count)
    with pytest.raises(TaskError, match=r"^model: there are no metanetworks"):
        evaluate(STANDARD, planted_zoo, [])


def test_no_settings_are_tried_twice(planted_zoo):
    found = tune(STANDARD, planted_zoo, Boost, trials=100)
    tried = [trial.settings for trial in found]
    assert len(tried) == 3  # the present settings are among the choices
    assert all(tried.count(settings) == 1 for settings in tried)


class Boost(Mean):
    """With the present option among its choices, and nothing else to search."""

    takes_steps = False
    settings = Settings(epochs=1, options={"width": 2})
    choices = {"width": (1, 2, 3)}


def test_a_prediction_behind_a_sigmoid_that_is_infinite_is_refused(planted_zoo, metanet):
    broken = Metanet(metanet.reader, nn.Linear(metanet.reader.features, 1), metanet.link, metanet.origin)
    nn.init.constant_(broken.module.bias, torch.inf)
    with pytest.raises(TaskError, match="predicts values that are not finite"):
        broken.predict(planted_zoo["standard"])


def test_two_files_loaded_into_one_module_are_two_metanetworks(planted_zoo, tmp_path):
    module, networks = nn.Linear(len(planted_zoo["standard"].mask), 1), planted_zoo["standard"][:4]
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(2)]
    for seed, path in enumerate(paths):
        own = build(lambda: nn.Linear(module.in_features, 1), seed)
        train(STANDARD, planted_zoo, own, settings=FEW)[0].save(path)
    first = Metanet.load(paths[0], model=module)
    before = first.predict(networks)
    second = Metanet.load(paths[1], model=module)
    assert torch.equal(first.predict(networks), before)
    assert not torch.equal(second.predict(networks), before)


def test_a_class_that_is_no_metanetwork_is_loaded_as_a_module(planted_zoo, tmp_path):
    class Plain(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(len(planted_zoo["standard"].mask), 1))

    path = tmp_path / "plain.safetensors"
    train(STANDARD, planted_zoo, Plain(), settings=FEW)[0].save(path)
    with pytest.raises(TaskError, match=r"^model: Plain is no subclass of Metanetwork; give a module, as Plain\(\)$"):
        Metanet.load(path, model=Plain)
    assert Metanet.load(path, model=Plain()).predict(planted_zoo["standard"][:2]).shape == (2,)


def test_conditions_keep_treatments_paired(planted_zoo):
    middle = np.median(planted_zoo["standard"]["test_accuracy"])
    task = ask(PLANTED, target="treatment", train_where=[f"test_accuracy > {middle}"], max_train=4)
    for name in ("train", "validation"):
        pairs = [networks.pairs.tolist() for networks in select(task, planted_zoo, name).networks]
        assert pairs[0] == pairs[1]
    assert [len(networks) for networks in select(task, planted_zoo, "train").networks] == [4, 4]


@pytest.mark.filterwarnings("ignore:.*left out")
def test_max_train_counts_networks_that_have_a_target(gappy_zoo):
    assert len(select(ask(target="test_loss", max_train=8), gappy_zoo, "train")) == 8


def test_a_network_without_a_value_meets_no_condition(gappy_zoo):
    some = gappy_zoo["standard"].split("test")
    task = ask(test_where=["test_loss != 17"])
    assert len(select(task, gappy_zoo, "test")) == (~np.isnan(some["test_loss"])).sum()


def test_quotes_around_a_word_in_a_condition_do_not_matter(planted_zoo):
    tasks = [ask(test_where=[f"status == {word}"]) for word in ("trained", '"trained"', "'trained'")]
    assert len({task.digest for task in tasks}) == 1
    assert len(select(tasks[0], planted_zoo, "test")) == len(planted_zoo["standard"].split("test"))
    assert ask(test_where="epochs > 1") == ask(test_where=["epochs > 1"])


def test_predictions_are_made_of_the_tasks_zoo_alone(planted_zoo, other_zoo, metanet):
    with pytest.raises(TaskError, match="holds the zoo other, but the task"):
        predict(STANDARD, other_zoo, metanet)
    with pytest.raises(TaskError, match=r"holds the zoo small, but the task .* is about other"):
        predict(ask(test_recipe="other"), planted_zoo, metanet)


def test_permuting_networks_without_symmetry_is_refused_before_they_are_read(planted_zoo):
    with pytest.raises(TaskError, match=r"^permuted: .* what w_asymmetric networks compute$"):
        select(ask("w_asymmetric", permuted=True), planted_zoo, "test")


def test_unknown_readers_and_access_are_named(planted_zoo):
    class Odd(Metanetwork):
        reads = "statistic"

    class Curious(Metanetwork):
        access = "everything"

    with pytest.raises(TaskError, match=r"no reader 'statistic' \(did you mean 'statistics'\?\)"):
        train(STANDARD, planted_zoo, Odd)
    with pytest.raises(TaskError, match=r"no reader 'statistic'"):
        ZooRows(planted_zoo["standard"], reads="statistic")
    with pytest.raises(TaskError, match=r"access: there is no 'everything'"):
        train(CLASSES, planted_zoo, Curious)


def test_graphs_of_another_split_share_the_reader_that_is_given(planted_zoo):
    train_set = split(planted_zoo, "train", kind=ZooGraphs)
    assert split(planted_zoo, "validation", kind=ZooGraphs).reader.is_like(train_set.reader)
    assert not train_set.reader.is_like(split(planted_zoo, "train", "w_asymmetric", kind=ZooGraphs).reader)
