import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, r2_score
from torch import nn

from metanets.datasets import ZooGraphs, ZooRows
from metanets.links import Link
from metanets.metanet import Metanet
from metanets.selection import fit_task_reader, select
from metanets.settings import Settings
from metanets.training import train
from tests.conftest import PLANTED
from tests.metanets.scenarios import CHEAP, CLASSES, FEW, STANDARD, ask, held_out
from tests.scenarios import NETWORKS, treat
from zoo.errors import TaskError


@pytest.mark.parametrize("model", CHEAP)
@pytest.mark.parametrize("treatment", PLANTED)
def test_predictions_for_modules_rows_and_data_sets_are_those_for_their_networks(planted_zoo, model, treatment):
    (metanet,) = train(ask(treatment), planted_zoo, model, settings=FEW)
    networks = held_out(planted_zoo, treatment)[:5]
    predicted = metanet.predict(networks)
    others = [networks.weights[:], networks["weights"], [networks.module(i) for i in range(5)]]
    others.append(ZooRows(networks, reader=metanet.reader))
    if metanet.reader.name == "tensors" and model == "gmn":
        others.append(ZooGraphs(networks, reader=metanet.reader))
    for other in others:
        torch.testing.assert_close(metanet.predict(other), predicted)


def test_predictions_do_not_depend_on_how_many_there_are(trained, planted_zoo):
    rows = planted_zoo["standard"].weights[:].repeat(2, 1)  # more than a batch
    assert len(rows) > 128
    predicted = trained.predict(rows)
    torch.testing.assert_close(predicted, torch.cat([trained.predict(some) for some in rows.split(50)]))
    assert not predicted.requires_grad


def test_predictions_of_a_logarithm_are_in_the_units_of_the_target(planted_zoo):
    (metanet,) = train(ask(target="learning_rate"), planted_zoo, "linear", settings=Settings(epochs=60))
    networks = held_out(planted_zoo)
    predicted, true = metanet.predict(networks).numpy(), networks["learning_rate"]
    assert r2_score(np.log(true), np.log(predicted)) > 0.7
    assert metanet.evaluate(networks)["r2"] == pytest.approx(r2_score(np.log(true), np.log(predicted)), abs=1e-4)


def test_metrics_are_those_of_scikit_learn(planted_zoo, plant_zoo, trained):
    networks = held_out(planted_zoo)
    assert trained.evaluate(networks)["r2"] == pytest.approx(
        r2_score(networks["test_accuracy"], trained.predict(networks)), abs=1e-5
    )
    (metanet,) = train(CLASSES, planted_zoo, "statnn", settings=FEW)
    found = select(CLASSES, planted_zoo, "test")
    predicted = metanet.predict(found).double().numpy()
    expected = {
        "accuracy": accuracy_score(found.values, predicted.argmax(1)),
        "log_loss": log_loss(found.values, predicted / predicted.sum(1, keepdims=True)),
    }
    assert metanet.evaluate(found) == pytest.approx(expected, abs=1e-6)
    parts = [metanet.evaluate(held_out(planted_zoo, treatment))["accuracy"] for treatment in PLANTED]
    assert np.mean(parts) == pytest.approx(expected["accuracy"])
    with pytest.raises(TaskError, match="syre is none of the classes standard, w_asymmetric"):
        metanet.evaluate(plant_zoo(treatments=["syre"], pairs=8)["syre"])


def test_networks_without_a_target_are_predicted_and_left_out_of_metrics(plant_zoo, trained, planted_zoo):
    def change(arrays):
        arrays["test_accuracy"][np.flatnonzero(arrays["split"] == "test")[:3]] = np.nan

    networks = plant_zoo(change)["standard"].split("test")
    assert torch.equal(trained.predict(networks), trained.predict(held_out(planted_zoo)))
    with pytest.warns(UserWarning, match="3 of"):
        evaluated = trained.evaluate(networks)
    assert evaluated == trained.evaluate(held_out(planted_zoo)[3:])
    rows = trained.reader(networks.weights[:])
    with pytest.raises(TaskError, match=r"^targets: some are not finite; leave out these networks"):
        trained.evaluate([*zip(rows, networks["test_accuracy"], strict=True)])


def test_rows_and_modules_of_another_architecture_are_refused(trained, planted_zoo):
    rows = planted_zoo["standard"].weights[:3]
    with pytest.raises(TaskError, match=r"^rows: \(3, 363\), but Metanet.* reads \(networks, 364\)$"):
        trained.predict(rows[:, 1:])
    others = [NETWORKS[name].build() for name in NETWORKS if name != "mlp"] + [torch.nn.Linear(8, 4)]
    for module in others:
        with pytest.raises(TaskError, match=r"^module: its parameters are not those that Metanet"):
            trained.predict([planted_zoo["standard"].module(0), module])
    for none in (rows[:0], [], planted_zoo["standard"][:0]):
        with pytest.raises(TaskError, match=r"^networks: there are none"):
            trained.predict(none)


def test_weights_that_are_not_finite_are_refused(trained, planted_zoo, plant_zoo):
    rows = planted_zoo["standard"].weights[:3]
    rows[1, 5] = torch.inf
    broken = plant_zoo(lambda arrays: arrays["weights"][:1].fill(np.nan))["standard"]
    for networks in (rows, rows.numpy(), broken, select(ask(), broken.zoo, "train")):
        with pytest.raises(TaskError, match=r"^rows: weights are not finite; leave out networks that diverged"):
            trained.predict(networks)


def test_predictions_that_are_not_finite_are_refused(trained, planted_zoo):
    class Broken(nn.Module):
        def forward(self, x):
            return x[:, :1] * torch.where(x[:, 1:2] > x[:, 1:2].median(), 1, torch.nan)

    for link in (trained.link, Link("softmax", classes=1)):
        with pytest.raises(TaskError, match="predicts values that are not finite; train it with a lower learning rate"):
            Metanet(trained.reader, Broken(), link).predict(planted_zoo["standard"])


def test_a_zoo_of_another_architecture_is_refused(trained, planted_zoo, monkeypatch):
    for treatment in PLANTED:
        trained.check(planted_zoo[treatment])
    monkeypatch.setattr(planted_zoo, "_treated", {"standard": treat("standard", "mlp_plain")})
    for action in (trained.check, trained.predict, trained.evaluate):
        with pytest.raises(TaskError, match=r"train on networks like these$") as error:
            action(planted_zoo["standard"])
        assert "\n" not in str(error.value)


def test_a_reader_a_module_and_a_link_make_a_metanetwork(planted_zoo):
    reader = fit_task_reader(STANDARD, planted_zoo, "statistics")
    module = nn.Linear(reader.features, 1)
    metanet, rows = Metanet(reader, module, Link(mean=2.0, std=3.0)), planted_zoo["standard"].weights[:]
    with torch.no_grad():
        torch.testing.assert_close(metanet.predict(rows), 2 + 3 * module(reader(rows))[:, 0])
