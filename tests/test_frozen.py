"""What earlier versions left on disk is read by this one: zoos, exports, checkpoints."""

import json
from pathlib import Path

import pytest
from datasets import load_dataset

from metanets import Metanet
from tests.frozen.make import facts
from zoo import Recipe, open_zoo, verify
from zoo.sharing.importers.hf import import_zoo

FROZEN = Path(__file__).parent / "frozen"
EVERY = pytest.mark.parametrize("version", sorted(path.name for path in FROZEN.iterdir() if (path / "zoo").is_dir()))


def known(version):
    return json.loads((FROZEN / version / "facts.json").read_text())


def assert_read(zoo, version):
    found = facts(zoo)
    assert found.keys() == known(version)["zoo"].keys()
    for treatment, columns in known(version)["zoo"].items():
        assert found[treatment].keys() >= columns.keys()
        for name, values in columns.items():
            assert found[treatment][name] == pytest.approx(values, rel=1e-4, abs=1e-4, nan_ok=True), (treatment, name)


@EVERY
def test_a_zoo_is_read_and_its_networks_run(version):
    zoo = open_zoo(FROZEN / version / "zoo")
    assert_read(zoo, version)
    assert verify(zoo, sample=2).files == len(zoo.manifest.files)
    assert Recipe.of(zoo).digest == zoo.manifest.digest


@EVERY
def test_an_export_becomes_the_same_zoo(version, tmp_path):
    zoo = import_zoo(FROZEN / version / "export", tmp_path / "zoo")
    assert_read(zoo, version)


@EVERY
def test_datasets_reads_an_export(version, tmp_path):
    folder = str(FROZEN / version / "export")
    metadata = load_dataset(folder, "metadata", split="train", cache_dir=str(tmp_path))
    networks = load_dataset(folder, "standard", split="train", cache_dir=str(tmp_path))
    assert metadata.num_rows == networks.num_rows * len(known(version)["zoo"])
    assert {"weights", "pair", "test_accuracy", "curve_test_loss"} <= set(networks.column_names)


@EVERY
def test_a_checkpoint_predicts_the_same(version):
    metanet = Metanet.load(FROZEN / version / "statnn.safetensors")
    rows = open_zoo(FROZEN / version / "zoo")["standard"].weights[:]
    assert metanet.predict(rows).tolist() == pytest.approx(known(version)["statnn"], rel=1e-4)
    assert (metanet.origin.model, metanet.target, metanet.origin.task.name) == (
        "statnn",
        "test_accuracy",
        "frozen/standard/test_accuracy",
    )


@EVERY
def test_a_checkpoint_saved_again_predicts_the_same(version, tmp_path):
    metanet, rows = (
        Metanet.load(FROZEN / version / "statnn.safetensors"),
        open_zoo(FROZEN / version / "zoo")["standard"],
    )
    metanet.save(tmp_path / "again.safetensors")
    again = Metanet.load(tmp_path / "again.safetensors")
    assert again.origin == metanet.origin
    assert again.predict(rows).tolist() == metanet.predict(rows).tolist()
    assert again.evaluate(rows) == metanet.evaluate(rows)


def test_there_is_a_frozen_version():
    assert (FROZEN / "schema2" / "zoo" / "zoo.json").is_file()
