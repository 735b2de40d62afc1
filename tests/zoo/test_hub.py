import hashlib
import re
import shutil
from html import unescape
from importlib.metadata import version
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from tests.zoo.test_generation import assert_same
from zoo import hub, open_zoo
from zoo.card import CITATION, card
from zoo.errors import ZooError
from zoo.hub import METADATA, export_zoo, import_zoo

ROOT = Path(__file__).parents[2]
HOSTILE = [
    "# a <script>alert(1)</script> | `b` \n\n# c *d* __e__ [f](javascript:g) ![h](i.png) &lt; \\ ~~j~~ {{ k }} <!--",
    "- a\n| b | c |\n|---|---|\n| d | e |\n```\n<img src=x onerror=f()>\n---\n",
    "1. $a$ \u2028 \u202e <details>\x1b\n    b",
]


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory):
    """Nothing is cached where others would find it, and nobody wants to see the bars."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        datasets.disable_progress_bars()
        yield
        datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def exported(tiny_zoo, tmp_path_factory):
    return export_zoo(tiny_zoo, tmp_path_factory.mktemp("hub") / "zoo")


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_the_same_bits_and_fields_with_no_code_of_ours(tiny_zoo, exported, streaming):
    for treatment in tiny_zoo.treatments:
        loaded = datasets.load_dataset(str(exported), treatment, streaming=streaming)
        numbers = []
        for split, networks in loaded.items():
            for network in networks.with_format("numpy"):
                i = int(network["pair"])
                numbers.append(i)
                assert tiny_zoo.field(treatment, "split")[i] == split
                for name, initial in (("weights", False), ("initial_weights", True)):
                    row = tiny_zoo.rows(treatment, i, initial=initial).numpy()
                    assert np.array_equal(network[name].view(np.int32), row.view(np.int32))
                for name in set(tiny_zoo.fields(treatment)) - {"split", "status"}:
                    np.testing.assert_array_equal(network[name], tiny_zoo.field(treatment, name)[i])
        assert sorted(numbers) == list(range(len(tiny_zoo)))


def test_rows_come_as_tensors_of_a_fixed_length(tiny_zoo, exported):
    networks = datasets.load_dataset(str(exported), "standard", split="train").with_format("torch")
    size = tiny_zoo.treated("standard").layout.size
    assert networks.features["weights"] == datasets.List(datasets.Value("float32"), length=size)
    assert networks[:2]["weights"].shape == (2, size)
    assert torch.equal(networks[0]["weights"], tiny_zoo.rows("standard", int(networks[0]["pair"])))


def test_metadata_has_all_networks_and_no_weights(tiny_zoo, exported):
    loaded = datasets.load_dataset(str(exported), METADATA)
    whole = datasets.concatenate_datasets(list(loaded.values())).to_pandas().set_index(["treatment", "pair"])
    assert len(whole) == len(tiny_zoo) * len(tiny_zoo.treatments)
    for treatment in tiny_zoo.treatments:
        own = whole.loc[treatment].sort_index()["metrics/test_accuracy"]
        np.testing.assert_array_equal(own, tiny_zoo.field(treatment, "metrics/test_accuracy"))
    assert not any(name.startswith(("weights", "initial", "curves")) for name in whole.columns)


@pytest.mark.parametrize("group", [1, 10_000, 100 << 20])
def test_there_and_back_is_the_same_zoo(tiny_zoo, tmp_path, monkeypatch, group):
    monkeypatch.setattr(hub, "ROW_GROUP", group)
    counts = {"out": 0, "in": 0}
    export_zoo(tiny_zoo, tmp_path / "hub", progress=lambda n: counts.update(out=counts["out"] + n))
    back = import_zoo(tmp_path / "hub", tmp_path / "zoo", progress=lambda n: counts.update({"in": counts["in"] + n}))
    assert counts == dict.fromkeys(counts, len(tiny_zoo) * len(tiny_zoo.treatments))
    assert_same(back, tiny_zoo)
    assert back.manifest.digest == tiny_zoo.manifest.digest
    for treatment in tiny_zoo.treatments:
        np.testing.assert_array_equal(back.field(treatment, "seconds"), tiny_zoo.field(treatment, "seconds"))
        for name, held in tiny_zoo.treated(treatment).held.items():
            assert torch.equal(back.treated(treatment).held[name], held)


def test_row_groups_are_no_larger_than_they_should_be(tiny_zoo, tmp_path, monkeypatch):
    size = 8 * tiny_zoo.treated("standard").layout.size
    monkeypatch.setattr(hub, "ROW_GROUP", 2 * size)
    folder = export_zoo(tiny_zoo, tmp_path / "hub")
    file = pq.read_metadata(folder / "standard" / "train.parquet")
    rows = [file.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert max(rows) == 2
    assert sum(rows) == (tiny_zoo.field("standard", "split") == "train").sum()


def test_the_card_says_what_is_there(tiny_zoo, exported):
    found = DatasetCard.load(exported / "README.md")
    assert {each["config_name"] for each in found.data.configs} == {*tiny_zoo.treatments, METADATA}
    for described in found.data.dataset_info:
        builder = datasets.load_dataset_builder(str(exported), described["config_name"])
        assert builder.info.features is not None
        for split in described["splits"]:
            path = exported / described["config_name"] / f"{split['name']}.parquet"
            assert split["num_examples"] == pq.read_metadata(path).num_rows
    assert tiny_zoo.manifest.digest in found.text
    for treatment in tiny_zoo.treatments:
        assert f"| `{treatment}` | {len(tiny_zoo)} |" in found.text


def test_the_card_of_the_family_is_that_of_the_template():
    assert (ROOT / "DATASET_CARD.md").read_text() == card()


def test_the_card_shows_a_small_figure(exported):
    ((name, _),) = re.findall(r"!\[[^\]]+\]\((\S+)\)(.*)", (exported / "README.md").read_text())
    assert (exported / name).read_bytes().startswith(b"\x89PNG")
    assert (exported / name).stat().st_size < 100_000


def test_a_zoo_whose_networks_all_diverged_has_a_figure_and_a_card(diverged_zoo, tmp_path):
    folder = export_zoo(diverged_zoo, tmp_path / "hub")
    assert (folder / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert "nan (nan to nan)" in (folder / "README.md").read_text()


def shown(text):
    """The words that a reader of a card sees, and the kinds of elements that hold them."""
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    words = unescape(re.sub(r"<[^>]*>", " ", html))
    return " ".join(words.split()), re.findall(r"</?(\w+)", html)


@pytest.mark.parametrize("words", HOSTILE)
def test_words_of_a_stranger_are_shown_as_they_stand(tiny_copy, edit_manifest, words):
    def say(words):
        edit_manifest(tiny_copy.folder, lambda values: values["recipe"].update(description=words))
        edit_manifest(tiny_copy.folder, lambda values: values.update(versions={"torch": words}))
        return shown(card(open_zoo(tiny_copy.folder)).split("---\n", 2)[2])

    seen, elements = say(words)
    plain = " ".join(re.sub(r"[\u202e\x1b]", " ", words).split())
    assert f"{plain} Paired model zoos" in seen
    assert f"made with torch {plain}. The same recipe" in seen
    assert elements == say("harmless")[1]


@pytest.mark.parametrize("name", ["<script>", "a|b", "a`b", "a\nb", "../a", "a\n", "A", "a-b", ""])
def test_no_treatment_has_a_name_that_a_card_or_a_path_would_read_otherwise(tiny_copy, edit_manifest, name):
    def rename(values):
        values["recipe"]["treatments"][name] = values["recipe"]["treatments"].pop("standard")

    edit_manifest(tiny_copy.folder, rename)
    with pytest.raises(ZooError, match=r"(?s)recipe\.treatments\..*restore it from a copy"):
        open_zoo(tiny_copy.folder)


def test_the_citation_is_that_of_the_repository():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = cited["references"]
    ours, theirs = (dict(re.findall(r"(\w+) = \{(.*)\}", entry)) for entry in CITATION.split("\n\n"))
    (author,) = cited["authors"]
    assert ours["title"].replace("{", "").replace("}", "") == cited["title"]
    assert ours["author"] == f"{{{author['name']}}}"
    assert ours["version"] == str(cited["version"]) == version("asymzoo")
    assert theirs["title"] == paper["title"]
    assert theirs["year"] == str(paper["year"])
    assert theirs["booktitle"] == paper["collection-title"]
    assert theirs["author"] == " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"])


def test_a_folder_that_holds_something_is_left_alone(tiny_zoo, exported, tmp_path):
    (tmp_path / "mine").write_text("mine")
    for work in (lambda: export_zoo(tiny_zoo, tmp_path), lambda: import_zoo(exported, tmp_path)):
        with pytest.raises(ZooError, match=r"is not empty; choose another folder$"):
            work()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_in_the_place_of_the_folder_is_one_clear_error(tiny_zoo, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ZooError, match=r"file: cannot be used \(Not a directory\); choose another folder$"):
        export_zoo(tiny_zoo, tmp_path / "file")


def replace(path, change):
    """Write a Parquet file anew, its table changed."""
    table = change(pq.read_table(path))
    pq.write_table(table, path)


def add_zeros(path):
    """Write a Parquet file anew with a column of zeros, which take much room when unpacked."""
    table = pq.read_table(path)
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(50_000 * len(table), np.float32)), 50_000)
    pq.write_table(table.append_column("curves/zeros", zeros), path, compression="zstd", use_dictionary=False)


@pytest.mark.parametrize(
    ("damage", "fact"),
    [
        (lambda copy: (copy / "standard/train.parquet").unlink(), r"standard: has \d+ networks instead of \d+"),
        (lambda copy: (copy / "standard/train.parquet").write_bytes(b"PAR1"), r"train\.parquet: cannot be read"),
        (
            lambda copy: replace(copy / "standard/train.parquet", lambda t: pa.concat_tables([t[1:], t[1:2]])),
            r"standard: has not each of the pairs \d+ to \d+ once",
        ),
        (
            lambda copy: [
                replace(path, lambda t: t.drop_columns("weights")) for path in (copy / "standard").glob("*.parquet")
            ],
            r"standard/\w+\.parquet: weights is no list of [\d,]+ float32",
        ),
        (lambda copy: add_zeros(copy / "standard/train.parquet"), r"train\.parquet: unpacks to [\d.]+ GB"),
        (
            lambda copy: (copy / "w_asymmetric/constants.safetensors").unlink(),
            r"constants\.safetensors: is not the file",
        ),
        (
            lambda copy: (copy / "w_asymmetric/constants.safetensors").write_bytes(
                bytes((copy / "w_asymmetric/constants.safetensors").stat().st_size)
            ),
            r"constants\.safetensors: is not the file",
        ),
        (lambda copy: (copy / "zoo.json").unlink(), r"no zoo here"),
    ],
)
def test_a_damaged_data_set_is_one_clear_error(copy, tmp_path, damage, fact):
    damage(copy)
    with pytest.raises(ZooError, match=fact) as error:
        import_zoo(copy, tmp_path / "zoo")
    assert "\n" not in str(error.value)
    with pytest.raises(ZooError):
        open_zoo(tmp_path / "zoo")


def test_the_zoo_that_is_exported_is_not_touched(tiny_zoo, tmp_path):
    def digests():
        return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in tiny_zoo.folder.rglob("*") if p.is_file()}

    before = digests()
    export_zoo(tiny_zoo, tmp_path / "hub")
    assert digests() == before
