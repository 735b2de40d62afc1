import json
import shutil

import datasets
import h5py
import numpy as np
import pytest
import safetensors.torch
import torch

from zoo import open_zoo, verify
from zoo.errors import ZooError
from zoo.files import checksum_of
from zoo.store.columns import WEIGHTS

TREATMENTS = ("standard", "narrow", "w_asymmetric", "sigma_asymmetric", "syre")
SHARD = "standard/00000.h5"


def replace_dataset(path, name, **arguments):
    with h5py.File(path, "r+") as shard:
        values = shard[name][...]
        del shard[name]
        shard.create_dataset(name, **({"data": values} | arguments))


def test_datasets_reads_shards_unchanged(tiny_zoo, tmp_path):
    networks = tiny_zoo["syre"]
    files = [str(tiny_zoo.folder / file.path) for file in tiny_zoo.manifest.of("syre")]
    loaded = datasets.load_dataset("hdf5", data_files=files, split="train", cache_dir=str(tmp_path))
    assert set(loaded.column_names) == networks.columns.keys()
    loaded = loaded.with_format("numpy")[:]
    for name in networks.columns:
        values, dtype = networks[name], loaded[name].dtype
        assert dtype == values.dtype or values.dtype.kind in "Uf"  # float64 becomes float32 in this format
        np.testing.assert_array_equal(loaded[name], values.astype(dtype))


def test_every_stored_fixed_entry_is_the_constant_bit_for_bit(tiny_zoo):
    held = safetensors.torch.load_file(tiny_zoo.folder / "w_asymmetric" / "constants.safetensors")
    fixed = ~held["mask"]
    assert fixed.sum() == 8 * 4 + 8 * 3 + 10 * 2
    assert (held["constants"][fixed] != 0).all()
    for name in WEIGHTS:
        rows = tiny_zoo["w_asymmetric"][name]
        assert (rows[:, fixed].view(np.int32) == held["constants"][fixed].numpy().view(np.int32)).all()
        assert (rows[:, ~fixed].std(0) > 0).any()


def test_the_error_names_a_truncated_shard(tiny_copy):
    path = tiny_copy.folder / SHARD
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ZooError) as caught:
        open_zoo(tiny_copy.folder)
    assert (
        str(caught.value) == f"{path}: {len(whole) - 100} bytes instead of {len(whole)}; delete it and generate again"
    )


@pytest.mark.parametrize("name", [SHARD, "syre/00004.h5", "w_asymmetric/constants.safetensors"])
def test_a_flipped_bit_is_found_and_the_error_names_the_file(tiny_copy, name):
    path = tiny_copy.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ZooError, match="its checksum differs") as caught:
        verify(open_zoo(tiny_copy.folder))
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", [SHARD, "w_asymmetric/constants.safetensors"])
def test_the_error_names_a_missing_file(tiny_copy, name):
    path = tiny_copy.folder / name
    path.unlink()
    with pytest.raises(ZooError) as caught:
        open_zoo(tiny_copy.folder)
    assert str(caught.value).startswith(f"{path}: missing; ")


def test_the_error_names_a_folder_without_a_zoo(tmp_path):
    with pytest.raises(ZooError, match=r"is not a zoo, zoo\.json cannot be read"):
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
        (lead_out, "path: is outside the zoo's folder"),
        (lead_away, "path: is outside the zoo's folder"),
        (change_recipe, "zoo.json: the digest is not that of the recipe"),
        (change_digest, "zoo.json: the digest is not that of the recipe"),
        (be_of_the_future, "zoo.json: has format 3, not 2; install a newer asymzoo"),
        (break_a_name, r"zoo.json: recipe.treatments: 'two\nlines' is not a valid name of a treatment"),
        (lose_a_shape, "zoo.json: layouts: standard is not a layout"),
        (have_fewer_pairs, "00004.h5 has pairs of another shard, or pairs beyond 5"),
        (count_a_pair_twice, "syre/00004.h5 has pairs of another shard, or pairs beyond 6"),
        (be_made_at_no_time, "zoo.json: created: Invalid isoformat string: 'yesterday'"),
        (lose_a_shard, "incomplete, syre lacks pairs from 4 on"),
    ],
)
def test_a_manifest_that_is_not_valid_is_refused(tiny_copy, edit_manifest, change, message):
    edit_manifest(tiny_copy.folder, change)
    with pytest.raises(ZooError) as caught:
        open_zoo(tiny_copy.folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_not_json_is_refused(tiny_copy):
    (tiny_copy.folder / "zoo.json").write_text("{")
    with pytest.raises(ZooError, match=r"zoo\.json: was altered"):
        open_zoo(tiny_copy.folder)


@pytest.mark.parametrize("content", [b"", b"\xff" * 500, None], ids=["empty", "noise", "truncated"])
def test_the_error_names_damaged_constants(tiny_copy, reseal, content):
    name = "w_asymmetric/constants.safetensors"
    path = tiny_copy.folder / name
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    reseal(tiny_copy.folder, name)
    with pytest.raises(ZooError) as caught:
        open_zoo(tiny_copy.folder)["w_asymmetric"].weights[:]
    assert str(caught.value).startswith(f"{path}: damaged")


def test_the_error_names_constants_of_another_architecture(tiny_copy, reseal):
    name = "w_asymmetric/constants.safetensors"
    path = tiny_copy.folder / name
    safetensors.torch.save_file({"mask": torch.ones(3, dtype=torch.bool), "constants": torch.zeros(3)}, path)
    reseal(tiny_copy.folder, name)
    with pytest.raises(ZooError) as caught:
        open_zoo(tiny_copy.folder)["w_asymmetric"].stack()
    assert str(caught.value).startswith(f"{path}: damaged")


def test_constants_that_the_manifest_does_not_list_are_an_error(tiny_copy, edit_manifest):
    def forget(values):
        values["files"] = [file for file in values["files"] if file["path"] != "syre/constants.safetensors"]

    edit_manifest(tiny_copy.folder, forget)
    with pytest.raises(ZooError, match="it has nothing instead of constants, decay"):
        open_zoo(tiny_copy.folder)["syre"].stack()


def test_the_error_names_a_shard_that_is_not_hdf5(tiny_copy, reseal):
    path = tiny_copy.folder / SHARD
    path.write_bytes(b"x" * 5000)
    reseal(tiny_copy.folder, SHARD)
    zoo = open_zoo(tiny_copy.folder)
    for read in (
        lambda: zoo["standard"],
        lambda: zoo.column("standard", "pair"),
        lambda: zoo.read_rows("standard", "weights", np.arange(2)),
    ):
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
    replace_dataset(path, "weights", **form(tiny_copy["standard"].weights[:4].numpy()))
    reseal(tiny_copy.folder, SHARD)
    with pytest.raises(ZooError, match="weights is not a contiguous float32 array of shape") as caught:
        open_zoo(tiny_copy.folder)["standard"].weights[:]
    assert str(caught.value).startswith(f"{path}: damaged")


@pytest.mark.parametrize("kind", ["external link", "external storage", "virtual"])
@pytest.mark.parametrize("name", ["weights", "test_accuracy"])
def test_a_shard_that_refers_to_another_file_is_refused(tiny_copy, reseal, tmp_path, name, kind):
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
        zoo["standard"][name]


def test_the_manifest_lists_every_file_with_its_checksum(tiny_zoo):
    values = json.loads((tiny_zoo.folder / "zoo.json").read_text())
    listed = {entry["path"] for entry in values["files"]}
    found = {str(path.relative_to(tiny_zoo.folder)) for path in tiny_zoo.folder.rglob("*.*") if path.is_file()}
    assert found == listed | {"zoo.json"}
    for entry in values["files"]:
        path = tiny_zoo.folder / entry["path"]
        assert (entry["bytes"], entry["sha256"]) == (path.stat().st_size, checksum_of(path))


def test_layouts_in_the_manifest_describe_the_rows(tiny_zoo):
    for treatment in TREATMENTS:
        state = tiny_zoo[treatment].module(0).state_dict()
        entries = tiny_zoo.manifest.layouts[treatment]
        assert [(entry["name"], tuple(entry["shape"])) for entry in entries] == [
            (name, tuple(tensor.shape)) for name, tensor in state.items()
        ]
