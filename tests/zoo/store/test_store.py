import json
import pickle
import shutil

import datasets
import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from torch.utils.data import DataLoader, Dataset

from zoo import Recipe, load_data, open_zoo, verify
from zoo.errors import ZooError
from zoo.files import checksum_of
from zoo.networks.architectures import ARCHITECTURES
from zoo.training.training import METRICS

TREATMENTS = ("standard", "narrow", "w_asymmetric", "sigma_asymmetric", "syre")
SHARD = "standard/00000.h5"


def by_h5py(zoo, treatment, name):
    """What the shards hold, read by h5py alone."""
    parts = []
    for path in sorted((zoo.folder / treatment).glob("*.h5")):
        with h5py.File(path) as shard:
            parts.append(shard[name][...])
    return parts


def replace_dataset(path, name, **arguments):
    with h5py.File(path, "r+") as shard:
        values = shard[name][...]
        del shard[name]
        shard.create_dataset(name, **({"data": values} | arguments))


@pytest.mark.parametrize("treatment", TREATMENTS)
@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize(
    "index",
    [None, 0, 5, -1, slice(2, 5), slice(None, None, -2), [4, 0, 4, -2], np.array([5, 1]), torch.tensor([3, 4]), []],
    ids=str,
)
def test_rows_are_what_h5py_reads(tiny_zoo, treatment, index, initial):
    stored = np.concatenate(by_h5py(tiny_zoo, treatment, "initial_weights" if initial else "weights"))
    rows = tiny_zoo.rows(treatment, index, initial=initial)
    expected = stored[np.arange(6)[slice(None) if index is None else index]]
    assert rows.dtype == torch.float32
    assert rows.shape == expected.shape
    assert np.array_equal(rows.numpy(), expected)


def test_rows_come_from_several_shards(tiny_zoo):
    assert [file.pairs for file in tiny_zoo.manifest.of("standard")] == [(0, 4), (4, 6)]


def test_rows_can_be_changed_without_changing_the_zoo(tiny_zoo):
    before = tiny_zoo.rows("standard", [0, 1])
    tiny_zoo.rows("standard", [0, 1]).zero_()
    assert torch.equal(tiny_zoo.rows("standard", [0, 1]), before)


def test_index_beyond_the_zoo_is_an_index_error(tiny_zoo):
    with pytest.raises(IndexError):
        tiny_zoo.rows("standard", 6)


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_field_joins_shards(tiny_zoo, treatment):
    for name in tiny_zoo.fields(treatment):
        values, parts = tiny_zoo.field(treatment, name), by_h5py(tiny_zoo, treatment, name)
        assert len(values) == 6
        for part, here in zip(parts, np.split(values, [4]), strict=True):
            part = part.astype(str) if part.dtype == object else part
            assert np.array_equal(here, part, equal_nan=part.dtype.kind == "f")


def test_curves_end_with_their_training_at_the_recorded_metrics(tiny_zoo):
    epochs = tiny_zoo.field("standard", "epochs")
    for name in METRICS:
        curve = tiny_zoo.field("standard", f"curve_{name}")
        assert np.array_equal((~np.isnan(curve)).sum(1), epochs)
        assert np.array_equal(curve[np.arange(6), epochs - 1], tiny_zoo.field("standard", name))


def test_fields_are_all_but_the_weights(tiny_zoo):
    drawn = {"learning_rate", "weight_decay", "label_smoothing", "epochs"}
    measured = {f"{prefix}{name}" for prefix in ("", "curve_") for name in METRICS}
    assert set(tiny_zoo.fields("syre")) == drawn | measured | {"pair", "split", "status", "seconds"}


def test_a_group_holds_the_fields_under_its_name(tiny_zoo):
    fields = tiny_zoo.group("standard", "curve")
    assert fields.keys() == {name for name in tiny_zoo.fields("standard") if name.startswith("curve_")}
    for name, values in fields.items():
        np.testing.assert_array_equal(values, tiny_zoo.field("standard", name))


def test_unknown_field_and_treatment_are_named(tiny_zoo):
    with pytest.raises(ZooError, match="has no column 'accuracy'"):
        tiny_zoo.field("standard", "accuracy")
    with pytest.raises(
        ZooError, match=r"has no treatment 'standrd' \(did you mean 'standard'\?\); it has standard, narrow"
    ):
        tiny_zoo.rows("standrd")


def test_a_misspelt_split_is_named_and_the_right_one_suggested(tiny_zoo):
    with pytest.raises(ZooError, match=r"split: there is no 'val' \(did you mean 'validation'\?\)"):
        tiny_zoo.index("standard", "val")


def test_index_selects_by_split_and_leaves_out_what_diverged(tiny_copy, reseal):
    with h5py.File(tiny_copy.folder / SHARD, "r+") as shard:
        shard["status"][1] = "diverged"
        shard["split"][:3] = ["train", "train", "test"]
    reseal(tiny_copy.folder, SHARD)
    zoo = open_zoo(tiny_copy.folder)
    assert zoo.index("standard").tolist() == [0, 2, 3, 4, 5]
    assert zoo.index("standard", diverged=True).tolist() == [0, 1, 2, 3, 4, 5]
    train, test = zoo.index("standard", "train").tolist(), zoo.index("standard", "test").tolist()
    assert train[0] == 0
    assert 1 not in train
    assert 2 in test
    assert zoo.index("standard", "train", diverged=True).tolist() == sorted([1, *train])


def test_splits_of_a_zoo_are_its_recipes(tiny_zoo):
    for treatment in TREATMENTS:
        assert tiny_zoo.field(treatment, "split").tolist() == [Recipe.of(tiny_zoo).split_of(pair) for pair in range(6)]


def test_pickled_zoo_is_its_path_and_opens_again(tiny_zoo):
    rows = tiny_zoo.rows("w_asymmetric")
    content = pickle.dumps(tiny_zoo)
    assert len(content) < 500
    again = pickle.loads(content)
    assert again.manifest == tiny_zoo.manifest
    assert torch.equal(again.rows("w_asymmetric"), rows)


class Rows(Dataset):
    """The standard networks of a zoo, one by one."""

    def __init__(self, zoo):
        self.zoo = zoo

    def __len__(self):
        return len(self.zoo)

    def __getitem__(self, i):
        return self.zoo.rows("standard", i)


def test_data_loader_workers_read_a_zoo(tiny_zoo):
    expected = tiny_zoo.rows("standard")  # its files are now open here
    loader = DataLoader(Rows(tiny_zoo), batch_size=2, num_workers=2, multiprocessing_context="spawn")
    assert torch.equal(torch.cat(list(loader)), expected)


def test_datasets_reads_shards_unchanged(tiny_zoo, tmp_path):
    files = [str(tiny_zoo.folder / file.path) for file in tiny_zoo.manifest.of("syre")]
    loaded = datasets.load_dataset("hdf5", data_files=files, split="train", cache_dir=str(tmp_path))
    assert set(loaded.column_names) == tiny_zoo.columns("syre").keys()
    loaded = loaded.with_format("numpy")[:]
    for name in ("weights", "initial_weights"):
        assert np.array_equal(loaded[name], tiny_zoo.rows("syre", initial=name != "weights").numpy())
    for name in tiny_zoo.fields("syre"):
        values = tiny_zoo.field("syre", name)
        assert loaded[name].dtype == values.dtype or values.dtype.kind in "Uf"  # float64 becomes float32 in this format
        same = np.array_equal if values.dtype.kind == "U" else np.testing.assert_allclose
        assert same(loaded[name], values) is not False


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_module_measures_what_was_recorded(tiny_zoo, treatment):
    data = load_data("digits", train_limit=512)
    for i in (0, 5):
        module = tiny_zoo.module(treatment, i)
        with torch.no_grad():
            logits = module(data.test_x)
        accuracy = (logits.argmax(-1) == data.test_y).float().mean().item()
        loss = torch.nn.functional.cross_entropy(logits, data.test_y).item()
        assert accuracy == pytest.approx(tiny_zoo.field(treatment, "test_accuracy")[i], abs=1e-6)
        assert loss == pytest.approx(tiny_zoo.field(treatment, "test_loss")[i], rel=1e-5)


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_state_dict_of_a_module_fits_the_plain_architecture(tiny_zoo, treatment):
    state = tiny_zoo.module(treatment, 3).state_dict()
    arguments = Recipe.of(tiny_zoo).architecture.arguments
    if treatment == "narrow":
        arguments = ARCHITECTURES["mlp"].narrow(arguments, 0.5)
    plain = ARCHITECTURES["mlp"](**arguments)
    plain.load_state_dict(state, strict=True)
    flat = torch.cat([parameter.detach().flatten() for parameter in plain.parameters()])
    assert torch.equal(flat, tiny_zoo.rows(treatment, 3))


def test_every_stored_fixed_entry_is_the_constant_bit_for_bit(tiny_zoo):
    held = safetensors.torch.load_file(tiny_zoo.folder / "w_asymmetric" / "constants.safetensors")
    fixed = ~held["mask"]
    assert fixed.sum() == 8 * 4 + 8 * 3 + 10 * 2
    assert (held["constants"][fixed] != 0).all()
    for name in ("weights", "initial_weights"):
        for part in by_h5py(tiny_zoo, "w_asymmetric", name):
            expected = held["constants"][fixed].numpy().view(np.int32)
            assert (part[:, fixed].view(np.int32) == expected).all()
            assert (part[:, ~fixed].std(0) > 0).any()


def test_zoo_shows_what_it_is(tiny_zoo):
    assert repr(tiny_zoo) == f"Zoo('tiny', 6 pairs, treatments={list(TREATMENTS)})"


def test_truncated_shard_is_named(tiny_copy):
    path = tiny_copy.folder / SHARD
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ZooError) as caught:
        open_zoo(tiny_copy.folder)
    assert (
        str(caught.value) == f"{path}: {len(whole) - 100} bytes instead of {len(whole)}; delete it and generate again"
    )


@pytest.mark.parametrize("name", [SHARD, "syre/00004.h5", "w_asymmetric/constants.safetensors"])
def test_flipped_bit_is_found_and_the_file_named(tiny_copy, name):
    path = tiny_copy.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ZooError, match="its checksum differs") as caught:
        verify(open_zoo(tiny_copy.folder))
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", [SHARD, "w_asymmetric/constants.safetensors"])
def test_missing_file_is_named(tiny_copy, name):
    path = tiny_copy.folder / name
    path.unlink()
    with pytest.raises(ZooError) as caught:
        open_zoo(tiny_copy.folder)
    assert str(caught.value).startswith(f"{path}: missing; ")


def test_folder_without_a_zoo_is_named(tmp_path):
    with pytest.raises(ZooError, match=r"no zoo here, zoo\.json cannot be read"):
        open_zoo(tmp_path / "nowhere")


def lead_out(values):
    values["files"][-1]["path"] = "../x.h5"


def lead_away(values):
    values["files"][-1]["path"] = "/x.h5"


def change_recipe(values):
    values["recipe"]["seed"] = 1


def change_digest(values):
    values["digest"] = "0" * 32


def be_of_the_future(values):
    values["schema_version"] = 3


def break_a_name(values):
    values["recipe"]["treatments"]["two\nlines"] = {"kind": "standard"}


def lose_a_shape(values):
    values["layouts"]["standard"][0]["shape"] = "x"


def have_fewer_pairs(values):
    values["recipe"]["pairs"] = 5


def count_a_pair_twice(values):
    values["files"] += [file | {"pairs": [3, 5]} for file in values["files"] if file["path"] == "syre/00004.h5"]


def be_made_at_no_time(values):
    values["created"] = "yesterday"


def lose_a_shard(values):
    values["files"] = [file for file in values["files"] if file["path"] != "syre/00004.h5"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lead_out, "path: leads out of the zoo"),
        (lead_away, "path: leads out of the zoo"),
        (change_recipe, "zoo.json: the digest is not that of the recipe"),
        (change_digest, "zoo.json: the digest is not that of the recipe"),
        (be_of_the_future, "zoo.json: is of format 3, not 2; install a newer asymzoo"),
        (break_a_name, r"zoo.json: recipe.treatments: 'two\nlines' is no name of a treatment"),
        (lose_a_shape, "zoo.json: layouts: standard is no layout"),
        (have_fewer_pairs, "00004.h5 has pairs of another shard, or beyond 5"),
        (count_a_pair_twice, "syre/00004.h5 has pairs of another shard, or beyond 6"),
        (be_made_at_no_time, "zoo.json: created: Invalid isoformat string: 'yesterday'"),
        (lose_a_shard, "incomplete, syre lacks pairs from 4 on"),
    ],
)
def test_manifest_that_does_not_hold_is_refused(tiny_copy, edit_manifest, change, message):
    edit_manifest(tiny_copy.folder, change)
    with pytest.raises(ZooError) as caught:
        open_zoo(tiny_copy.folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_manifest_that_is_no_json_is_refused(tiny_copy):
    (tiny_copy.folder / "zoo.json").write_text("{")
    with pytest.raises(ZooError, match=r"zoo\.json: altered"):
        open_zoo(tiny_copy.folder)


@pytest.mark.parametrize("content", [b"", b"\xff" * 500, None], ids=["empty", "noise", "truncated"])
def test_damaged_constants_are_named(tiny_copy, reseal, content):
    name = "w_asymmetric/constants.safetensors"
    path = tiny_copy.folder / name
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    reseal(tiny_copy.folder, name)
    with pytest.raises(ZooError) as caught:
        open_zoo(tiny_copy.folder).rows("w_asymmetric")
    assert str(caught.value).startswith(f"{path}: damaged")


def test_constants_of_another_architecture_are_named(tiny_copy, reseal):
    name = "w_asymmetric/constants.safetensors"
    path = tiny_copy.folder / name
    safetensors.torch.save_file({"mask": torch.ones(3, dtype=torch.bool), "constants": torch.zeros(3)}, path)
    reseal(tiny_copy.folder, name)
    with pytest.raises(ZooError) as caught:
        open_zoo(tiny_copy.folder).stack("w_asymmetric")
    assert str(caught.value).startswith(f"{path}: damaged")


def test_constants_that_the_manifest_does_not_list_are_missed(tiny_copy, edit_manifest):
    def forget(values):
        values["files"] = [file for file in values["files"] if file["path"] != "syre/constants.safetensors"]

    edit_manifest(tiny_copy.folder, forget)
    with pytest.raises(ZooError, match="it holds nothing instead of constants, decay"):
        open_zoo(tiny_copy.folder).stack("syre")


def test_shard_that_is_no_hdf5_is_named(tiny_copy, reseal):
    path = tiny_copy.folder / SHARD
    path.write_bytes(b"x" * 5000)
    reseal(tiny_copy.folder, SHARD)
    zoo = open_zoo(tiny_copy.folder)
    for read in (lambda: zoo.rows("standard"), lambda: zoo.field("standard", "pair")):
        with pytest.raises(ZooError) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: damaged")


def chunked(values):
    return {"chunks": (1, values.shape[1])}


def compressed(values):
    return {"compression": "gzip"}


def double(values):
    return {"dtype": np.float64}


def big_endian(values):
    return {"dtype": ">f4"}


def too_few(values):
    return {"data": values[:-1]}


@pytest.mark.parametrize("form", [chunked, compressed, double, big_endian, too_few])
def test_weights_that_cannot_be_mapped_are_refused(tiny_copy, reseal, form):
    path = tiny_copy.folder / SHARD
    replace_dataset(path, "weights", **form(tiny_copy.rows("standard", slice(4)).numpy()))
    reseal(tiny_copy.folder, SHARD)
    with pytest.raises(ZooError, match="weights is no contiguous float32 array of shape") as caught:
        open_zoo(tiny_copy.folder).rows("standard")
    assert str(caught.value).startswith(f"{path}: damaged")


@pytest.mark.parametrize("kind", ["external link", "external storage", "virtual"])
@pytest.mark.parametrize("name", ["weights", "test_accuracy"])
def test_shard_that_refers_to_another_file_is_refused(tiny_copy, reseal, tmp_path, name, kind):
    elsewhere = tmp_path / "secret.h5"
    shutil.copy(tiny_copy.folder / SHARD, elsewhere)
    with h5py.File(tiny_copy.folder / SHARD, "r+") as shard:
        shape, dtype = shard[name].shape, shard[name].dtype
        del shard[name]
        if kind == "external link":
            shard[name] = h5py.ExternalLink(elsewhere, name)
        elif kind == "external storage":
            shard.create_dataset(name, shape, dtype, external=[(str(elsewhere), 0, h5py.h5f.UNLIMITED)])
        else:
            source = h5py.VirtualLayout(shape, dtype)
            source[:] = h5py.VirtualSource(elsewhere, name, shape)
            shard.create_virtual_dataset(name, source)
    reseal(tiny_copy.folder, SHARD)
    zoo = open_zoo(tiny_copy.folder)
    with pytest.raises(ZooError, match=f"{name} refers to another file"):
        zoo.rows("standard") if name == "weights" else zoo.field("standard", name)


def test_manifest_lists_every_file_with_its_checksum(tiny_zoo):
    values = json.loads((tiny_zoo.folder / "zoo.json").read_text())
    listed = {entry["path"] for entry in values["files"]}
    found = {str(path.relative_to(tiny_zoo.folder)) for path in tiny_zoo.folder.rglob("*.*") if path.is_file()}
    assert found == listed | {"zoo.json"}
    for entry in values["files"]:
        path = tiny_zoo.folder / entry["path"]
        assert (entry["bytes"], entry["sha256"]) == (path.stat().st_size, checksum_of(path))


def test_layouts_in_the_manifest_name_the_columns(tiny_zoo):
    for treatment in TREATMENTS:
        state = tiny_zoo.module(treatment, 0).state_dict()
        entries = tiny_zoo.manifest.layouts[treatment]
        assert [(entry["name"], tuple(entry["shape"])) for entry in entries] == [
            (name, tuple(tensor.shape)) for name, tensor in state.items()
        ]
