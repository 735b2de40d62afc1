"""Imports of folders with one file for each network, damaged and forged files, and the command `import`."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from zoo import generate, load_data, verify
from zoo.errors import AsymZooError, ZooError
from zoo.recipes.recipe import Recipe
from zoo.sharing.export import export_zoo
from zoo.sharing.importers import IMPORTERS, import_folder
from zoo.sharing.importers.files import inside
from zoo.sharing.importers.hf import import_zoo
from zoo.store.shards import CONSTANTS

FIELDS = ("learning_rate", "weight_decay", "label_smoothing", "epochs")
TOML = """
name = "mine"
data = { name = "digits", train_limit = 512 }
architecture = { name = "mlp", widths = [64, 8, 8, 10] }
"""
TREATMENTS = {
    "standard": "",
    "w_asymmetric": 'treatments.w_asymmetric = { kind = "w_asymmetric", n_fix = [4, 3, 2] }',
    "sigma_asymmetric": 'treatments.mixed = { kind = "sigma_asymmetric" }',
    "syre": 'treatments.syre = { kind = "syre" }',
}


class Bomb:
    """An object that makes a folder when its pickle is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def refuse(importer, source, out, fact, **options):
    """Assert that an importer refuses with one line and leaves nothing behind."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(AsymZooError, match=fact) as error:
        importer(source, out, **options)
    assert "\n" not in str(error.value)
    assert sorted(out.parent.iterdir()) == before


def scatter(zoo, treatment, folder, index=None):
    """Write networks of a zoo as a folder to import: a file for each state_dict, in both formats, and a table.

    With an index, which may name a network more than once, their units are in random order.
    """
    folder.mkdir()
    networks = zoo[treatment] if index is None else zoo[treatment][index]
    files, stack = [], networks.stack()
    if index is not None:
        stack = stack.permute(stack.layout.random_permutations(np.random.default_rng(0), len(stack)))
    for i in range(len(stack)):
        state = stack.network(i).state_dict()
        files.append(f"{i}.pt" if i % 2 else f"{i}.safetensors")
        if i % 2:
            torch.save(state, folder / files[-1])
        else:
            safetensors.torch.save_file({name: t.contiguous() for name, t in state.items()}, folder / files[-1])
    columns = {name: networks[name] for name in (*FIELDS, "test_accuracy", "test_loss")}
    pd.DataFrame({"file": files} | columns).to_csv(folder / "labels.csv", index=False)
    (folder / "recipe.toml").write_text(TOML + TREATMENTS[treatment])
    if (zoo.folder / treatment / CONSTANTS).exists():
        shutil.copy(zoo.folder / treatment / CONSTANTS, folder)
    return folder


@pytest.fixture
def mine(tiny_zoo, tmp_path):
    """A folder of standard networks, which a test may damage."""
    return scatter(tiny_zoo, "standard", tmp_path / "mine")


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_networks_from_separate_files_are_imported_bit_for_bit_and_measure_as_before(
    tiny_zoo, tmp_path, monkeypatch, treatment
):
    monkeypatch.setattr("zoo.training.planning.SHARD_BYTES", 1)  # a network a shard
    done = []
    zoo = import_folder(scatter(tiny_zoo, treatment, tmp_path / "mine"), tmp_path / "zoo", progress=done.append)
    (own,) = zoo.treatments
    assert done == [1] * len(tiny_zoo)
    assert torch.equal(zoo[own].weights[:], tiny_zoo[treatment].weights[:])
    x = torch.randn(5, 64)
    assert torch.equal(zoo[own].stack().logits(x), tiny_zoo[treatment].stack().logits(x))
    assert torch.equal(zoo[own].mask, tiny_zoo[treatment].mask)
    for name in FIELDS:
        values = tiny_zoo[treatment][name]
        np.testing.assert_allclose(zoo[own][name], values, rtol=1e-12)
        low, high = getattr(Recipe.of(zoo).training, name).bounds
        assert (low, high) == pytest.approx((values.min(), values.max()), rel=1e-12)
    assert "train_accuracy" not in zoo[own].columns
    assert verify(zoo).measured == len(zoo)


def test_an_imported_zoo_survives_export_and_import_and_its_card_names_its_source(mine, tmp_path):
    zoo = import_folder(mine, tmp_path / "zoo")
    export = export_zoo(zoo, tmp_path / "export")
    again = import_zoo(export, tmp_path / "again")
    assert torch.equal(again["standard"].weights[:], zoo["standard"].weights[:])
    assert again.manifest.recipe == zoo.manifest.recipe
    card = (export / "README.md").read_text()
    assert "Others trained these networks" in card
    for untrue in ("asymzoo zoo generate", "CC BY 4.0", "license: cc-by"):
        assert untrue not in card
    described = json.loads((export / "croissant.json").read_text())
    assert "creativecommons" not in described["license"]
    training, bringing = described["prov:wasGeneratedBy"]
    assert training["description"] == "Others trained the networks: mine."
    assert zoo.manifest.digest in bringing["description"]


def test_the_split_is_that_of_the_recipes_seed(mine, tmp_path):
    for seed in (0, 1):
        (mine / "recipe.toml").write_text(f"seed = {seed}\n{TOML}")
        zoo = import_folder(mine, tmp_path / f"zoo{seed}")
        assert zoo["standard"]["split"].tolist() == [Recipe.of(zoo).split_of(pair) for pair in range(len(zoo))]


def test_imported_constants_are_kept_and_not_drawn_again(tiny_zoo, tmp_path):
    """Constants of another seed than the recipe's are read from the file."""
    folder = scatter(tiny_zoo, "w_asymmetric", tmp_path / "mine")
    (folder / "recipe.toml").write_text(f"seed = 7\n{TOML}{TREATMENTS['w_asymmetric']}")
    zoo = import_folder(folder, tmp_path / "zoo")
    held = zoo.shared("w_asymmetric").held
    assert not torch.equal(held["mask"], Recipe.of(zoo).treat("w_asymmetric").held["mask"])
    assert torch.equal(held["mask"], tiny_zoo.shared("w_asymmetric").held["mask"])
    assert verify(zoo).measured == len(zoo)


def test_networks_with_their_own_standardisation_are_measured_with_it(mine, tmp_path):
    """The standardisation is moved into the first layer, so the networks are the same function of pixels."""
    mean, deviation = load_data("digits").moments
    for path in mine.glob("*.pt"):
        state = torch.load(path)
        weight = state["hidden.0.linear.weight"]
        state["hidden.0.linear.weight"] = weight / deviation
        state["hidden.0.linear.bias"] -= weight.sum(1) * mean / deviation
        torch.save(state, path)
    table = pd.read_csv(mine / "labels.csv")
    table[table["file"].str.endswith(".pt")].to_csv(mine / "labels.csv", index=False)
    with pytest.raises(ZooError, match="check that the data are those of the recipe"):
        verify(import_folder(mine, tmp_path / "wrong"))
    (mine / "recipe.toml").write_text(TOML + 'imported = { source = "me", mean = [0.0], deviation = [1.0] }')
    zoo = import_folder(mine, tmp_path / "zoo")
    assert Recipe.of(zoo).imported.source == "me"
    assert verify(zoo).measured == len(zoo)


def test_only_metrics_of_the_table_are_measured_again(mine, tmp_path):
    table = pd.read_csv(mine / "labels.csv")
    table.loc[3, "test_loss"] += 0.1
    table.to_csv(mine / "labels.csv", index=False)
    with pytest.raises(ZooError, match=r"standard, pair 3: test loss is .*, recorded as"):
        verify(import_folder(mine, tmp_path / "wrong"))
    table.drop(columns="test_loss").to_csv(mine / "labels.csv", index=False)
    assert verify(import_folder(mine, tmp_path / "zoo")).measured == len(table)


def test_a_zoo_of_diverged_networks_has_nothing_to_measure(mine, tmp_path):
    for path in mine.glob("*.pt"):
        torch.save({name: t * torch.nan for name, t in torch.load(path).items()}, path)
    table = pd.read_csv(mine / "labels.csv")
    table[table["file"].str.endswith(".pt")].to_csv(mine / "labels.csv", index=False)
    zoo = import_folder(mine, tmp_path / "zoo")
    assert set(zoo.networks("standard", diverged=True)["status"]) == {"diverged"}
    assert verify(zoo).measured == 0


def test_generating_into_the_folder_of_an_imported_zoo_is_refused(mine, tmp_path):
    zoo = import_folder(mine, tmp_path / "zoo")
    before = (zoo.folder / "zoo.json").read_bytes()
    with pytest.raises(ZooError, match="holds a zoo of another recipe: imported differs; choose another folder"):
        generate(Recipe.of(zoo).model_copy(update={"imported": None, "pairs": 9}), zoo.folder)
    assert (zoo.folder / "zoo.json").read_bytes() == before


def test_recipes_without_the_field_imported_keep_their_digest(tiny_recipe):
    assert tiny_recipe.digest == "59c56ce43c29d28f7f6cd9b68f5e9b26"


def table(change):
    """Change the table of labels."""

    def write(folder):
        labels = pd.read_csv(folder / "labels.csv", dtype=str)
        labels = change(labels)
        labels.to_csv(folder / "labels.csv", index=False)

    return write


def cell(column, value, row=3):
    return table(lambda labels: labels.assign(**{column: labels[column].where(labels.index != row, value)}))


def toml(text):
    return lambda folder: (folder / "recipe.toml").write_text(text)


def escape_by_link(folder):
    (folder / "3.pt").rename(folder.parent / "3.pt")
    (folder / "3.pt").symlink_to(folder.parent / "3.pt")


def escape_by_folder(folder):
    (folder / "elsewhere").symlink_to(folder.parent)
    (folder / "3.pt").rename(folder.parent / "3.pt")
    cell("file", "elsewhere/3.pt")(folder)


def huge_header(folder):
    header = b'{"a":{"dtype":"F32","shape":[1000000000,1000],"data_offsets":[0,4000000000000]}}'
    (folder / "2.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.mark.parametrize(
    ("harm", "fact"),
    [
        (lambda f: torch.save(Bomb(f / "executed"), f / "3.pt"), r"3\.pt: is damaged or contains more than"),
        (huge_header, r"2\.safetensors: is damaged"),
        (
            lambda f: (f / "2.safetensors").write_bytes(bytes(1 << 21)),
            r"2\.safetensors: has 2,097,152 bytes, a network of",
        ),
        (lambda f: torch.save([1], f / "3.pt"), r"3\.pt: is not a state_dict"),
        (lambda f: torch.save({"hidden.0.linear.weight": 1}, f / "3.pt"), r"3\.pt: is not a state_dict"),
        (cell("file", "../3.pt"), r"mine/\.\./3\.pt: is outside .*mine; put the file itself there"),
        (cell("file", "/etc/hostname.pt"), r"/etc/hostname\.pt: is outside "),
        (escape_by_link, r"3\.pt: is outside "),
        (escape_by_folder, r"elsewhere/3\.pt: is outside "),
        (cell("file", "9.pt"), r"9\.pt: missing"),
        (cell("file", "a" * 300 + ".pt"), r"is not the name of a file"),
        (cell("file", "1.pt"), r"labels\.csv: lists 1\.pt twice"),
        (cell("file", "3.bin"), r"labels\.csv: '3\.bin' does not end in \.safetensors or \.pt"),
        (
            cell("test_accuracy", "71.5"),
            r"labels\.csv: line 5: test_accuracy is '71\.5', not a finite number from 0 to 1",
        ),
        (cell("epochs", "inf"), r"labels\.csv: line 5: epochs is 'inf', not a finite number"),
        (cell("learning_rate", "fast"), r"labels\.csv: line 5: learning_rate is 'fast', not a finite number;"),
        (cell("test_loss", "low"), r"labels\.csv: line 5: test_loss is 'low', not a finite number;"),
        (
            table(lambda t: t.drop(columns="test_accuracy")),
            r"has no column 'test_accuracy'; the first line must name the columns",
        ),
        (
            table(lambda t: t.rename(columns={"weight_decay": "../weights"})),
            r"'\.\./weights' is not a valid name of a column",
        ),
        (table(lambda t: t.drop(columns="epochs")), r"recipe\.toml: training\.epochs: missing; add it"),
        (table(lambda t: t.iloc[:0]), r"labels\.csv: needs at least one row"),
        (lambda f: (f / "labels.csv").unlink(), r"labels\.csv: missing"),
        (lambda f: (f / "recipe.toml").unlink(), r"recipe\.toml: missing"),
        (toml("name = "), r"recipe\.toml: not valid TOML"),
        (toml(TOML + "training = 3"), r"recipe\.toml: training: "),
        (
            toml(TOML + 'imported = { source = "me", mean = [0.5] }'),
            r"imported: mean and deviation both need one value",
        ),
        (toml(TOML + 'imported = { sauce = "me" }'), r"recipe\.toml: imported\.(source: missing|sauce: unknown field)"),
        (
            toml(TOML.replace("[64, 8, 8, 10]", "[64, 9, 8, 10]")),
            r"has shape \(8, 64\), the architecture has \(9, 64\)",
        ),
        (
            toml(TOML.replace("8, 8", "8")),
            r"has 'hidden\.1\..*', which the architecture does not have",
        ),
        (toml(TOML.replace("8, 8", "8, 8, 8")), r"has no hidden\.2\.linear\.weight"),
        (
            toml(TOML + TREATMENTS["syre"] + "\n" + TREATMENTS["sigma_asymmetric"]),
            r"treatments: there are 2; a folder must have one",
        ),
        (toml(TOML + TREATMENTS["w_asymmetric"]), r"constants\.safetensors: missing"),
    ],
)
def test_a_wrong_folder_is_one_clear_error_and_leaves_nothing(mine, tmp_path, harm, fact):
    harm(mine)
    refuse(import_folder, mine, tmp_path / "zoo", fact)
    assert not (mine / "executed").exists()


def test_fixed_entries_that_are_not_the_constants_are_found(tiny_zoo, tmp_path):
    folder = scatter(tiny_zoo, "w_asymmetric", tmp_path / "mine")
    held = safetensors.torch.load_file(folder / CONSTANTS)
    held["constants"] += 0.5 * ~held["mask"]
    safetensors.torch.save_file(held, folder / CONSTANTS)
    refuse(import_folder, folder, tmp_path / "zoo", r"0\.safetensors: has fixed entries that are not the constants")


def test_constants_of_another_treatment_are_found(tiny_zoo, tmp_path):
    folder = scatter(tiny_zoo, "w_asymmetric", tmp_path / "mine")
    shutil.copy(tiny_zoo.folder / "syre" / CONSTANTS, folder)
    refuse(
        import_folder,
        folder,
        tmp_path / "zoo",
        r"constants\.safetensors: does not have the constants of w_asymmetric, which are mask",
    )


@pytest.mark.parametrize("name", ["", ".", "a\0b", "a/../../b"])
def test_a_name_that_is_not_a_file_in_the_folder_is_one_clear_error(tmp_path, name):
    with pytest.raises(ZooError) as error:
        inside(tmp_path, name)
    assert "\n" not in str(error.value)


@pytest.fixture
def mistake(asymzoo):
    """A function that runs the program with a mistake and returns the one line that it prints."""

    def run(*arguments):
        code, output, errors = asymzoo(*arguments)
        assert (code, output, errors.count("\n")) == (2, "", 1)
        return errors.removeprefix("asymzoo: ").strip()

    return run


def test_metanetworks_train_on_a_zoo_that_the_command_imported(asymzoo, mistake, tiny_zoo, tmp_path):
    """The whole way from files to a result works on the command line."""
    source, out = scatter(tiny_zoo, "standard", tmp_path / "mine", np.arange(24) % 6), tmp_path / "zoo"
    code, output, _ = asymzoo("zoo", "import", "folder", source, out)
    assert (code, output) == (0, f"{out}: 24 pairs of standard\n")
    assert asymzoo("zoo", "info", out)[0] == 0
    code, output, _ = asymzoo("zoo", "verify", out)
    assert (code, output) == (0, "1 checksums match\n24 networks measure as recorded\n")
    line = mistake("zoo", "verify", out, "--retrain", 1)
    assert line.startswith(f"{out}: was imported (mine), so its networks cannot be trained again")
    model = ("--model", "linear", "--treatment", "standard", "--out", tmp_path / "result.json")
    assert asymzoo("metanets", "train", out, *model)[0] == 0
    assert (tmp_path / "result.json").exists()


def test_wrong_use_of_the_command_is_one_line(mistake, tmp_path):
    assert mistake("zoo", "import", "papre", tmp_path, tmp_path / "zoo") == (
        f"import: unknown format 'papre' (did you mean 'paper'?); use one of {', '.join(IMPORTERS)}"
    )
    line = mistake("zoo", "import", "folder", tmp_path, tmp_path / "zoo", "--mask-constant", 2)
    assert line == "import: folder has no option --mask-constant; leave it out"
    for form in ("paper", "unterthiner", "folder", "hf"):
        assert str(tmp_path / "nowhere") in mistake("zoo", "import", form, tmp_path / "nowhere", tmp_path / "zoo")
