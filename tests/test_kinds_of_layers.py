"""Zoos of networks with batch norm, attention and tied weights go the whole way, from a recipe to predictions."""

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.phenomena import PHENOMENA
from metanets import Settings, Task, train
from tests.scenarios import small_recipe
from zoo import generate, load_data, verify
from zoo.errors import TaskError, ZooError
from zoo.recipes.recipe import Recipe
from zoo.sharing.export import export_zoo
from zoo.sharing.importers import import_folder
from zoo.sharing.importers.hf import import_zoo

ARCHITECTURES = {
    "normed": {"name": "normed"},
    "vit": {"name": "vit", "width": 8, "heads": 2, "blocks": 1},
    "tied": {"name": "unusual", "hidden": 8, "inputs": 64},
}
TREATMENTS = ("standard", "w_asymmetric", "sigma_asymmetric")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def zoo(request, tmp_path_factory):
    recipe = small_recipe(
        18,
        architecture=ARCHITECTURES[request.param],
        training={"batch_size": 50, "learning_rate": {"log_uniform": [1e-3, 1e-2]}, "epochs": 2},
    )
    return generate(recipe.only(TREATMENTS), tmp_path_factory.mktemp("zoos") / request.param)


@pytest.fixture(scope="module")
def data():
    return load_data("digits", train_limit=200)


def test_networks_trained_again_are_the_same_and_measure_as_recorded(zoo):
    assert verify(zoo, retrain=2).retrained == 2


def test_batch_norm_normalises_by_what_it_was_trained_on(zoo, data):
    if not (layout := zoo["standard"].layout).statistics:
        return
    network = zoo["standard"].module(0)
    given = network.first(data.train_x.flatten(1))
    share = 1 - 0.9**8  # after eight minibatches
    assert (network.norm.running_mean - share * given.mean(0)).abs().max() < 0.3 * given.std(0).min()
    assert (network.norm.running_var - (1 - share) - share * given.var(0)).abs().max() < 0.2
    assert layout.unflatten(zoo["standard"].initial_weights[0])["norm.running_mean"].eq(0).all()
    assert not zoo["standard"].trainable.all()
    assert zoo["standard"].mask.all()


@pytest.mark.parametrize("name", sorted(PHENOMENA.keys() - {"bayesian", "optimisation"}))
def test_phenomena_are_measured(zoo, data, name):
    for finding in PHENOMENA[name].measure(zoo["standard"], data):
        assert "nan" not in finding.headline()


def test_posteriors_of_networks_with_batch_norm_are_refused(zoo, data):
    if zoo["standard"].layout.statistics:
        with pytest.raises(TaskError, match="the statistics of batch norm belong to one set of weights"):
            PHENOMENA["bayesian"].measure(zoo["standard"], data)


@pytest.mark.parametrize("model", ["gmn", "nfn_np", "set_transformer", "statnn"])
def test_metanetworks_read_them_in_any_order_of_units(zoo, model):
    task = Task(recipe="small", learn_from="standard")
    metanet = train(task, zoo, model, settings=Settings(epochs=1, batch_size=4))[0]
    stack = zoo["standard"].stack()
    permuted = stack.permute(stack.layout.random_permutations(np.random.default_rng(0), len(stack)))
    predicted = metanet.predict(stack.rows)
    torch.testing.assert_close(metanet.predict(permuted.rows), predicted, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(metanet.predict([stack.network(3)]), predicted[3:4])


def test_rows_survive_export_and_import(zoo, tmp_path):
    export = export_zoo(zoo, tmp_path / "export")
    assert torch.equal(import_zoo(export, tmp_path / "zoo")["standard"].weights[:], zoo["standard"].weights[:])


def save_networks(zoo, folder, change=lambda state: state):
    folder.mkdir()
    stack = zoo["standard"].stack([0, 1])
    for k in range(2):
        torch.save(change(stack.network(k).state_dict()), folder / f"{k}.pt")
    accuracies = zoo["standard"]["test_accuracy"][:2]
    pd.DataFrame({"file": ["0.pt", "1.pt"], "test_accuracy": accuracies}).to_csv(folder / "labels.csv", index=False)
    arguments = ", ".join(f"{k} = {v!r}" for k, v in Recipe.of(zoo).architecture.model_dump().items())
    (folder / "recipe.toml").write_text(
        f"name = 'mine'\ndata = {{ name = 'digits', train_limit = 200 }}\narchitecture = {{ {arguments} }}\n"
        "training = { learning_rate = 0.01, epochs = 2 }\n"
    )
    return folder


def test_state_dicts_are_imported_with_what_they_hold_twice(zoo, tmp_path):
    mine = import_folder(save_networks(zoo, tmp_path / "mine"), tmp_path / "zoo")
    assert torch.equal(mine["standard"].weights[:], zoo["standard"].weights[:2])


def test_tied_weights_that_differ_are_refused(zoo, tmp_path):
    if zoo.folder.name == "tied":
        mine = save_networks(zoo, tmp_path / "mine", lambda s: s | {"right.weight": s["right.weight"] + 1})
        with pytest.raises(ZooError, match=r"0\.pt: right\.weight and left\.weight differ, but are one tensor"):
            import_folder(mine, tmp_path / "zoo")
