"""The card's statements on the cost of reading, in bytes that Linux counts for the process."""

from pathlib import Path
from time import sleep

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Features, Value

from zoo import Recipe, open_zoo
from zoo.sharing import export as exporting
from zoo.sharing.export import export_zoo
from zoo.store.manifest import Mode
from zoo.store.shards import row_size, write_shard
from zoo.training.planning import begin, plan

pytestmark = pytest.mark.usefixtures("own_cache")

KNOWN = ["pair", "test_accuracy"]
FEATURES = Features({"pair": Value("int64"), "test_accuracy": Value("float32")})
GROUPS = 8  # row groups of the export's largest file, at least
SMALL = 10  # times as small, at least, is what a part costs that is not all


def bytes_read(work):
    """Return the bytes that `work` reads. It runs once before, because imports are read as well."""
    work()
    before = settled()
    work()
    return settled() - before


def settled():
    """Return the count of bytes after all threads have stopped reading ahead; reading the count costs 100 bytes."""
    before, now = -1_000, count()
    while now - before > 200:
        sleep(0.05)
        before, now = now, count()
    return now


def count():
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar: ")).split()[1])


def first(networks):
    return next(iter(networks))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A zoo of untrained networks of 100 kB each, in two shards of 48."""
    recipe = Recipe.read(
        {
            "name": "wide",
            "pairs": 96,
            "data": {"name": "digits"},
            "architecture": {"name": "mlp", "widths": [64, 128, 128, 10]},
            "training": {"learning_rate": 0.1, "epochs": 1},
            "treatments": {"standard": {"kind": "standard"}},
        }
    )
    folder, manifest, rng = tmp_path_factory.mktemp("zoos") / "wide", begin(recipe), np.random.default_rng(0)
    files = []
    for shard in plan(manifest, 48):
        size, columns = row_size(manifest, "standard"), manifest.columns_of("standard")
        arrays = {
            name: rng.random(column.shape(len(shard.pairs), size)).astype(column.dtype.replace("string", "str"))
            for name, column in columns.items()
        }
        arrays["pair"] = np.array(shard.pairs)
        arrays["split"] = np.array([recipe.split_of(pair) for pair in shard.pairs])
        arrays["status"] = np.full(len(shard.pairs), "trained")
        mode = Mode(device="cpu", processor="", torch="", data="")
        files.append(write_shard(folder, manifest, "standard", shard.pairs, arrays, mode))
    manifest.model_copy(update={"files": tuple(files)}).write(folder)
    return open_zoo(folder)


@pytest.fixture(scope="module")
def shards(zoo):
    """A function that streams the shards."""
    paths = [str(zoo.folder / file.path) for file in zoo.manifest.of("standard")]
    return lambda **options: datasets.load_dataset("hdf5", data_files=paths, split="train", streaming=True, **options)


@pytest.fixture(scope="module")
def shard(zoo):
    """Bytes of one shard."""
    return zoo.manifest.of("standard")[0].bytes


@pytest.fixture(scope="module")
def exported(zoo, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "ROW_GROUP", 4 * 8 * row_size(zoo.manifest, "standard"))
        return export_zoo(zoo, tmp_path_factory.mktemp("hub") / "zoo")


@pytest.fixture(scope="module")
def parquet(exported):
    """A function that streams the train split."""
    return lambda **options: datasets.load_dataset(str(exported), "standard", split="train", streaming=True, **options)


@pytest.fixture(scope="module")
def file(exported):
    """Bytes of the train split's file."""
    return (exported / "standard/train.parquet").stat().st_size


@pytest.fixture(scope="module")
def group(exported):
    """Bytes of one of its row groups."""
    found = pq.read_metadata(exported / "standard/train.parquet")
    assert found.num_row_groups >= GROUPS
    return found.row_group(0).total_byte_size


def test_a_streamed_row_of_a_shard_costs_the_whole_shard(shards, shard):
    assert shard <= bytes_read(lambda: first(shards())) < 1.5 * shard


def test_a_streamed_row_of_a_shard_costs_its_batch_with_batch_size(shards, shard):
    assert bytes_read(lambda: first(shards(batch_size=1))) < shard / SMALL


def test_features_select_the_columns_of_shards(shards, shard):
    assert bytes_read(lambda: list(shards(features=FEATURES))) < shard / SMALL
    assert list(first(shards(features=FEATURES))) == KNOWN


def test_select_columns_after_streamed_shards_reads_everything(shards, shard):
    assert bytes_read(lambda: list(shards().select_columns(KNOWN))) >= 2 * shard


def test_columns_select_the_columns_of_parquet(parquet, file):
    assert bytes_read(lambda: list(parquet(columns=KNOWN))) < file / SMALL
    assert list(first(parquet(columns=KNOWN))) == KNOWN


def test_select_columns_after_streamed_parquet_reads_everything(parquet, file):
    assert bytes_read(lambda: list(parquet().select_columns(KNOWN))) >= file


def test_a_streamed_row_of_parquet_costs_its_row_group_and_the_groups_read_ahead(parquet, group, file):
    """How much is read ahead depends on the speed of reading; it can be the whole file."""
    assert group <= bytes_read(lambda: first(parquet())) < 1.5 * file


@pytest.mark.parametrize("how", ["filters", "reshard"])
def test_a_single_row_group_can_be_read(parquet, zoo, group, file, how):
    pair = int(zoo["standard"].split("train").pairs[9])
    read = {
        "filters": lambda: first(parquet(filters=[("pair", "==", pair)])),
        "reshard": lambda: first(parquet().reshard()),
    }[how]
    assert group <= bytes_read(read) < 1.5 * group
    assert 1.5 * group < file / 5
    if how == "filters":
        assert read()["pair"] == pair


def test_reading_metadata_reads_no_weights(exported, file):
    networks = datasets.load_dataset(str(exported), "metadata", split="train", streaming=True)
    assert bytes_read(lambda: list(networks)) < file / SMALL
