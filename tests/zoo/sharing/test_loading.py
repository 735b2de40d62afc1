"""`datasets` reads the same columns and values from shards of every size and from their export, without this package."""

import itertools

import datasets
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from zoo import Recipe, generate
from zoo.sharing.configuration import METADATA
from zoo.sharing.export import export_zoo
from zoo.sharing.importers import import_folder
from zoo.sharing.importers.hf import import_zoo
from zoo.store.columns import SPLITS

pytestmark = pytest.mark.usefixtures("own_cache")
SEED = 9007199254740993  # 2^53 + 1, which no float64 holds
SHARDS = {
    "1": (4, 1),
    "3": (4, 3),
    "all": (4, 4),
    "one pair": (1, 1),
    "an empty split": (2, 2),
}  # pairs, and of a shard
TREATMENTS = ("standard", "sigma_asymmetric", "own")  # of which the last holds what is its own


@pytest.fixture(scope="module", params=SHARDS)
def zoo(request, tiny_recipe, tmp_path_factory):
    pairs, shard_pairs = SHARDS[request.param]
    treatments = tiny_recipe.treatments
    own = {"own": treatments["w_asymmetric"].model_copy(update={"shared": False})}
    chosen = {name: treatments[name] for name in TREATMENTS if name in treatments} | own
    recipe = tiny_recipe.model_copy(update={"seed": 4, "pairs": pairs, "treatments": chosen})
    made = generate(recipe, tmp_path_factory.mktemp("zoos") / "zoo", shard_pairs=shard_pairs)
    assert len(made.manifest.of("standard")) == -(-pairs // shard_pairs)
    return made


@pytest.fixture(scope="module")
def exported(zoo, tmp_path_factory):
    return export_zoo(zoo, tmp_path_factory.mktemp("hub") / "zoo")


def load_shards(zoo, treatment, **options):
    paths = [str(zoo.folder / file.path) for file in zoo.manifest.of(treatment)]
    return datasets.load_dataset("hdf5", data_files=paths, split="train", **options)


def load_export(exported, configuration, **options):
    """All splits joined, each with its name as a column, as in the zoo."""
    for split, networks in datasets.load_dataset(str(exported), configuration, **options).items():
        for network in networks.with_format("numpy"):
            yield {"split": split, **network}


def assert_networks(networks, zoo, treatment):
    """Assert that networks equal those of a zoo in all columns, bit for bit."""
    networks = sorted(networks, key=lambda network: int(network["pair"]))
    columns = zoo[treatment].columns
    assert [set(network) for network in networks] == [set(columns)] * len(zoo)
    for name, column in columns.items():
        found, there = np.stack([network[name] for network in networks]), zoo[treatment][name]
        assert found.tobytes() == there.astype(found.dtype).tobytes(), name
        assert column.dtype == "string" or found.dtype in (there.dtype, np.int64)  # to which `datasets` widens bytes


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("treatment", TREATMENTS)
def test_shards_of_every_size_load_unchanged(zoo, treatment, streaming):
    loaded = load_shards(zoo, treatment, streaming=streaming)
    assert_networks(loaded.with_format("numpy"), zoo, treatment)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("treatment", TREATMENTS)
def test_the_export_of_shards_of_every_size_loads_and_has_the_same_columns(zoo, exported, treatment, streaming):
    assert_networks(load_export(exported, treatment, streaming=streaming), zoo, treatment)
    features = datasets.load_dataset_builder(str(exported), treatment).info.features
    assert {**features, "split": datasets.Value("string")} == load_shards(zoo, treatment).features


def test_a_split_without_networks_has_no_file_and_the_others_load(zoo, exported):
    there = set(zoo["standard"]["split"])
    for name in (*TREATMENTS, METADATA):
        assert {path.stem for path in (exported / name).glob("*.parquet")} == there
        assert set(datasets.load_dataset(str(exported), name)) == there


def test_the_zoos_of_this_file_include_some_with_all_splits_and_some_without(tiny_recipe):
    """The test above needs both kinds."""
    recipe = tiny_recipe.model_copy(update={"seed": 4})
    splits = [{recipe.split_of(pair) for pair in range(pairs)} for pairs, _ in SHARDS.values()]
    assert set(map(len, splits)) == {1, 2, 3}
    assert set(SPLITS) in splits


@pytest.mark.parametrize("form", ["numpy", "torch"])
def test_integers_remain_64_bit_integers(zoo, exported, form):
    whole = torch.int64 if form == "torch" else np.int64
    shards = load_shards(zoo, "standard").with_format(form)
    parts = [datasets.load_dataset(str(exported), name) for name in ("standard", METADATA)]
    for networks in (shards, *itertools.chain(*(part.values() for part in parts))):
        for name in ("pair", "epochs"):
            column = networks.with_format("arrow")[:][name]
            assert column.null_count == 0
            assert networks.with_format(form)[:][name].dtype == whole


def test_metadata_has_the_same_values(zoo, exported):
    found = sorted(
        load_export(exported, METADATA), key=lambda n: (TREATMENTS.index(str(n["treatment"])), int(n["pair"]))
    )
    for name in set(found[0]) - {"treatment"}:
        there = np.concatenate([zoo[treatment][name] for treatment in TREATMENTS])
        values = np.stack([network[name] for network in found])
        assert values.tobytes() == there.astype(values.dtype).tobytes(), name
    for kind in ("id", "hyperparameter", "metric", "cost"):
        assert set(zoo["standard"].group(kind)) <= set(found[0])


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    """A folder of networks with seeds that only 64-bit integers can represent."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "recipe.toml").write_text(
        'name = "mine"\ndata = { name = "digits" }\narchitecture = { name = "mlp", widths = [64, 4, 10] }\n'
    )
    recipe = Recipe.read(
        {
            "name": "mine",
            "pairs": 3,
            "data": {"name": "digits"},
            "architecture": {"name": "mlp", "widths": [64, 4, 10]},
            "training": {"learning_rate": 0.1, "epochs": 1},
            "treatments": {"standard": {"kind": "standard"}},
        }
    )
    stack = recipe.treat("standard").stack(torch.randn(3, recipe.treat("standard").layout.size))
    for i in range(3):
        state = {name: tensor.contiguous() for name, tensor in stack.network(i).state_dict().items()}
        safetensors.torch.save_file(state, folder / f"{i}.safetensors")
    table = {
        "file": [f"{i}.safetensors" for i in range(3)],
        "test_accuracy": [0.5, 0.6, 0.7],
        "learning_rate": [0.1, 0.2, 0.3],
        "epochs": [1, 2, 3],
        "seed": [SEED, SEED + 1, 2**63 - 1],
        "unsigned": [SEED, 2**63 + 1, 2**64 - 1],
    }
    pd.DataFrame(table).astype({"unsigned": np.uint64}).to_csv(folder / "labels.csv", index=False)
    return import_folder(folder, tmp_path_factory.mktemp("zoos") / "mine")


@pytest.mark.parametrize(
    ("name", "values"), [("seed", [SEED, SEED + 1, 2**63 - 1]), ("unsigned", [SEED, 2**63 + 1, 2**64 - 1])]
)
def test_64_bit_seeds_stay_exact_through_import_and_export(seeded, tmp_path, name, values):
    assert seeded["standard"][name].tolist() == values
    exported = export_zoo(seeded, tmp_path / "hub")
    for networks in (
        load_shards(seeded, "standard"),
        *(
            datasets.concatenate_datasets(list(datasets.load_dataset(str(exported), part).values()))
            for part in ("standard", METADATA)
        ),
    ):
        assert sorted(networks[name]) == values
        assert sorted(map(int, networks.with_format("numpy")[name])) == values
        if name == "seed":
            assert sorted(map(int, networks.with_format("torch")[name])) == values
    assert import_zoo(exported, tmp_path / "zoo")["standard"][name].tolist() == values


def test_a_zoo_is_not_confused_with_a_cached_one_of_the_same_form(plant_zoo, tmp_path):
    for number in (0, 1):
        zoo = plant_zoo(
            lambda arrays, number=number: arrays.update(weights=arrays["weights"] + np.float32(number)), pairs=8
        )
        exported = export_zoo(zoo, tmp_path / str(number) / "zoo")
        networks = {int(network["pair"]): network["weights"] for network in load_export(exported, "standard")}
        assert np.array_equal(np.stack([networks[pair] for pair in range(len(zoo))]), zoo["standard"]["weights"])
