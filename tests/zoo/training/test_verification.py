import h5py
import numpy as np
import pytest
import safetensors.torch
import torch

from tests.scenarios import small_recipe
from zoo import generate, load_data, open_zoo, verify
from zoo.errors import ZooError
from zoo.training.engines import Engine
from zoo.training.modes import give_same_bits, mode_here
from zoo.training.verification import Verification

OTHER_MODE = "the same initial weights and, where it was measured, a similar first epoch (other mode)"


@pytest.fixture
def alter(tiny_copy, reseal):
    """A function that changes an array in all shards of a treatment, renews the checksums, and opens the zoo."""

    def make(treatment, name, change):
        for file in tiny_copy.manifest.of(treatment):
            with h5py.File(tiny_copy.folder / file.path, "r+") as shard:
                values = shard[name][...]
                change(values)
                shard[name][...] = values
            reseal(tiny_copy.folder, file.path)
        return open_zoo(tiny_copy.folder)

    return make


def alter_first(alter, treatment, change, name="weights"):
    """Change only the shard with four networks."""
    return alter(treatment, name, lambda values: change(values) if len(values) == 4 else None)


@pytest.fixture
def elsewhere(tiny_copy, edit_manifest):
    """A function that opens the zoo as if another version of the engine had made it."""

    def change(values):
        for entry in values["files"]:
            if entry["mode"] is not None:
                entry["mode"]["engine"] = "compiled 0"

    def make():
        edit_manifest(tiny_copy.folder, change)
        return open_zoo(tiny_copy.folder)

    return make


@pytest.fixture
def small_zoo_of_torch(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.training.engines.can_compile", lambda: False)
    zoo = generate(small_recipe(2).only(["standard"]), tmp_path / "zoo")
    monkeypatch.undo()
    return zoo


def test_fresh_zoo_verifies_and_trains_again_bit_for_bit(tiny_zoo):
    lines = []
    found = verify(tiny_zoo, retrain=5, log=lines.append)
    assert found == Verification(files=13, measured=30, retrained=5, compared=0)
    assert lines[:2] == ["13 checksums match", "30 networks measure as recorded"]
    assert [line.partition(",")[0] for line in lines[2:]] == list(tiny_zoo.treatments)
    assert all(line.endswith("trained again, the same weights bit for bit") for line in lines[2:])


def test_sample_is_the_number_of_networks_measured_for_each_treatment(tiny_zoo):
    assert verify(tiny_zoo, sample=2).measured == 2 * len(tiny_zoo.treatments)


def test_the_mode_of_a_zoo_is_that_of_this_machine(tiny_zoo):
    modes = {file.mode for file in tiny_zoo.manifest.files if file.pairs is not None}
    assert len(modes) == 1
    (mode,) = modes
    assert mode == mode_here(Engine("compiled"), mode.data)


def test_compiled_networks_are_the_same_on_every_processor_of_an_architecture(tiny_zoo):
    here = mode_here(Engine("compiled"), "data")
    elsewhere = here.model_copy(update={"processor": here.processor + " of another kind", "torch": "2.6"})
    assert give_same_bits(here, elsewhere)
    for changed in ({"processor": "abacus"}, {"data": "other"}, {"engine": "compiled 0"}, {"precision": "float16"}):
        assert not give_same_bits(here, here.model_copy(update=changed))


def test_networks_of_torch_are_the_same_only_in_the_same_mode():
    here = mode_here(Engine("torch"), "data")
    assert give_same_bits(here, here)
    assert not give_same_bits(here, mode_here(Engine("compiled"), "data"))
    assert not give_same_bits(here, here.model_copy(update={"processor": here.processor + " of another kind"}))


def test_networks_of_torch_are_trained_again_by_torch(small_zoo_of_torch):
    assert verify(small_zoo_of_torch, retrain=1).retrained == 1


def test_a_zoo_of_another_mode_is_compared_by_initial_weights_and_first_epoch(elsewhere):
    lines = []
    found = verify(elsewhere(), retrain=5, log=lines.append)
    assert (found.retrained, found.compared) == (0, 5)
    assert all(line.endswith(OTHER_MODE) for line in lines[2:])


@pytest.fixture
def zoo_of_a_gpu(tiny_copy, edit_manifest):
    def change(values):
        for entry in values["files"]:
            if entry["mode"] is not None:
                entry["mode"] |= {"device": "NVIDIA Abacus", "engine": "torch unfolded", "stack": 7}

    edit_manifest(tiny_copy.folder, change)
    return open_zoo(tiny_copy.folder)


def test_a_zoo_of_a_gpu_is_compared_as_one_of_another_mode_without_that_gpu(zoo_of_a_gpu):
    assert verify(zoo_of_a_gpu, retrain=2).compared == 2


def test_a_zoo_of_a_gpu_trains_whole_shards_again_in_stacks_as_large_as_before(zoo_of_a_gpu, monkeypatch):
    asked = []

    def train_pairs(recipe, treatment, pairs, data, *, engine):
        asked.append((treatment, engine, list(pairs)))
        columns = ("weights", "initial_weights", "curve_train_loss")
        return {name: zoo_of_a_gpu.networks(treatment, diverged=True)[list(pairs)][name] for name in columns}

    modes = [file.mode for file in zoo_of_a_gpu.manifest.files if file.mode is not None]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("zoo.training.verification.use_device", lambda device: None)
    monkeypatch.setattr("zoo.training.verification.mode_here", lambda *_: modes[0])
    monkeypatch.setattr("zoo.training.verification.train_pairs", train_pairs)
    shards = {(file.treatment, file.pairs) for file in zoo_of_a_gpu.manifest.files if file.pairs is not None}
    networks = len(zoo_of_a_gpu) * len(zoo_of_a_gpu.treatments)
    assert verify(zoo_of_a_gpu, retrain=networks).retrained == networks
    assert {engine for _, engine, _ in asked} == {Engine("torch unfolded", "cuda", 7)}
    assert sorted((treatment, (pairs[0], pairs[-1] + 1)) for treatment, _, pairs in asked) == sorted(shards)


def nudge(weights):
    """Flip a bit in each network that does not change any metric."""
    weights[:, 0] = np.nextafter(weights[:, 0], np.inf)


def test_last_bit_of_a_weight_is_found_by_training_again_in_the_same_mode(alter):
    zoo = alter("standard", "weights", nudge)
    assert verify(zoo).measured == 30
    with pytest.raises(ZooError, match=r"standard, pair \d, trained again: other weights in the same mode"):
        verify(zoo, retrain=1)


def test_last_bit_of_a_weight_may_differ_in_another_mode(alter, elsewhere):
    alter("standard", "weights", nudge)
    assert verify(elsewhere(), retrain=1).compared == 1


def test_last_bit_of_an_initial_weight_must_not_differ_in_any_mode(alter, elsewhere):
    zoo = alter("standard", "initial_weights", nudge)
    for each in (zoo, elsewhere()):
        with pytest.raises(ZooError, match="trained again: other initial weights"):
            verify(each, retrain=1)


def test_first_epoch_of_another_training_is_found_in_another_mode(alter, elsewhere):
    def exaggerate(curves):
        curves *= 1.2

    alter("standard", "curve_train_loss", exaggerate)
    with pytest.raises(ZooError, match=r"trained again: loss after the first epoch .*, recorded"):
        verify(elsewhere(), retrain=1)


@pytest.mark.parametrize("treatment", ["standard", "w_asymmetric", "sigma_asymmetric"])
def test_changed_weights_do_not_measure_as_recorded(alter, treatment):
    def change(weights):
        weights[2, -10:] = np.linspace(-5, 5, 10)  # the biases of the outputs

    with pytest.raises(ZooError, match=rf"{treatment}, pair 2: train (accuracy|loss) is .*, recorded as"):
        verify(alter_first(alter, treatment, change))


@pytest.mark.parametrize("metric", ["train_accuracy", "train_loss", "test_accuracy", "test_loss"])
def test_an_altered_metric_does_not_measure_as_recorded(alter, metric):
    def embellish(values):
        values *= 0.98 if metric.endswith("loss") else 1.02

    with pytest.raises(ZooError, match=f"syre, pair 0: {metric.replace('_', ' ')} is .*, recorded as"):
        verify(alter("syre", metric, embellish))


def test_fixed_entry_that_is_not_the_constant_is_found(alter, tiny_copy):
    column = int((~tiny_copy["w_asymmetric"].mask).nonzero()[0])

    def change(weights):
        weights[3, column] = np.nextafter(weights[3, column], np.float32(np.inf))

    with pytest.raises(ZooError, match="w_asymmetric has fixed entries that are not the constants"):
        verify(alter_first(alter, "w_asymmetric", change))


def test_networks_that_diverged_verify(diverged_zoo):
    assert set(diverged_zoo.networks("standard", diverged=True)["status"]) == {"diverged"}
    assert verify(diverged_zoo, retrain=2) == Verification(files=3, measured=4, retrained=2, compared=0)


def test_a_loss_that_is_nan_is_recorded_as_nan(alter):
    data = load_data("digits", train_limit=512)
    alter_first(alter, "standard", lambda weights: weights[1].fill(np.nan))
    for part, y in (("train", data.train_y), ("test", data.test_y)):
        # Logits that are all NaN are taken for class 0.
        for name, value in (("loss", np.nan), ("accuracy", (y == 0).float().mean())):
            with pytest.raises(ZooError, match=r"standard, pair 1: .* recorded as"):
                verify(alter("standard", "seconds", lambda seconds: None))
            zoo = alter_first(alter, "standard", lambda values, value=value: values[1:2].fill(value), f"{part}_{name}")
    assert verify(zoo).measured == 30


def test_constants_that_the_recipe_does_not_draw_are_found(tiny_copy, reseal):
    path = tiny_copy.folder / "w_asymmetric" / "constants.safetensors"
    held = safetensors.torch.load_file(path)
    held["constants"][~held["mask"]] += 0.5
    path.write_bytes(safetensors.torch.save(held))
    reseal(tiny_copy.folder, "w_asymmetric/constants.safetensors")
    with pytest.raises(ZooError, match="w_asymmetric's constants are not those of the recipe"):
        verify(open_zoo(tiny_copy.folder))


def test_each_network_is_trained_again_once_and_treatments_alternate(tiny_zoo):
    lines = []
    found = verify(tiny_zoo, sample=1, retrain=7, log=lines.append)
    trained = [line.partition(": trained again")[0] for line in lines if "trained again" in line]
    assert found.retrained + found.compared == len(set(trained)) == 7
    assert [line.partition(",")[0] for line in trained[:5]] == list(tiny_zoo.treatments)
