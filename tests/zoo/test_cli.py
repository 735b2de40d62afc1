import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from benchmark.cli import main
from zoo import open_zoo
from zoo.cli import generate_with_bar
from zoo.recipes.recipe import Recipe, built_in_recipes


@pytest.fixture
def mistake(asymzoo):
    """A function that runs the program with a mistake and returns the one line that it prints."""

    def run(*arguments):
        code, output, errors = asymzoo(*arguments)
        assert code == 2
        assert output == ""
        assert errors.startswith("asymzoo: ")
        assert errors.endswith("\n")
        assert errors.count("\n") == 1
        return errors.removeprefix("asymzoo: ").strip()

    return run


@pytest.fixture(scope="session")
def tiny_toml(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    path.write_text(
        """
name = "tiny"
description = "For tests."
pairs = 6
data = { name = "digits", train_limit = 256 }
architecture = { name = "mlp", widths = [64, 8, 10] }
training = { learning_rate = 0.01, epochs = 1 }
treatments.standard.kind = "standard"
treatments.syre.kind = "syre"
"""
    )
    return path


def test_generate_info_and_verify_work_together(asymzoo, tiny_toml, tmp_path):
    folder = tmp_path / "zoo"
    code, output, errors = asymzoo("zoo", "generate", tiny_toml, "--out", folder, "--pairs", 4, "--workers", 1)
    assert (code, output) == (0, f"{folder}: 4 pairs of standard, syre\n")
    assert "8/8" in errors
    assert "networks/s" in errors

    code, output, errors = asymzoo("zoo", "info", folder)
    assert (code, errors) == (0, "")
    assert output.startswith("tiny: For tests.\n4 pairs, ")
    assert [line.split()[0] for line in output.splitlines()[3:]] == ["standard", "syre"]

    code, output, errors = asymzoo("zoo", "verify", folder, "--retrain", 2, "--sample", 3)
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert lines[:2] == ["3 checksums match", "6 networks measure as recorded"]
    assert [line.partition(",")[0] for line in lines[2:]] == ["standard", "syre"]


def test_export_and_import_work_together(asymzoo, mistake, tiny_zoo, tmp_path):
    code, output, errors = asymzoo("zoo", "export", tiny_zoo.folder, tmp_path / "hub")
    assert (code, output) == (0, f'{tmp_path / "hub"}: datasets.load_dataset("{tmp_path / "hub"}", "standard")\n')
    assert "30/30" in errors
    code, output, errors = asymzoo("zoo", "import", "hf", tmp_path / "hub", tmp_path / "zoo")
    assert (code, output) == (0, f"{tmp_path / 'zoo'}: 6 pairs of {', '.join(tiny_zoo.treatments)}\n")
    assert torch.equal(open_zoo(tmp_path / "zoo")["syre"].weights[:], tiny_zoo["syre"].weights[:])
    assert mistake("zoo", "export", tiny_zoo.folder, tmp_path / "hub") == (
        f"{tmp_path / 'hub'}: is not empty; choose another folder"
    )


def test_generate_has_options_for_treatments_pairs_and_the_size_of_shards(asymzoo, tiny_toml, tmp_path):
    folder = tmp_path / "zoo"
    options = ["--treatments", "syre", "--pairs", 3, "--shard-pairs", 2, "--workers", 1]
    assert asymzoo("zoo", "generate", tiny_toml, "--out", folder, *options)[0] == 0
    zoo = open_zoo(folder)
    assert zoo.treatments == ("syre",)
    assert [file.pairs for file in zoo.manifest.of("syre")] == [(0, 2), (2, 3)]


def test_info_in_json_describes_the_zoo(asymzoo, tiny_zoo):
    code, output, _ = asymzoo("zoo", "info", tiny_zoo.folder, "--json")
    values = json.loads(output)
    assert code == 0
    assert (values["name"], values["pairs"], values["digest"]) == ("tiny", 6, tiny_zoo.manifest.digest)
    assert values["treatments"].keys() == set(tiny_zoo.treatments)
    size = 64 * 8 + 8 * 8 + 8 * 10 + 5 * 8 + 8 + 10
    w = values["treatments"]["w_asymmetric"]
    assert (w["parameters"], w["trainable"], w["diverged"]) == (size, size - 8 * 4 - 8 * 3 - 10 * 2, 0)
    accuracy = tiny_zoo["w_asymmetric"]["test_accuracy"]
    assert w["test_accuracy_quartiles"][::4] == pytest.approx([accuracy.min(), accuracy.max()], abs=1e-6)
    assert values["bytes"] == sum(path.stat().st_size for path in tiny_zoo.folder.rglob("*/*") if path.is_file())


def test_info_shows_a_zoo_that_diverged(asymzoo, diverged_zoo):
    code, output, _ = asymzoo("zoo", "info", diverged_zoo.folder)
    assert code == 0
    assert [line.split()[3] for line in output.splitlines()[3:]] == ["2", "2"]


def test_recipes_in_json_lists_the_built_in_ones_with_their_counts(asymzoo):
    code, output, _ = asymzoo("zoo", "recipes", "--json")
    rows = {row["name"]: row for row in json.loads(output)}
    assert code == 0
    assert list(rows) == built_in_recipes()
    digits = rows["digits-mlp"]
    assert (digits["data"], digits["architecture"], digits["pairs"]) == ("digits", "mlp", 2000)
    assert digits["treatments"]["standard"] == {"parameters": 3594, "trainable": 3594}
    assert digits["treatments"]["w_asymmetric"] == {"parameters": 3594, "trainable": 3594 - 32 * 16 - 32 * 8 - 10 * 8}


def test_an_interrupted_generation_says_how_to_continue(asymzoo, tiny_toml, tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("zoo.training.generation.train_pairs", interrupt)
        code, _, errors = asymzoo("zoo", "generate", tiny_toml, "--out", tmp_path / "zoo", "--workers", 1)
    assert code == 130
    assert errors.splitlines()[-1] == "asymzoo: interrupted; the same command goes on from here"
    assert asymzoo("zoo", "generate", tiny_toml, "--out", tmp_path / "zoo", "--workers", 1)[0] == 0


@pytest.mark.parametrize(("device", "workers"), [("cpu", 7), ("cuda", 1)])
def test_there_is_a_worker_for_each_cpu_and_one_for_a_gpu(monkeypatch, tmp_path, device, workers):
    given = {}
    monkeypatch.setattr("zoo.training.generation.generate", lambda recipe, out, **options: given.update(options))
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    generate_with_bar(Recipe.load("digits-mlp"), tmp_path, device=device)
    assert (given["workers"], given["device"]) == (workers, device)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "digits-mpl"], "digits-mpl: no such recipe (did you mean 'digits-mlp'?); "),
        (
            ["generate", "nowhere.toml"],
            "nowhere.toml: cannot be read (No such file or directory); give the path of a TOML file",
        ),
        (["generate", "digits-mlp", "--treatments", "syer"], "digits-mlp has no 'syer' (did you mean 'syre'?); it has"),
        (["generate", "digits-mlp", "--treatments", "standard,"], "treatments: digits-mlp has no ''; it has standard"),
        (["generate", "digits-mlp", "--pairs", "0"], "Invalid value for '--pairs': "),
        (["generate", "digits-mlp", "--pairs", "many"], "Invalid value for '--pairs': "),
        (["generate", "digits-mlp", "--workers", "steam"], "workers: 'steam' is not a number of processes"),
        (["generate", "digits-mlp", "--workers", "0"], "workers: '0' is not a number of processes"),
        (["generate", "digits-mlp", "--device", "tpu"], "device: there is no 'tpu' here; use cpu"),
        (["generate", "digits-mlp", "--paris", "3"], "No such option: --paris"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_generate_is_one_line_and_writes_nothing(mistake, tmp_path, arguments, message):
    assert message in mistake("zoo", *arguments, "--out", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_unknown_field_of_a_recipe_is_one_line(mistake, tiny_toml, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("pair = 3\n" + tiny_toml.read_text())
    line = mistake("zoo", "generate", path, "--out", tmp_path / "zoo")
    assert line == f"{path}: pair: unknown field (did you mean 'pairs'?)"


def test_folder_without_the_data_is_one_line(mistake, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    line = mistake("zoo", "generate", "mnist-cnn", "--out", tmp_path / "zoo", "--data-dir", empty)
    assert line.startswith(f"{empty}: mnist is not there; looked in ")
    assert not (tmp_path / "zoo").exists()


def test_folder_with_another_recipes_zoo_is_one_line(mistake, tiny_toml, tiny_copy):
    before = (tiny_copy.folder / "zoo.json").read_bytes()
    line = mistake("zoo", "generate", tiny_toml, "--out", tiny_copy.folder)
    assert line == f"{tiny_copy.folder}: holds a zoo of another recipe: data differs; choose another folder"
    assert (tiny_copy.folder / "zoo.json").read_bytes() == before


@pytest.mark.parametrize("command", ["info", "verify"])
def test_truncated_shard_is_one_line(mistake, tiny_copy, command):
    path = tiny_copy.folder / "syre" / "00000.h5"
    path.write_bytes(path.read_bytes()[:1000])
    assert mistake("zoo", command, tiny_copy.folder).startswith(f"{path}: 1000 bytes instead of ")


def test_damaged_shard_is_one_line(mistake, tiny_copy, reseal):
    path = tiny_copy.folder / "syre" / "00000.h5"
    path.write_bytes(path.read_bytes()[:1000])
    reseal(tiny_copy.folder, "syre/00000.h5")
    assert mistake("zoo", "info", tiny_copy.folder).startswith(f"{path}: damaged (")


@pytest.mark.parametrize("command", ["info", "verify"])
def test_folder_without_a_zoo_is_one_line(mistake, tmp_path, command):
    line = mistake("zoo", command, tmp_path)
    assert (
        line
        == f"{tmp_path}: is not a zoo, zoo.json cannot be read (No such file or directory); give the folder of a zoo"
    )


def test_unknown_command_is_one_line(mistake):
    assert mistake("zoo", "inof").startswith("No such command 'inof'")


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["asymzoo", "--debug", "zoo", "info", str(tmp_path)])
    with pytest.raises(Exception, match="is not a zoo"):
        main()


def test_help_imports_no_large_library():
    program = """
import sys
sys.argv = ["asymzoo", *sys.argv[1:]]
from benchmark.cli import main
try:
    main()
finally:
    print([name for name in ("torch", "datasets", "numpy", "h5py", "matplotlib", "torch_geometric", "ray") if name in sys.modules])
"""
    for arguments in (["--help"], ["zoo", "generate", "--help"]):
        done = subprocess.run([sys.executable, "-B", "-c", program, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Usage: asymzoo" in done.stdout
        assert done.stdout.splitlines()[-1] == "[]"


def test_installed_program_prints_one_line_and_no_traceback(tmp_path):
    program = shutil.which("asymzoo", path=os.path.dirname(sys.executable))
    if program is None:
        pytest.skip("not installed as a program")
    done = subprocess.run([program, "zoo", "info", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        done.stderr
        == f"asymzoo: {tmp_path}: is not a zoo, zoo.json cannot be read (No such file or directory); give the folder of a zoo\n"
    )
