import hashlib
import json
import logging
import re

import mlcroissant
import numpy as np
import pytest
import rdflib
from huggingface_hub import DatasetCard

from zoo import generate
from zoo.data import DATASETS
from zoo.sharing.configuration import METADATA
from zoo.sharing.export import export_zoo
from zoo.sharing.responsible import SOURCES
from zoo.store.columns import SPLITS, WEIGHTS

pytestmark = [  # mlcroissant's
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated"),
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
]


@pytest.fixture(scope="module")
def zoo(tiny_recipe, tmp_path_factory):
    """A zoo with networks in all splits, and columns of each kind."""
    recipe = tiny_recipe.only(["standard", "w_asymmetric"]).model_copy(update={"pairs": 12})
    own = {"own": recipe.treatments["w_asymmetric"].model_copy(update={"shared": False})}
    recipe = recipe.model_copy(update={"treatments": recipe.treatments | own})
    return generate(recipe, tmp_path_factory.mktemp("zoos") / "zoo")


@pytest.fixture(scope="module")
def exported(zoo, tmp_path_factory):
    return export_zoo(zoo, tmp_path_factory.mktemp("hub") / "zoo")


@pytest.fixture
def dataset(exported):
    return mlcroissant.Dataset(jsonld=exported / "croissant.json")


@pytest.fixture
def description(exported):
    return json.loads((exported / "croissant.json").read_text())


def test_mlcroissant_reports_no_issue(exported, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = mlcroissant.Dataset(jsonld=exported / "croissant.json")
        assert len(list(dataset.records(METADATA)))
    assert (dataset.metadata.ctx.issues.errors, dataset.metadata.ctx.issues.warnings) == (set(), set())
    assert not caplog.records
    assert dataset.metadata.ctx.is_v1_1()


@pytest.mark.parametrize("treatment", ["standard", "w_asymmetric", "own"])
def test_records_are_the_networks_of_the_zoo_bit_for_bit(zoo, dataset, treatment):
    pairs = []
    for record in dataset.records(treatment):
        network = {name.removeprefix(f"{treatment}/"): value for name, value in record.items()}
        pairs.append(pair := int(network.pop("pair")))
        for name in WEIGHTS:
            row = np.stack(network.pop(name))
            assert row.dtype == np.float32
            assert np.array_equal(row.view(np.int32), zoo[treatment][name][pair].view(np.int32))
        assert network.keys() == zoo[treatment].columns.keys() - {"pair", *WEIGHTS}
        for name, value in network.items():
            wanted = zoo[treatment][name][pair]
            if isinstance(value, bytes):
                assert value.decode() == wanted
            else:
                np.testing.assert_array_equal(np.asarray(value), wanted, strict=True)
    assert sorted(pairs) == list(range(len(zoo)))


def test_the_metadata_has_the_networks_of_all_treatments(zoo, dataset):
    found = [
        (record[f"{METADATA}/treatment"].decode(), record[f"{METADATA}/pair"]) for record in dataset.records(METADATA)
    ]
    assert sorted(found) == sorted((name, pair) for name in zoo.treatments for pair in range(len(zoo)))


@pytest.mark.parametrize("split", SPLITS)
def test_records_can_be_restricted_to_a_split(zoo, exported, split):
    dataset = mlcroissant.Dataset(jsonld=exported / "croissant.json")
    found = [record["standard/pair"] for record in dataset.records("standard", {"standard/split": split})]
    assert 0 < len(found) < len(zoo)
    assert sorted(found) == list(zoo["standard"].split(split).pairs)


def test_every_parquet_file_is_listed_with_its_size_and_checksum(exported, description):
    listed = {part["contentUrl"]: part for part in description["distribution"] if part["@type"] == "cr:FileObject"}
    assert listed.keys() == {str(path.relative_to(exported)) for path in exported.rglob("*.parquet")}
    for path, part in listed.items():
        content = (exported / path).read_bytes()
        assert part["sha256"] == hashlib.sha256(content).hexdigest()
        assert part["contentSize"] == f"{len(content)} B"


def test_weights_have_the_shape_of_their_layout(zoo, dataset):
    shapes = {field.id: field.array_shape_tuple for each in dataset.metadata.record_sets for field in each.fields}
    for treatment in zoo.treatments:
        assert shapes[f"{treatment}/weights"] == (zoo[treatment].layout.size,)
        assert shapes[f"{treatment}/seconds"] is None


def test_arrays_have_shapes_and_columns_have_meanings_and_units(zoo, description):
    described = {each["name"]: each for each in description["recordSet"]}
    arrays = 0
    for treatment in zoo.treatments:
        fields = {field["name"]: field for field in described[treatment]["field"]}
        assert fields.keys() == zoo[treatment].columns.keys()
        for name, column in zoo[treatment].columns.items():
            shape = column.shape(1, zoo[treatment].layout.size)[1:]
            assert (fields[name].get("isArray"), fields[name].get("arrayShape")) == (
                (True, str(shape[0])) if shape else (None, None)
            )
            arrays += len(shape)
            assert fields[name]["description"].startswith(column.meaning)
            assert column.unit in fields[name]["description"]
    assert arrays == 3 * 6 + 2  # weights and curves; mask and constants of each network
    assert "Unit: second." in fields["seconds"]["description"]
    treatment_column = {field["name"]: field for field in described[METADATA]["field"]}["treatment"]
    assert treatment_column["description"] == "Name of the treatment."


RESPONSIBLE = [
    "rai:dataLimitations",
    "rai:dataBiases",
    "rai:personalSensitiveInformation",
    "rai:dataUseCases",
    "rai:dataSocialImpact",
    "rai:hasSyntheticData",
    "prov:wasDerivedFrom",
    "prov:wasGeneratedBy",
]


def test_the_fields_on_responsible_use_are_present_in_their_vocabularies(zoo, dataset, description):
    assert all(description[name] for name in RESPONSIBLE)
    predicates = set(map(str, rdflib.Graph().parse(data=json.dumps(description), format="json-ld").predicates()))
    spaces = {"rai": "http://mlcommons.org/croissant/RAI/", "prov": "http://www.w3.org/ns/prov#"}
    for name in RESPONSIBLE:
        prefix, _, local = name.partition(":")
        assert spaces[prefix] + local in predicates
    assert "http://mlcommons.org/croissant/RAI/1.0" in description["conformsTo"]
    assert description["rai:hasSyntheticData"] is True
    assert dataset.metadata.data_limitations == description["rai:dataLimitations"]
    assert dataset.metadata.data_social_impact == description["rai:dataSocialImpact"]


def test_the_origin_names_the_data_and_the_recipe(zoo, description):
    (source,) = description["prov:wasDerivedFrom"]
    assert (source["name"], source["url"]) == SOURCES["digits"]
    (training,) = description["prov:wasGeneratedBy"]
    assert zoo.manifest.digest in training["description"]
    assert f"torch {zoo.manifest.versions['torch']}" in training["description"]


def test_every_data_set_has_a_name_and_a_page():
    assert SOURCES.keys() == DATASETS.keys()
    assert all(url.startswith("https://") for _, url in SOURCES.values())


def test_treatment_and_pair_are_the_key_of_a_network(zoo, description):
    keys = {each["name"]: each["key"] for each in description["recordSet"]}
    assert all(keys[treatment] == [{"@id": f"{treatment}/pair"}] for treatment in zoo.treatments)
    assert keys[METADATA] == [{"@id": f"{METADATA}/treatment"}, {"@id": f"{METADATA}/pair"}]


def test_croissant_and_card_agree(zoo, exported, description):
    card = DatasetCard.load(exported / "README.md")
    kind, version = re.fullmatch(r"cc-(.*)-([\d.]+)", card.data.license).groups()
    assert description["license"] == f"https://creativecommons.org/licenses/{kind}/{version}/"
    assert description["creator"]["name"] in description["citeAs"]
    assert description["keywords"] == card.data.tags
    assert f"```bibtex\n{description['citeAs']}```" in card.text
    repository = description["url"].removeprefix("https://huggingface.co/datasets/")
    assert f'load_dataset("{repository}", ' in card.text
    assert description["datePublished"] == zoo.manifest.created
    assert [each["name"] for each in description["recordSet"][1:]] == [*zoo.treatments, METADATA]
