"""The seal protects the manifest, and the manifest protects every file of a zoo."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from zoo import Recipe, generate, open_zoo, verify
from zoo.errors import ZooError
from zoo.store.manifest import Manifest, reseal
from zoo.training.planning import begin

CONSTANTS = ("w_asymmetric/constants.safetensors", "sigma_asymmetric/constants.safetensors")
POSITIONS = 10  # of each file in which a bit is flipped

NONSENSE = {
    "empty": b"",
    "noise": bytes(range(256)),
    "nothing": b"null",
    "list": b"[]",
    "table": b"{}",
    "recipe of no kind": b'{"recipe": 3}',
    "empty recipe": b'{"recipe": {}}',
    "deep": b"[" * 100_000,
}


def flipped(content, position, bit):
    """Return the content with one bit changed."""
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def paths_of(zoo):
    return [path for path in sorted(zoo.folder.rglob("*")) if path.is_file()]


def edit(folder, change):
    """Change values in `zoo.json` as an editor does, so that the seal no longer matches."""
    values = json.loads((folder / "zoo.json").read_text())
    change(values)
    (folder / "zoo.json").write_text(json.dumps(values, indent=1))


@pytest.fixture
def begun(tiny_recipe, tmp_path):
    """The folder of a zoo without networks."""
    begin(tiny_recipe.only(["standard"])).write(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def small(tiny_recipe, tmp_path_factory):
    """A zoo of two pairs under two treatments; for reading only."""
    recipe = tiny_recipe.only(["standard", "w_asymmetric"]).model_copy(update={"pairs": 2})
    return generate(recipe, tmp_path_factory.mktemp("zoos") / "small")


@pytest.fixture
def small_copy(small, tmp_path):
    """A copy of the small zoo in its own folder."""
    return open_zoo(shutil.copytree(small.folder, tmp_path / "small"))


def describe(values):
    values["recipe"]["description"] = "In other words."


def reseed(values):
    values["recipe"]["seed"] = 77


# --- A changed bit


def test_a_flipped_bit_in_any_byte_of_the_manifest_is_found(begun, monkeypatch):
    content, passed = (begun / "zoo.json").read_bytes(), []
    bits = np.random.default_rng(0).integers(0, 8, len(content)).tolist()
    for position, bit in enumerate(bits):
        changed = flipped(content, position, bit)
        monkeypatch.setattr(Path, "read_bytes", lambda path, changed=changed: changed)  # no file each time
        with suppress(ZooError):
            passed.append(Manifest.read(begun))
    assert passed == []
    monkeypatch.undo()
    assert Manifest.read(begun).name == "tiny"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: text.replace("\n ", "\n  "),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: " " + text,
        lambda text: text.replace("tiny", "Tiny"),
        lambda text: text.replace(text[12:76], text[12:76].upper()),  # the seal
        lambda text: json.dumps(json.loads(text)),
        lambda text: text[:-1],
        lambda text: text.replace(text[:79], "{\n"),
    ],
    ids=["end", "indent", "line ends", "begin", "letter case", "case of the seal", "one line", "cut", "no seal"],
)
def test_whitespace_and_letter_case_count(begun, change):
    path = begun / "zoo.json"
    before = path.read_bytes().decode()
    path.write_bytes(change(before).encode())
    assert path.read_bytes().decode() != before
    with pytest.raises(ZooError, match="altered"):
        Manifest.read(begun)


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_flipped_bit_in_constants_is_found_at_opening(tiny_copy, name):
    path, rng = tiny_copy.folder / name, np.random.default_rng(0)
    content = path.read_bytes()
    for position in (0, len(content) - 1, *rng.integers(0, len(content), POSITIONS).tolist()):
        path.write_bytes(flipped(content, position, int(rng.integers(8))))
        with pytest.raises(ZooError, match="its checksum differs") as caught:
            open_zoo(tiny_copy.folder)
        assert str(caught.value).startswith(f"{path}: ")


def test_a_flipped_bit_in_any_file_is_found_by_opening_or_verify(tiny_copy):
    rng = np.random.default_rng(0)
    for path in paths_of(tiny_copy):
        content = path.read_bytes()
        for position in (0, len(content) - 1, *rng.integers(0, len(content), POSITIONS).tolist()):
            path.write_bytes(flipped(content, position, int(rng.integers(8))))
            with pytest.raises(ZooError, match=r"altered|checksum differs") as caught:
                verify(open_zoo(tiny_copy.folder))
            assert str(caught.value).startswith(f"{path}: ")
        path.write_bytes(content)
    open_zoo(tiny_copy.folder)


# --- Sealing again


def test_resealing_after_an_edit_of_the_description_keeps_the_digest(small_copy, asymzoo):
    edit(small_copy.folder, describe)
    with pytest.raises(ZooError, match="if you edited it, run `asymzoo zoo reseal` on the folder"):
        open_zoo(small_copy.folder)
    code, output, errors = asymzoo("zoo", "reseal", small_copy.folder)
    digest = small_copy.manifest.digest
    assert (code, errors) == (0, "")
    assert output == f"{small_copy.folder / 'zoo.json'}: sealed, recipe digest {digest}\n"
    again = open_zoo(small_copy.folder)
    assert (again.manifest.description, again.manifest.digest) == ("In other words.", digest)
    assert again.manifest.files == small_copy.manifest.files


def test_resealing_after_an_edit_of_the_seed_gives_a_new_digest(small_copy):
    edit(small_copy.folder, reseed)
    reseal(small_copy.folder)
    again, recipe = open_zoo(small_copy.folder), Recipe.of(small_copy).model_copy(update={"seed": 77})
    assert again.manifest.digest == recipe.digest != small_copy.manifest.digest


def test_resealing_an_unedited_manifest_changes_no_byte(small_copy):
    path = small_copy.folder / "zoo.json"
    before = path.read_bytes()
    reseal(small_copy.folder)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_neither_opened_nor_resealed(tmp_path, asymzoo, content):
    path = tmp_path / "zoo.json"
    path.write_bytes(content)
    for command in ("info", "reseal"):
        code, output, errors = asymzoo("zoo", command, tmp_path)
        assert (code, output) == (2, "")
        assert errors.startswith(f"asymzoo: {path}: ")
        assert errors.count("\n") == 1
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("field", "value", "fact"),
    [
        ("created", "yesterday", "created: Invalid isoformat string"),
        ("schema_version", 3, "has format 3, not 2; install a newer asymzoo"),
        ("layouts", {}, "layouts and sites must have the treatments of recipe.treatments"),
        ("files", [{"path": "../x"}], "files.0.path: is outside the zoo's folder"),
    ],
)
def test_a_manifest_that_is_not_valid_is_not_resealed(small_copy, field, value, fact):
    edit(small_copy.folder, lambda values: values.update({field: value}))
    before = (small_copy.folder / "zoo.json").read_bytes()
    with pytest.raises(ZooError) as caught:
        reseal(small_copy.folder)
    assert str(caught.value).startswith(f"{small_copy.folder / 'zoo.json'}: {fact}")
    assert (small_copy.folder / "zoo.json").read_bytes() == before


def test_resealing_a_folder_without_a_zoo_is_an_error(tmp_path):
    with pytest.raises(ZooError, match=r"is not a zoo, zoo\.json cannot be read"):
        reseal(tmp_path)


# --- Growing


def test_a_growing_zoo_keeps_fields_of_later_versions(small_copy, edit_manifest):
    def places(values):
        (shard,) = [file for file in values["files"] if file["path"] == "standard/00000.h5"]
        return values, values["columns"][0], shard, shard["mode"]

    def add(values):
        for place in places(values):
            place["of_the_future"] = {"a": [1, 2.5, None]}

    edit_manifest(small_copy.folder, add)
    recipe = Recipe.of(small_copy).model_copy(update={"pairs": 3})
    assert len(generate(recipe, small_copy.folder)) == 3
    values = json.loads((small_copy.folder / "zoo.json").read_text())
    assert len(values["files"]) == len(small_copy.manifest.files) + 2
    for place in places(values):
        assert place["of_the_future"] == {"a": [1, 2.5, None]}


def test_a_zoo_with_a_column_that_generate_cannot_fill_does_not_grow(small_copy, edit_manifest):
    def add(values):
        values["columns"].append({"name": "beauty", "kind": "metric", "dtype": "float32"})

    edit_manifest(small_copy.folder, add)
    before = (small_copy.folder / "zoo.json").read_bytes()
    recipe = Recipe.of(small_copy).model_copy(update={"pairs": 3})
    with pytest.raises(ZooError, match="has a column 'beauty' that `generate` cannot fill; choose another folder"):
        generate(recipe, small_copy.folder)
    assert (small_copy.folder / "zoo.json").read_bytes() == before
