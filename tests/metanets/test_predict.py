import numpy as np
import pytest

from metanets.evaluation import predict
from metanets.selection import select
from metanets.settings import Settings
from metanets.training import train
from tests.metanets.scenarios import CLASSES, STANDARD, ask
from zoo.errors import TaskError
from zoo.store.columns import SPLITS

FEW = Settings(epochs=5, batch_size=16)


@pytest.mark.parametrize("task", [STANDARD, ask(target="learning_rate"), ask("w_asymmetric"), CLASSES])
@pytest.mark.parametrize("split", SPLITS)
def test_predictions_of_a_split_come_with_pairs_treatments_and_targets(planted_zoo, task, split):
    (metanet,) = train(task, planted_zoo, "statnn", settings=FEW)
    found = predict(task, planted_zoo, metanet, split)
    own = select(task, planted_zoo, split)
    assert found["pair"].tolist() == own.pairs.tolist()
    assert found["treatment"].tolist() == [n.treatment for n in own.networks for _ in range(len(n))]
    assert np.array_equal(found["true"], own.values)
    assert np.allclose(found["predicted"], metanet.predict(own))


def test_networks_without_a_target_are_predicted_all_the_same(gappy_zoo, planted_zoo):
    task = ask(target="test_loss")
    (metanet,) = train(task, planted_zoo, "linear", settings=FEW)
    found, whole = (predict(task, zoo, metanet) for zoo in (gappy_zoo, planted_zoo))
    assert np.isnan(found["true"]).tolist() == [False, True, True, True] + [False] * (len(found["true"]) - 4)
    assert np.array_equal(found["predicted"], whole["predicted"])


def test_a_zoo_without_the_target_is_predicted_all_the_same(planted_zoo, plant_zoo):
    task = ask(target="test_loss")
    (metanet,) = train(task, planted_zoo, "linear", settings=FEW)
    found = predict(task, plant_zoo(lambda arrays: arrays.pop("test_loss")), metanet)
    assert np.isnan(found["true"]).all()
    assert np.array_equal(found["predicted"], predict(task, planted_zoo, metanet)["predicted"])


def test_what_was_trained_for_another_target_does_not_predict(planted_zoo):
    (metanet,) = train(STANDARD, planted_zoo, "linear", settings=FEW)
    with pytest.raises(TaskError, match=r"predicts test_accuracy, but the task .* asks for test_loss$"):
        predict(ask(target="test_loss"), planted_zoo, metanet)
