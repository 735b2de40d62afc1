import errno
import io
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.zoo.conftest import TINY
from zoo import Recipe, generate, load_data, open_zoo
from zoo.errors import AsymZooError, RecipeError, ZooError
from zoo.files import write_whole
from zoo.networks.architectures import ARCHITECTURES
from zoo.networks.architectures.mlp import MLP
from zoo.recipes.recipe import HYPERPARAMETERS
from zoo.seeds import rng_for
from zoo.training.generation import start_rows
from zoo.training.minibatches import batches
from zoo.training.planning import begin, count_missing, plan
from zoo.training.results import MEASURED
from zoo.training.workers import run_in_processes


@pytest.fixture(scope="session")
def pair_recipe(tiny_recipe):
    """A recipe with two treatments, for tests of engines."""
    return tiny_recipe.only(["standard", "w_asymmetric"])


@pytest.fixture(scope="session")
def pair_zoo(pair_recipe, tmp_path_factory):
    """A small zoo, for reading only."""
    return generate(pair_recipe, tmp_path_factory.mktemp("zoos") / "pair")


def more_pairs(recipe, pairs):
    return recipe.model_copy(update={"pairs": pairs})


def assert_same(zoo, reference, treatments=None):
    """Assert that two zoos have the same networks bit for bit, and the same columns except the time."""
    assert treatments or set(zoo.treatments) == set(reference.treatments)
    for treatment in treatments or reference.treatments:
        a, b = (each.networks(treatment, diverged=True) for each in (zoo, reference))
        assert list(a.columns) == list(b.columns)
        for name in a.columns.keys() - {"seconds"}:
            assert a[name].tobytes() == b[name].tobytes(), name


def state_of(folder):
    """Names, contents and times of all files except the manifest."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file() and path.name != "zoo.json"]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


# --- Pairing


def test_treatments_of_a_pair_share_its_hyperparameters_and_split(tiny_zoo):
    for name in (*HYPERPARAMETERS, "pair", "split"):
        for treatment in tiny_zoo.treatments:
            assert np.array_equal(tiny_zoo[treatment][name], tiny_zoo["standard"][name])


def test_columns_are_in_the_order_of_the_pairs_and_have_the_draws_of_the_recipe(tiny_zoo):
    assert tiny_zoo["syre"]["pair"].tolist() == list(range(6))
    for pair in range(6):
        for name, value in Recipe.of(tiny_zoo).draw(pair).items():
            assert tiny_zoo["syre"][name][pair] == value


def test_treatments_start_from_the_same_draw(tiny_zoo):
    standard = tiny_zoo["standard"].initial_weights[:]
    assert torch.equal(tiny_zoo["sigma_asymmetric"].initial_weights[:], standard)
    syre = tiny_zoo["syre"]
    assert torch.equal(syre.initial_weights[:], standard + syre.treated.constants)
    w_asymmetric = tiny_zoo["w_asymmetric"]
    rows, mask = w_asymmetric.initial_weights[:], w_asymmetric.mask
    assert torch.equal(rows[:, mask], standard[:, mask])
    assert not torch.equal(rows[:, ~mask], standard[:, ~mask])


def test_pairs_start_from_different_draws(tiny_zoo):
    assert len(tiny_zoo["standard"].initial_weights[:].unique(dim=0)) == 6


def test_minibatches_of_a_pair_do_not_depend_on_its_stack(tiny_recipe):
    data = load_data("digits", train_limit=512)
    alone = [x for x, _ in batches(data, tiny_recipe.training.batch_size, 0, [3], 1)]
    together = [x for x, _ in batches(data, tiny_recipe.training.batch_size, 0, [5, 3], 1)]
    other = [x for x, _ in batches(data, tiny_recipe.training.batch_size, 0, [5], 1)]
    for a, b, c in zip(alone, together, other, strict=True):
        assert torch.equal(a[0], b[1])
        assert not torch.equal(a, c)


def test_identical_treatments_under_two_names_give_identical_networks(tiny_recipe, tmp_path):
    twins = {"a": tiny_recipe.treatments["standard"], "b": tiny_recipe.treatments["standard"]}
    zoo = generate(tiny_recipe.model_copy(update={"treatments": twins, "pairs": 3}), tmp_path / "zoo")
    assert torch.equal(zoo["a"].weights[:], zoo["b"].weights[:])


def test_initial_weights_are_the_draw_of_the_pair(tiny_recipe):
    treated = tiny_recipe.treat("standard")
    rows = start_rows(tiny_recipe, "standard", treated, [4, 2])
    for row, pair in zip(rows, (4, 2), strict=True):
        assert torch.equal(row, treated.layout.draw_initial(rng_for(tiny_recipe.seed, "initial", pair)))


# --- How it is made does not matter


@pytest.mark.parametrize("shard_pairs", [1, 3, None])
def test_networks_do_not_depend_on_the_size_of_shards(pair_recipe, tiny_zoo, tmp_path, shard_pairs):
    zoo = generate(pair_recipe, tmp_path / "zoo", shard_pairs=shard_pairs)
    assert len(zoo.manifest.of("standard")) == 6 // (shard_pairs or 6)
    assert_same(zoo, tiny_zoo, zoo.treatments)


@pytest.mark.slow
def test_networks_do_not_depend_on_the_number_of_workers(pair_zoo, tmp_path):
    reports = []
    zoo = generate(Recipe.of(pair_zoo), tmp_path / "zoo", shard_pairs=3, workers=2, progress=reports.append)
    assert len(zoo.manifest.of("standard")) == 2
    assert_same(zoo, pair_zoo)
    assert sum(reports) == 12


def run_python(program, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-B", "-c", program, *map(str, arguments)], capture_output=True, text=True, **options
    )


GENERATE = """
import sys
from pathlib import Path
from zoo import Recipe, generate
recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
generate(recipe, sys.argv[2], shard_pairs=3, workers=sys.argv[3] if sys.argv[3] == "ray" else int(sys.argv[3]))
"""


@pytest.mark.slow
def test_networks_trained_on_ray_are_the_same(pair_zoo, tmp_path):
    pytest.importorskip("ray")
    path, folder = tmp_path / "recipe.json", tmp_path / "zoo"
    path.write_text(Recipe.of(pair_zoo).model_dump_json())
    # In a process of its own, at whose end Ray's are gone.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = run_python(GENERATE, path, folder, "ray", env=environment)
    assert done.returncode == 0, done.stderr
    zoo = open_zoo(folder)
    assert len(zoo.manifest.of("standard")) == 2
    assert_same(zoo, pair_zoo)


def test_error_in_a_worker_process_reaches_the_caller():
    with pytest.raises(RecipeError, match="no such recipe"):
        list(run_in_processes(["nothing"], load_recipe, 2, print))


def load_recipe(job, report):
    return Recipe.load(job)


def test_progress_reports_every_network_once(pair_recipe, tmp_path):
    reports = []
    generate(pair_recipe, tmp_path / "zoo", shard_pairs=4, progress=reports.append)
    assert min(reports) > 0
    assert sum(reports) == 12


def test_shards_cover_each_missing_pair_once(tiny_zoo):
    recipe = more_pairs(Recipe.of(tiny_zoo), 1000)
    begun = begin(recipe).model_copy(update={"files": tiny_zoo.manifest.files})
    shards = plan(begun)
    for treatment in recipe.treatments:
        pairs = [pair for shard in shards if shard.treatment == treatment for pair in shard.pairs]
        assert pairs == list(range(6, 1000))
    assert max(len(shard.pairs) for shard in shards) <= 256


# --- Interruption and growth


class Stop:
    """A progress callback that interrupts after a number of networks."""

    def __init__(self, after):
        self.left = after

    def __call__(self, networks):
        self.left -= networks
        if self.left <= 0:
            raise KeyboardInterrupt


def test_an_interrupted_generation_continues_and_keeps_complete_shards(pair_recipe, pair_zoo, tmp_path):
    folder = tmp_path / "zoo"
    with pytest.raises(KeyboardInterrupt):
        generate(pair_recipe, folder, shard_pairs=2, progress=Stop(7))
    with pytest.raises(ZooError, match="incomplete, w_asymmetric lacks pairs from 0 on"):
        open_zoo(folder)
    before = state_of(folder)
    assert {"standard/00000.h5", "standard/00002.h5", "standard/00004.h5"} <= before.keys()
    assert not any(name.endswith(".part") for name in before)

    zoo = generate(pair_recipe, folder, shard_pairs=2)
    after = state_of(folder)
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)
    assert_same(zoo, pair_zoo)


def test_generate_trains_the_missing_networks(pair_recipe, tiny_recipe, tmp_path):
    folder, trained = tmp_path / "zoo", []
    assert count_missing(pair_recipe, folder) == 12
    with pytest.raises(KeyboardInterrupt):
        generate(pair_recipe, folder, shard_pairs=2, progress=Stop(7))
    assert count_missing(pair_recipe, folder) == 6
    generate(pair_recipe, folder, progress=trained.append)
    assert sum(trained) == 6
    assert count_missing(pair_recipe, folder) == count_missing(more_pairs(pair_recipe, 2), folder) == 0
    (folder / "standard" / "00002.h5").unlink()
    assert count_missing(pair_recipe, folder) == 2
    assert count_missing(more_pairs(pair_recipe, 10), folder) == 2 + 8
    assert count_missing(tiny_recipe.only(["standard", "syre"]), folder) == 2 + 6
    with pytest.raises(ZooError, match="holds a zoo of another recipe: seed differs"):
        count_missing(pair_recipe.model_copy(update={"seed": 1}), folder)


def test_a_complete_zoo_is_unchanged(tiny_copy):
    before, made = state_of(tiny_copy.folder), tiny_copy.manifest
    reports = []
    zoo = generate(Recipe.of(tiny_copy), tiny_copy.folder, progress=reports.append)
    assert reports == []
    assert state_of(tiny_copy.folder) == before
    assert zoo.manifest == made


def test_a_lost_shard_is_made_again_bit_for_bit(tiny_copy, tiny_zoo):
    path = tiny_copy.folder / "syre" / "00004.h5"
    path.unlink()
    zoo = generate(Recipe.of(tiny_copy), tiny_copy.folder)
    assert path.exists()
    assert_same(zoo, tiny_zoo)


def test_lost_constants_are_drawn_again_bit_for_bit(tiny_copy, tiny_zoo):
    path = tiny_copy.folder / "w_asymmetric" / "constants.safetensors"
    content = path.read_bytes()
    path.unlink()
    assert_same(generate(Recipe.of(tiny_copy), tiny_copy.folder), tiny_zoo)
    assert path.read_bytes() == content


def test_growing_by_pairs_and_treatments_keeps_files_and_gives_the_same_zoo_as_generating_at_once(
    tiny_zoo, pair_recipe, tmp_path
):
    folder = tmp_path / "zoo"
    generate(more_pairs(pair_recipe, 2), folder)
    first = state_of(folder)
    grown = generate(pair_recipe, folder)
    assert len(grown) == 6
    second = state_of(folder)
    assert {name: second[name] for name in first} == first
    zoo = generate(Recipe.of(tiny_zoo), folder)
    third = state_of(folder)
    assert {name: third[name] for name in second} == second
    assert zoo.manifest.digest == tiny_zoo.manifest.digest
    assert_same(zoo, tiny_zoo)


def test_generating_fewer_pairs_keeps_all_networks(tiny_copy, pair_recipe):
    before = state_of(tiny_copy.folder)
    zoo = generate(more_pairs(pair_recipe, 2), tiny_copy.folder)
    assert (len(zoo), zoo.treatments) == (6, tiny_copy.treatments)
    assert state_of(tiny_copy.folder) == before


# --- What is refused


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("seed", {"seed": 1}),
        ("name", {"name": "other"}),
        ("architecture", {"architecture": {"name": "mlp", "widths": [64, 9, 10]}, "treatments": {"a": "standard"}}),
        ("treatments.narrow", {"treatments": {"narrow": "standard"}}),
    ],
)
def test_a_folder_with_a_zoo_of_another_recipe_is_refused_and_unchanged(tiny_copy, field, change):
    values = Recipe.of(tiny_copy).to_json() | change
    values["treatments"] = {
        name: {"kind": kind} if isinstance(kind, str) else kind for name, kind in values["treatments"].items()
    }
    before, made = state_of(tiny_copy.folder), (tiny_copy.folder / "zoo.json").read_bytes()
    with pytest.raises(ZooError, match=f"{field} differs; choose another folder"):
        generate(Recipe.read(values), tiny_copy.folder)
    assert state_of(tiny_copy.folder) == before
    assert (tiny_copy.folder / "zoo.json").read_bytes() == made


def test_a_folder_with_other_files_is_refused_and_unchanged(pair_recipe, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(AsymZooError, match="is not empty and is not a zoo"):
        generate(pair_recipe, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "thesis.tex"]


@pytest.mark.parametrize("inside", [False, True])
def test_the_error_names_a_file_at_the_path_of_the_folder(pair_recipe, tmp_path, inside):
    path = tmp_path / "taken"
    path.write_text("x")
    folder = path / "zoo" if inside else path
    with pytest.raises(AsymZooError) as caught:
        generate(pair_recipe, folder)
    assert str(caught.value).startswith(str(folder))
    assert path.read_text() == "x"


@pytest.mark.parametrize(
    ("architecture", "fact"),
    [
        ({"name": "mlp", "widths": [65, 8, 10]}, r"cannot read examples of digits, whose shape is \(1, 8, 8\)"),
        ({"name": "mlp", "widths": [64, 8, 9]}, "has 9 outputs, but digits has 10 classes"),
        ({"name": "cnn", "channels": [3, 4]}, r"cannot read examples of digits, whose shape is \(1, 8, 8\)"),
    ],
)
def test_an_architecture_that_does_not_fit_the_data_is_refused_before_anything_is_written(
    tiny_recipe, tmp_path, architecture, fact
):
    values = tiny_recipe.model_dump(mode="json", exclude={"treatments"})
    recipe = Recipe.read(values | {"architecture": architecture, "treatments": {"a": {"kind": "standard"}}})
    with pytest.raises(RecipeError, match=f"^tiny: architecture: {fact}"):
        generate(recipe, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_several_workers_on_one_gpu_are_refused(pair_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.training.generation.use_device", lambda device: None)
    with pytest.raises(RecipeError, match="workers: 2 would share the memory of one GPU; use 1"):
        generate(pair_recipe, tmp_path / "zoo", device="cuda", workers=2)
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("device", ["tpu", "cuda"])
def test_the_error_names_a_device_that_does_not_exist(pair_recipe, tmp_path, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(AsymZooError, match=f"device: there is no '{device}' here; use cpu"):
        generate(pair_recipe, tmp_path / "zoo", device=device)
    assert not (tmp_path / "zoo").exists()


# --- Where it cannot be written


@pytest.fixture
def writing_fails(monkeypatch, tmp_path):
    """A context in which writing to files whose path contains `place` fails with `code` after `room` bytes."""

    class Failing(io.FileIO):
        def __init__(self, path, code, room):
            super().__init__(path, "wb")
            self.code, self.room = code, room

        def write(self, content):
            if len(content) <= self.room:
                return super().write(content)
            super().write(content[: self.room])
            raise OSError(self.code, os.strerror(self.code))

    @contextmanager
    def fail(place, code, room=0):
        opened = Path.open

        def choose(path, mode="r", *arguments, **options):
            if "w" in mode and place in str(path.relative_to(tmp_path)):
                return Failing(path, code, room)
            return opened(path, mode, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", choose)
            yield

    return fail


def test_full_disk_is_one_clear_error_and_harms_nothing(pair_recipe, pair_zoo, tmp_path, writing_fails):
    folder = tmp_path / "zoo"
    generate(more_pairs(pair_recipe, 2), folder)
    before = state_of(folder)
    with writing_fails(".h5", errno.ENOSPC, 20_000), pytest.raises(ZooError) as caught:
        generate(pair_recipe, folder)
    fact = f"{folder}/standard/00002.h5: cannot be written (No space left on device)"
    assert str(caught.value) == f"{fact}; make room, then run the same again"
    assert state_of(folder) == before
    assert_same(generate(pair_recipe, folder), pair_zoo)


@pytest.mark.parametrize("place", ["zoo.json", "w_asymmetric"])
@pytest.mark.parametrize(("code", "remedy"), [(errno.ENOSPC, "make room"), (errno.EACCES, "choose a folder that can")])
def test_a_failure_at_the_start_is_one_clear_error_and_can_be_repeated(
    pair_recipe, pair_zoo, tmp_path, writing_fails, place, code, remedy
):
    folder = tmp_path / "zoo"
    with writing_fails(place, code, 50), pytest.raises(ZooError) as caught:
        generate(pair_recipe, folder)
    assert place in str(caught.value)
    assert f"cannot be written ({os.strerror(code)}); {remedy}" in str(caught.value)
    assert state_of(folder) == {}
    assert_same(generate(pair_recipe, folder), pair_zoo)


def test_limit_on_the_size_of_files_is_one_clear_error(pair_recipe, tmp_path):
    path, folder = tmp_path / "recipe.json", tmp_path / "zoo"
    path.write_text(pair_recipe.model_dump_json())

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = run_python(GENERATE, path, folder, 1, preexec_fn=limit)
    assert done.returncode == 1
    place = f"zoo.errors.ZooError: {folder}/standard/00000.h5: cannot be written (File too large)"
    assert done.stderr.splitlines()[-1].startswith(place)
    assert set(state_of(folder)) == {"w_asymmetric/constants.safetensors"}


def test_interrupted_writing_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []


# --- What diverges


def test_diverged_networks_are_kept_and_flagged(diverged_zoo):
    zoo = diverged_zoo
    for treatment in zoo.treatments:
        every = zoo.networks(treatment, diverged=True)
        assert every["status"].tolist() == ["diverged", "diverged"]
        assert every["pair"].tolist() == [0, 1]
        assert every.weights[:].isfinite().all()
        assert len(zoo[treatment]) == len(zoo[treatment].weights[:]) == 0
        for name in MEASURED:
            assert every[name].shape == (2,)


def test_a_zoo_does_not_grow_by_networks_of_another_architecture_of_the_same_name(monkeypatch, tmp_path):
    class Net(MLP):
        pass

    class Deeper(MLP):
        def __init__(self, widths: Sequence[int], norm: str = "layer", activation: str = "gelu") -> None:
            super().__init__([*widths[:-1], 8, widths[-1]], norm, activation)

    class Other(MLP):
        def __init__(self, widths: Sequence[int], norm: str = "layer", activation: str = "gelu") -> None:
            super().__init__(widths, norm, "tanh")

    values = TINY | {"pairs": 2, "treatments": {"standard": {"kind": "standard"}}}
    monkeypatch.setitem(ARCHITECTURES, "net", Net)
    recipe = Recipe.read(values | {"architecture": {"name": "net", "widths": [64, 8, 10]}})
    folder = generate(recipe, tmp_path / "zoo").folder
    before = (folder / "zoo.json").read_bytes()
    for architecture in (Deeper, Other):
        monkeypatch.setitem(ARCHITECTURES, "net", architecture)
        again = Recipe.read(values | {"architecture": {"name": "net", "widths": [64, 8, 10]}, "pairs": 3})
        with pytest.raises(ZooError, match="the architecture 'net' known here has other parameters or activations"):
            generate(again, folder)
        assert (folder / "zoo.json").read_bytes() == before


def test_a_zoo_that_grows_keeps_its_description(tmp_path):
    recipe = Recipe.read(TINY | {"pairs": 1, "description": "Mine."}).only(["standard"])
    folder = generate(recipe, tmp_path / "zoo").folder
    zoo = generate(more_pairs(recipe, 2).model_copy(update={"description": ""}), folder)
    assert zoo.manifest.description == "Mine."
