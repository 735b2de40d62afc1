import hashlib
import json
import re
import shutil
import sys
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

from tests.zoo.training.test_generation import assert_same
from zoo import open_zoo
from zoo.errors import ExtraError, ZooError
from zoo.sharing import export as exporting
from zoo.sharing.card import CITATION, card, draw_accuracies
from zoo.sharing.configuration import METADATA
from zoo.sharing.export import export_zoo
from zoo.sharing.importers.hf import import_zoo
from zoo.store.columns import KNOWN, WEIGHTS

pytestmark = pytest.mark.usefixtures("own_cache")
ROOT = Path(__file__).parents[3]
HOSTILE = [
    "# a <script>alert(1)</script> | `b` \n\n# c *d* __e__ [f](javascript:g) ![h](i.png) &lt; \\ ~~j~~ {{ k }} <!--",
    "- a\n| b | c |\n|---|---|\n| d | e |\n```\n<img src=x onerror=f()>\n---\n",
    "1. $a$ \u2028 \u202e <details>\x1b\n    b",
]


@pytest.fixture(scope="module")
def exported(tiny_zoo, tmp_path_factory):
    return export_zoo(tiny_zoo, tmp_path_factory.mktemp("hub") / "zoo")


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_the_same_bits_and_columns_without_this_package(tiny_zoo, exported, streaming):
    for treatment in tiny_zoo.treatments:
        loaded = datasets.load_dataset(str(exported), treatment, streaming=streaming)
        numbers = []
        for split, networks in loaded.items():
            for network in networks.with_format("numpy"):
                i = int(network["pair"])
                numbers.append(i)
                known = tiny_zoo[treatment][i]
                assert known["split"] == split
                for name in WEIGHTS:
                    assert np.array_equal(network[name].view(np.int32), known[name].view(np.int32))
                for name in known.keys() - {"split", "status"}:
                    np.testing.assert_array_equal(network[name], known[name])
        assert sorted(numbers) == list(range(len(tiny_zoo)))


def test_rows_come_as_tensors_of_a_fixed_length(tiny_zoo, exported):
    networks = datasets.load_dataset(str(exported), "standard", split="train").with_format("torch")
    size = tiny_zoo["standard"].layout.size
    assert networks.features["weights"] == datasets.List(datasets.Value("float32"), length=size)
    assert networks[:2]["weights"].shape == (2, size)
    assert torch.equal(networks[0]["weights"], tiny_zoo["standard"].weights[int(networks[0]["pair"])])


def test_metadata_has_all_networks_and_no_weights(tiny_zoo, exported):
    loaded = datasets.load_dataset(str(exported), METADATA)
    whole = datasets.concatenate_datasets(list(loaded.values())).to_pandas().set_index(["treatment", "pair"])
    assert len(whole) == len(tiny_zoo) * len(tiny_zoo.treatments)
    for treatment in tiny_zoo.treatments:
        own = whole.loc[treatment].sort_index()["test_accuracy"]
        np.testing.assert_array_equal(own, tiny_zoo[treatment]["test_accuracy"])
    assert not any(name.startswith(("weights", "initial", "curves")) for name in whole.columns)


@pytest.mark.parametrize("group", [1, 10_000, 100 << 20])
def test_export_and_import_give_the_same_zoo(tiny_zoo, tmp_path, monkeypatch, group):
    monkeypatch.setattr(exporting, "ROW_GROUP", group)
    counts = {"out": 0, "in": 0}
    export_zoo(tiny_zoo, tmp_path / "hub", progress=lambda n: counts.update(out=counts["out"] + n))
    back = import_zoo(tmp_path / "hub", tmp_path / "zoo", progress=lambda n: counts.update({"in": counts["in"] + n}))
    assert counts == dict.fromkeys(counts, len(tiny_zoo) * len(tiny_zoo.treatments))
    assert_same(back, tiny_zoo)
    assert back.manifest.digest == tiny_zoo.manifest.digest
    for treatment in tiny_zoo.treatments:
        np.testing.assert_array_equal(back[treatment]["seconds"], tiny_zoo[treatment]["seconds"])
        for name, held in tiny_zoo.shared(treatment).held.items():
            assert torch.equal(back.shared(treatment).held[name], held)


def test_row_groups_are_not_larger_than_the_limit(tiny_zoo, tmp_path, monkeypatch):
    size = 8 * tiny_zoo["standard"].layout.size
    monkeypatch.setattr(exporting, "ROW_GROUP", 2 * size)
    folder = export_zoo(tiny_zoo, tmp_path / "hub")
    file = pq.read_metadata(folder / "standard" / "train.parquet")
    rows = [file.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert max(rows) == 2
    assert sum(rows) == (tiny_zoo["standard"]["split"] == "train").sum()


def test_the_card_describes_the_zoo(tiny_zoo, exported):
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


def test_the_card_has_a_table_of_the_columns(tiny_zoo, exported):
    text = (exported / "README.md").read_text().partition("| column |")[2]
    rows = re.findall(r"^\| `(\w+)` \| (\w+)(?: \(([^)]+)\))? \| (\w*) \| (.+) \|$", text, re.MULTILINE)
    assert [name for name, *_ in rows] == [column.name for column in tiny_zoo.manifest.columns]
    for (_, dtype, width, unit, meaning), column in zip(rows, tiny_zoo.manifest.columns, strict=True):
        assert (dtype, width, unit) == (
            column.dtype,
            {"parameters": "P", None: ""}.get(column.width, str(column.width)),
            column.unit,
        )
        assert meaning == column.meaning
    assert ("curve_test_loss", "float32", "3", "nat") in [row[:4] for row in rows]


def test_the_card_of_all_zoos_has_all_known_columns():
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+(?: \([^)]+\))?) \|", card(), re.MULTILINE))
    assert set(KNOWN) <= set(rows)
    assert (rows["weights"], rows["curve_test_loss"], rows["pair"]) == ("float32 (P)", "float32 (epochs)", "int64")


def test_hostile_text_in_a_column_is_shown_literally(tiny_copy, edit_manifest):
    def say(words):
        def change(values):
            (seconds,) = [column for column in values["columns"] if column["name"] == "seconds"]
            seconds |= {"meaning": words, "unit": words}

        edit_manifest(tiny_copy.folder, change)
        return shown(card(open_zoo(tiny_copy.folder)).split("---\n", 2)[2])

    for words in HOSTILE:
        seen, elements = say(words)
        plain = " ".join(re.sub(r"[\u202e\x1b]", " ", words).split())
        assert f"seconds float32 {plain} {plain} learning_rate" in seen
        assert elements == say("harmless")[1]


@pytest.mark.parametrize(("package", "work"), [("jinja2", lambda zoo: card()), ("matplotlib.figure", draw_accuracies)])
def test_the_error_names_the_extra_that_installs_a_missing_package(tiny_zoo, monkeypatch, package, work):
    monkeypatch.setitem(sys.modules, package, None)
    name = package.partition(".")[0]
    with pytest.raises(ExtraError, match=rf"^{name} is not installed; pip install 'asymzoo\[report\]'$"):
        work(tiny_zoo)


def test_the_card_of_all_zoos_is_the_rendered_template():
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
    """Return the text that a reader of a card sees, and the HTML elements that contain it."""
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    words = unescape(re.sub(r"<[^>]*>", " ", html))
    return " ".join(words.split()), re.findall(r"</?(\w+)", html)


@pytest.mark.parametrize("words", HOSTILE)
def test_hostile_text_in_the_manifest_is_shown_literally(tiny_copy, edit_manifest, words):
    def say(words):
        edit_manifest(tiny_copy.folder, lambda values: values["recipe"].update(description=words))
        edit_manifest(tiny_copy.folder, lambda values: values.update(versions={"torch": words}))
        return shown(card(open_zoo(tiny_copy.folder)).split("---\n", 2)[2])

    seen, elements = say(words)
    plain = " ".join(re.sub(r"[\u202e\x1b]", " ", words).split())
    assert f"{plain} Paired model zoos" in seen
    assert f"Versions: torch {plain}. The same recipe" in seen
    assert elements == say("harmless")[1]


@pytest.mark.parametrize("name", ["<script>", "a|b", "a`b", "a\nb", "../a", "a\n", "A", "a-b", ""])
def test_names_of_treatments_are_safe_in_cards_and_paths(tiny_copy, edit_manifest, name):
    def rename(values):
        values["recipe"]["treatments"][name] = values["recipe"]["treatments"].pop("standard")

    edit_manifest(tiny_copy.folder, rename)
    with pytest.raises(
        ZooError, match=r"zoo\.json: recipe\.treatments: .* is not a valid name of a treatment; restore it from a copy"
    ):
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


def test_a_folder_that_is_not_empty_is_refused_and_unchanged(tiny_zoo, exported, tmp_path):
    (tmp_path / "mine").write_text("mine")
    for work in (lambda: export_zoo(tiny_zoo, tmp_path), lambda: import_zoo(exported, tmp_path)):
        with pytest.raises(ZooError, match=r"is not empty; choose another folder$"):
            work()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_at_the_path_of_the_folder_is_one_clear_error(tiny_zoo, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ZooError, match=r"file: cannot be used \(Not a directory\); choose another folder$"):
        export_zoo(tiny_zoo, tmp_path / "file")


def list_again(folder):
    """Write the checksums of changed Parquet files into the metadata, as a forger would."""
    path = folder / "croissant.json"
    values = json.loads(path.read_text())
    for file in values["distribution"]:
        if file["@type"] == "cr:FileObject" and (folder / file["contentUrl"]).is_file():
            file["sha256"] = hashlib.sha256((folder / file["contentUrl"]).read_bytes()).hexdigest()
    path.write_text(json.dumps(values))


def replace(path, change):
    """Write a Parquet file again with a changed table."""
    table = change(pq.read_table(path))
    pq.write_table(table, path)


def add_zeros(path):
    """Write a Parquet file again with a column of zeros, which is much larger when it is unpacked."""
    table = pq.read_table(path)
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(50_000 * len(table), np.float32)), 50_000)
    pq.write_table(table.append_column("curve_zeros", zeros), path, compression="zstd", use_dictionary=False)


def refuse_import(copy, folder, fact):
    """Assert that `import_zoo` refuses with one line and leaves nothing behind."""
    with pytest.raises(ZooError, match=fact) as error:
        import_zoo(copy, folder)
    assert "\n" not in str(error.value)
    assert [path.name for path in folder.parent.iterdir()] == [copy.name]


@pytest.mark.parametrize(
    ("damage", "fact"),
    [
        (lambda copy: (copy / "standard/train.parquet").unlink(), r"standard: has \d+ networks instead of \d+"),
        (lambda copy: (copy / "standard/train.parquet").write_bytes(b"PAR1"), r"train\.parquet: cannot be read"),
        (
            lambda copy: replace(copy / "standard/train.parquet", lambda t: pa.concat_tables([t[1:], t[1:2]])),
            r"standard: does not have each of the pairs \d+ to \d+ once",
        ),
        (
            lambda copy: [
                replace(path, lambda t: t.drop_columns("weights")) for path in (copy / "standard").glob("*.parquet")
            ],
            r"standard/\w+\.parquet: weights is not a column of type fixed_size_list<[^>]*float[^>]*>\[\d+\]",
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
        (lambda copy: (copy / "zoo.json").unlink(), r"is not a zoo"),
    ],
)
def test_a_forged_data_set_is_one_clear_error(copy, tmp_path, damage, fact):
    """Checksums can be forged as well."""
    damage(copy)
    list_again(copy)
    refuse_import(copy, tmp_path / "zoo", fact)


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        *[
            (f"{part}/train.parquet", rf"{part}/train\.parquet: is not the file that croissant\.json lists")
            for part in ("standard", "sigma_asymmetric", METADATA)
        ],
        ("w_asymmetric/constants.safetensors", r"constants\.safetensors: is not the file that zoo\.json lists"),
        ("zoo.json", r"zoo\.json: "),
    ],
)
def test_one_flipped_bit_is_found_wherever_it_is(copy, tmp_path, name, fact):
    path = copy / name
    content = path.read_bytes()
    for bit in np.linspace(0, 8 * len(content) - 1, 9).astype(int).tolist():
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        refuse_import(copy, tmp_path / "zoo", fact)
    path.write_bytes(content)
    import_zoo(copy, tmp_path / "zoo")


def test_one_flipped_bit_in_a_listed_checksum_is_found(copy, tmp_path):
    path = copy / "croissant.json"
    content = path.read_bytes()
    found = list(re.finditer(rb'"contentUrl": "([^"]+)"|"sha256": "(\w+)"', content))
    assert len(found) == 2 * len(list(copy.glob("*/*.parquet")))
    for match in found:
        place = match.end() - 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        refuse_import(copy, tmp_path / "zoo", r"parquet: is not the file that croissant\.json lists")


def test_an_export_without_metadata_is_imported_as_downloaded_from_the_hub(copy, tiny_zoo, tmp_path):
    shutil.rmtree(copy / METADATA)
    assert_same(import_zoo(copy, tmp_path / "zoo"), tiny_zoo)


def test_an_export_does_not_change_the_zoo(tiny_zoo, tmp_path):
    def digests():
        return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in tiny_zoo.folder.rglob("*") if p.is_file()}

    before = digests()
    export_zoo(tiny_zoo, tmp_path / "hub")
    assert digests() == before
