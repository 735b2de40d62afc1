"""The paper's published networks: written here in their format without the package's code, then imported."""

import math
import pickle
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmark.selection import good
from tests.zoo.data.scenarios import write_cifar
from tests.zoo.sharing.test_importers import Bomb, refuse
from zoo import Recipe, generate, open_zoo, verify
from zoo.errors import RecipeError, TaskError, ZooError
from zoo.sharing.export import export_zoo
from zoo.sharing.importers import import_paper
from zoo.sharing.importers.hf import import_zoo

NETWORKS = 6
CHANNELS = {"resnet8": (16, 32, 64), "smaller_resnet8": (14, 28, 56)}
NAMES = {
    "resnet8": "standard",
    "smaller_resnet8": "narrow",
    "sparse_resnet8": "w_asymmetric",
    "sigma_asym_resnet8": "sigma_asymmetric",
}
PIXEL_MEAN, PIXEL_DEVIATION = (125.307, 122.961, 113.8575), (51.5865, 50.847, 51.255)


# The published networks, as functions of their state_dict.


def published_state(kind, seed, constant=99):
    """A random state_dict with the published names; networks with the same `constant` have the same constants."""
    draw, shared = (torch.Generator().manual_seed(number) for number in (seed, constant))
    widths = CHANNELS.get(kind, CHANNELS["resnet8"])
    state = {}

    def normal(*shape, generator=draw):
        return torch.randn(shape, generator=generator)

    def weight(name, *shape):
        state[f"{name}.weight"] = normal(*shape) / math.sqrt(math.prod(shape[1:]))
        if kind == "sparse_resnet8":  # what is stored at fixed places is stale
            mask = torch.ones(shape)
            for row in mask:
                row[torch.randperm(shape[1], generator=shared)[: min(8, shape[1])]] = 0
            state.update({f"{name}.mask": mask, f"{name}.normal_mask": normal(*shape, generator=shared)})

    def norm(name, units):
        state[f"{name}.weight"], state[f"{name}.bias"] = 1 + 0.2 * normal(units), 0.2 * normal(units)

    weight("conv1", widths[0], 3, 3, 3)
    norm("ln1", widths[0])
    before = widths[0]
    sites = {"nonlin": widths[0]}
    for stage, units in enumerate(widths, 1):
        block = f"layer{stage}.0"
        weight(f"{block}.conv1", units, before, 3, 3)
        norm(f"{block}.ln1", units)
        weight(f"{block}.conv2", units, units, 3, 3)
        norm(f"{block}.ln2", units)
        if stage > 1:
            weight(f"{block}.shortcut.0", units, before, 1, 1)
            norm(f"{block}.shortcut.1", units)
        sites |= {f"{block}.nonlin1": units, f"{block}.nonlin2": units}
        before = units
    weight("linear", 10, before)
    state["linear.bias"] = normal(10)
    if kind == "sigma_asym_resnet8":
        for site, units in sites.items():
            state[f"{site}.F_mat"] = normal(units, units, 1, 1, generator=shared) / math.sqrt(units)
    return state


def published_logits(state, x):
    """The logits of the published module."""

    def used(layer):
        weight = state[f"{layer}.weight"]
        if f"{layer}.mask" in state:
            mask = state[f"{layer}.mask"]
            weight = weight * mask + (1 - mask) * 2 * state[f"{layer}.normal_mask"]
        return weight

    def norm(name, y):
        centred = y - y.mean((1, 2, 3), keepdim=True)
        scaled = centred / (centred.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return scaled * state[f"{name}.weight"].view(-1, 1, 1) + state[f"{name}.bias"].view(-1, 1, 1)

    def activate(site, y):
        if f"{site}.F_mat" not in state:
            return y.clamp(min=0)
        return y * torch.einsum("ij,bjhw->bihw", state[f"{site}.F_mat"][..., 0, 0], y).sigmoid()

    x = activate("nonlin", norm("ln1", nn.functional.conv2d(x, used("conv1"), padding=1)))
    for stage in (1, 2, 3):
        block, stride = f"layer{stage}.0", 1 if stage == 1 else 2
        y = norm(f"{block}.ln1", nn.functional.conv2d(x, used(f"{block}.conv1"), stride=stride, padding=1))
        y = nn.functional.conv2d(activate(f"{block}.nonlin1", y), used(f"{block}.conv2"), padding=1)
        if stage > 1:
            x = norm(f"{block}.shortcut.1", nn.functional.conv2d(x, used(f"{block}.shortcut.0"), stride=stride))
        x = activate(f"{block}.nonlin2", norm(f"{block}.ln2", y) + x)
    return x.mean((2, 3)) @ used("linear").T + state["linear.bias"]


def write_hparams(path, rows=NETWORKS):
    rng = np.random.default_rng(3)
    columns = {
        "lr": 0.5 * 10 ** -rng.uniform(0, 2, rows),
        "weight_decay": 10 ** -rng.uniform(1, 5, rows),
        "label_smoothing": rng.uniform(0, 0.2, rows),
        "epochs": rng.integers(10, 41, rows),
    }
    pd.DataFrame(columns).to_csv(path, index=False)


@pytest.fixture(scope="module")
def images():
    """Bytes and labels of 60 training and 100 test images in the form of CIFAR-10."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 200, (160, 3, 32, 32), dtype=np.uint8) + rng.integers(0, 56, (1, 3, 1, 1), dtype=np.uint8)
    return pixels, rng.integers(0, 10, 160).astype(np.uint8)


def write_images(folder, pixels, labels):
    write_cifar(folder, [(pixels[:60], labels[:60]), (pixels[60:], labels[60:])])
    return folder


@pytest.fixture(scope="module")
def data_dir(images, tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data"), *images)


@pytest.fixture(scope="module")
def published(images, tmp_path_factory):
    """The four folders; accuracies are those on the test images, prepared as the paper's code does."""
    source = tmp_path_factory.mktemp("published")
    mean, deviation = (torch.tensor(values).view(-1, 1, 1) for values in (PIXEL_MEAN, PIXEL_DEVIATION))
    x, y = (torch.from_numpy(part[60:]) for part in images)
    x = (x - mean) / deviation
    for kind in NAMES:
        (source / kind).mkdir()
        write_hparams(source / kind / "hparams.csv")
        for i in range(NETWORKS):
            state = published_state(kind, i)
            percent = (published_logits(state, x).argmax(1) == y).float().mean().item() * 100
            formed = {n: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for n, t in state.items()}
            torch.save((formed, percent), source / kind / f"{i}.pt")
    return source


@pytest.fixture(scope="module")
def paper_zoo(published, tmp_path_factory):
    """The imported zoo, for reading only."""
    return import_paper(published, tmp_path_factory.mktemp("zoos") / "paper")


@pytest.fixture
def one_kind(published, tmp_path):
    """A function that returns a folder of one kind, which a test may damage."""

    def copy(kind="sparse_resnet8"):
        folder = tmp_path / kind
        folder.mkdir()
        for path in (published / kind).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    return copy


@pytest.fixture
def each_its_own(tmp_path):
    """A function that returns a folder of one kind in which each network has its own constants."""

    def write(kind):
        folder = tmp_path / kind
        folder.mkdir()
        write_hparams(folder / "hparams.csv")
        for i in range(NETWORKS):
            torch.save((published_state(kind, i, constant=100 + i), 50.0), folder / f"{i}.pt")
        return folder

    return write


def save_again(path, change):
    """Replace state_dict and accuracy of a file by what `change` returns."""
    torch.save(change(*torch.load(path, weights_only=True)), path)


@pytest.mark.parametrize("kind", NAMES)
def test_an_imported_resnet8_gives_the_logits_of_the_published_module(published, paper_zoo, kind):
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    logits = paper_zoo[NAMES[kind]].stack().logits(x)
    for i in range(NETWORKS):
        state, _ = torch.load(published / kind / f"{i}.pt", weights_only=True)
        torch.testing.assert_close(logits[i], published_logits(state, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["sparse_resnet8", "sigma_asym_resnet8"])
def test_constants_of_each_network_are_stored_and_survive_export_and_import(each_its_own, tmp_path, kind):
    folder, treatment = each_its_own(kind), NAMES[kind]
    zoo = import_paper(folder, tmp_path / "zoo")
    assert not Recipe.of(zoo).treatments[treatment].shared
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    logits = zoo[treatment].stack().logits(x)
    for i in range(NETWORKS):
        state, _ = torch.load(folder / f"{i}.pt", weights_only=True)
        torch.testing.assert_close(logits[i], published_logits(state, x), rtol=1e-4, atol=1e-4)
    again = import_zoo(export_zoo(zoo, tmp_path / "hub"), tmp_path / "again")
    assert again[treatment].columns.keys() == zoo[treatment].columns.keys()
    for name in zoo[treatment].columns:
        assert again[treatment][name].tobytes() == zoo[treatment][name].tobytes()
    assert torch.equal(again[treatment].stack().logits(x), logits)


def test_lines_between_networks_with_different_matrices_are_refused(each_its_own, tmp_path):
    zoo = import_paper(each_its_own("sigma_asym_resnet8"), tmp_path / "zoo")
    with pytest.raises(TaskError, match="sigma_asymmetric networks have their own activations; take a") as error:
        good(zoo["sigma_asymmetric"], 2)
    assert "\n" not in str(error.value)


def test_masks_that_differ_between_networks_are_recognised(each_its_own, tmp_path, paper_zoo):
    zoo = import_paper(each_its_own("sparse_resnet8"), tmp_path / "zoo")
    assert {"mask", "constants"} <= zoo["w_asymmetric"].columns.keys()
    assert not {"mask", "constants"} & paper_zoo["w_asymmetric"].columns.keys()
    trains = zoo["w_asymmetric"].treated.mask
    assert not any(torch.equal(trains[0], other) for other in trains[1:])
    assert (trains.sum(1) == 60634).all()  # the paper's count


def test_fixed_entries_are_the_constants_and_other_entries_are_those_of_the_file(published, paper_zoo):
    treated, (state, _) = paper_zoo.shared("w_asymmetric"), torch.load(published / "sparse_resnet8/2.pt")
    row = treated.layout.unflatten(paper_zoo["w_asymmetric"].weights[2])
    trains = treated.layout.unflatten(treated.mask.float())
    for name, tensor in row.items():
        layer = name.removesuffix(".weight")
        mask = state.get(f"{layer}.mask", torch.ones_like(tensor)).bool()
        assert torch.equal(trains[name].bool(), mask)
        assert torch.equal(tensor[mask], state[name][mask])
        if not mask.all():
            assert torch.equal(tensor[~mask], 2 * state[f"{layer}.normal_mask"][~mask])
    assert int(treated.mask.sum()) == 60634  # the paper's count


def test_the_recipe_draws_masks_like_the_imported_ones_and_networks_of_the_same_kinds(paper_zoo):
    ours = Recipe.load("cifar10-resnet8").only(NAMES.values())
    for name, treatment in ours.treatments.items():
        assert Recipe.of(paper_zoo).treat(name).layout == ours.treat(name).layout
        if name != "w_asymmetric":
            assert Recipe.of(paper_zoo).treatments[name] == treatment
    drawn, held = Recipe.of(paper_zoo).treat("w_asymmetric"), paper_zoo.shared("w_asymmetric")
    for weight in drawn.layout.weights:
        counts = [t.mask[t.layout.slices[weight.name]].view(weight.shape[0], -1).sum(1).tolist() for t in (drawn, held)]
        assert counts[0] == counts[1]


def test_networks_of_the_same_number_are_pairs_with_the_tables_hyperparameters(published, paper_zoo):
    table = pd.read_csv(published / "resnet8/hparams.csv")
    for kind, treatment in NAMES.items():
        percent = [torch.load(published / kind / f"{i}.pt")[1] for i in range(NETWORKS)]
        np.testing.assert_allclose(paper_zoo[treatment]["test_accuracy"], np.array(percent) / 100)
        for theirs, ours in (("lr", "learning_rate"), ("weight_decay",) * 2, ("label_smoothing",) * 2, ("epochs",) * 2):
            np.testing.assert_array_equal(paper_zoo[treatment][ours], table[theirs])
            bounds = getattr(Recipe.of(paper_zoo).training, ours).bounds
            assert bounds == (table[theirs].min(), table[theirs].max())
        splits = [Recipe.of(paper_zoo).split_of(pair) for pair in range(NETWORKS)]
        assert paper_zoo[treatment]["split"].tolist() == splits
        assert paper_zoo[treatment]["pair"].tolist() == list(range(NETWORKS))


def test_unpublished_columns_are_missing_and_reading_them_is_an_error_in_one_line(paper_zoo):
    with pytest.raises(ZooError, match=r"standard has no initial_weights; it has weights$"):
        _ = paper_zoo["standard"].initial_weights
    with pytest.raises(ZooError, match="standard has no column 'curve_test_loss'"):
        _ = paper_zoo["standard"]["curve_test_loss"]


def test_the_kind_is_recognised_from_the_first_network_and_not_from_the_folder(one_kind, tmp_path):
    folder = one_kind("sigma_asym_resnet8").rename(tmp_path / "resnet8")
    assert import_paper(folder, tmp_path / "zoo").treatments == ("sigma_asymmetric",)


def test_a_table_beside_the_folders_is_used_for_all(one_kind, tmp_path):
    for kind in ("resnet8", "sparse_resnet8"):
        (one_kind(kind) / "hparams.csv").unlink()
    write_hparams(tmp_path / "hparams.csv")
    assert import_paper(tmp_path, tmp_path / "zoo").treatments == ("standard", "w_asymmetric")


def test_another_constant_factor_scales_the_constants(asymzoo, one_kind, tmp_path, paper_zoo):
    code, output, _ = asymzoo("zoo", "import", "paper", one_kind(), tmp_path / "zoo", "--mask-constant", 3)
    assert (code, output) == (0, f"{tmp_path / 'zoo'}: {NETWORKS} pairs of w_asymmetric\n")
    zoo = open_zoo(tmp_path / "zoo")
    assert Recipe.of(zoo).treatments["w_asymmetric"].kappa == 3
    ours, theirs = (z.shared("w_asymmetric").held["constants"] for z in (zoo, paper_zoo))
    torch.testing.assert_close(ours, 1.5 * theirs)


def test_a_network_that_is_not_finite_is_kept_and_flagged(one_kind, tmp_path):
    folder = one_kind()
    save_again(folder / "1.pt", lambda state, a: (state | {"linear.bias": torch.full((10,), torch.nan)}, a))
    zoo = import_paper(folder, tmp_path / "zoo")
    every = zoo.networks("w_asymmetric", diverged=True)
    assert every["status"].tolist() == ["trained", "diverged"] + ["trained"] * (NETWORKS - 2)
    assert every.weights[1].isnan().any()


def test_the_size_of_shards_does_not_change_the_zoo_and_bounds_the_memory(published, paper_zoo, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.training.planning.SHARD_BYTES", 8 * 78042 * 2)
    written = []
    zoo = import_paper(published, tmp_path / "zoo", progress=written.append)
    assert max(written) == 2
    assert sum(written) == NETWORKS * len(NAMES)
    for treatment in zoo.treatments:
        for name in paper_zoo[treatment].columns:
            np.testing.assert_array_equal(zoo[treatment][name], paper_zoo[treatment][name])


def test_imported_networks_measure_as_published_on_images_prepared_as_published(paper_zoo, data_dir):
    lines = []
    found = verify(paper_zoo, data_dir=data_dir, log=lines.append)
    assert (found.measured, found.retrained, found.compared) == (NETWORKS * len(NAMES), 0, 0)
    assert lines == ["6 checksums match", f"{NETWORKS * len(NAMES)} networks measure as recorded"]


def test_networks_do_not_measure_as_recorded_on_negatives_of_the_images(paper_zoo, images, tmp_path):
    with pytest.raises(ZooError, match=r"pair \d: test accuracy is .*; check that the data are those of the recipe"):
        verify(paper_zoo, data_dir=write_images(tmp_path, 255 - images[0], images[1]))


def test_an_altered_accuracy_does_not_measure_as_recorded(one_kind, tmp_path, data_dir):
    folder = one_kind()
    save_again(folder / "4.pt", lambda state, percent: (state, percent + 1))
    with pytest.raises(ZooError, match=r"w_asymmetric, pair 4: test accuracy is .*, recorded as"):
        verify(import_paper(folder, tmp_path / "zoo"), data_dir=data_dir)


def test_an_imported_zoo_is_neither_retrained_nor_continued(paper_zoo, data_dir):
    with pytest.raises(
        ZooError, match=r"was imported \(Lim et al. 2024, section 5.3\), so its networks cannot be trained again"
    ):
        verify(paper_zoo, data_dir=data_dir, retrain=1)
    with pytest.raises(RecipeError, match="imported: networks of others cannot be trained"):
        generate(Recipe.of(paper_zoo), paper_zoo.folder)


def swap(path, entry, content):
    """Replace a member of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [name for name in members if name.endswith(entry)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, old in members.items():
            archive.writestr(each, content if each == name else old)


def damage(kind, state, accuracy):
    """Change a state_dict or its accuracy in a way that is not valid."""
    match kind:
        case "names":
            state["conv9.weight"] = state.pop("conv1.weight")
        case "shape":
            state["linear.bias"] = torch.zeros(11)
        case "expanded":
            state["linear.bias"] = torch.zeros(1).expand(10**12)
        case "dtype":
            state["linear.bias"] = state["linear.bias"].double()
        case "percent":
            accuracy = 100.5
        case "mask":
            state["linear.mask"] = state["linear.mask"] * 0.5
        case "constants":
            state["linear.normal_mask"] = state["linear.normal_mask"] + 1
    return state, accuracy


@pytest.mark.parametrize(
    ("kind", "fact"),
    [
        ("names", r"3\.pt: has 'conv9\.weight', which the architecture does not have"),
        ("shape", r"3\.pt: linear\.bias has shape \(11,\), the architecture has \(10,\)"),
        ("expanded", r"3\.pt: linear\.bias has shape \(1000000000000,\), the architecture has \(10,\)"),
        ("dtype", r"3\.pt: linear\.bias is not a dense float32 tensor \(torch\.float64\)"),
        ("percent", r"3\.pt: the accuracy is 100\.5, which is not a percentage"),
        ("mask", r"3\.pt: the mask of linear is not of 0 and 1"),
        ("constants", r"the constants of 3\.pt differ from those of 0\.pt"),
    ],
)
def test_a_wrong_network_is_one_clear_error_and_leaves_nothing(one_kind, tmp_path, kind, fact):
    folder = one_kind()
    save_again(folder / "3.pt", lambda state, accuracy: damage(kind, state, accuracy))
    refuse(import_paper, folder, tmp_path / "zoo", fact)


def bomb(folder):
    torch.save((Bomb(folder / "executed"), 50.0), folder / "3.pt")


def plain_pickle(folder):
    (folder / "3.pt").write_bytes(pickle.dumps(Bomb(folder / "executed")))


def unpacks_to_a_gigabyte(folder):
    swap(folder / "3.pt", "data/0", bytes(1 << 26))


def link(folder):
    (folder / "3.pt").rename(folder.parent / "3.pt")
    (folder / "3.pt").symlink_to(folder.parent / "3.pt")


def rewrite(name, change):
    def write(folder):
        (folder / name).write_text(change((folder / name).read_text()))

    return write


@pytest.mark.parametrize(
    ("harm", "fact"),
    [
        (bomb, r"3\.pt: is damaged or contains more than tensors and numbers \(UnpicklingError\)"),
        (plain_pickle, r"3\.pt: is damaged .* \(BadZipFile\)"),
        (unpacks_to_a_gigabyte, r"3\.pt: has [\d,]+ bytes, a network of this architecture has less than"),
        (
            lambda f: (f / "3.pt").write_bytes(bytes(1 << 22)),
            r"3\.pt: has 4,194,304 bytes, a network of this architecture has",
        ),
        (lambda f: torch.save(torch.zeros(3), f / "3.pt"), r"3\.pt: is not \(state_dict, accuracy\)"),
        (link, r"3\.pt: is outside "),
        (lambda f: (f / "3.pt").unlink(), r"3\.pt: missing; "),
        (lambda f: (f / "0.pt").unlink(), r"has no 0\.pt, nor have its subfolders"),
        (lambda f: (f / "hparams.csv").unlink(), r"hparams\.csv: missing"),
        (lambda f: (f / "hparams.csv").write_bytes(b"\xff\x00"), r"hparams\.csv: is not a CSV file"),
        (lambda f: write_hparams(f / "hparams.csv", 5), r"has 5 rows, but there is a 5\.pt"),
        (lambda f: write_hparams(f / "hparams.csv", 7), r"6\.pt: missing"),
        (
            rewrite("hparams.csv", lambda t: t.replace("epochs", "epoch")),
            r"has no column 'epochs' \(did you mean 'epoch'",
        ),
        (rewrite("hparams.csv", lambda t: t.replace("0.", "x.", 1)), r"line 2: lr is 'x\.\d+', not a finite number"),
        (rewrite("hparams.csv", lambda t: t.rstrip() + ".5\n"), r"line 7: epochs is \d+\.5, not a whole number"),
    ],
)
def test_a_forged_or_damaged_folder_is_one_clear_error_and_leaves_nothing(one_kind, tmp_path, harm, fact):
    folder = one_kind()
    harm(folder)
    refuse(import_paper, folder, tmp_path / "zoo", fact)
    assert not (folder / "executed").exists()


def test_folders_with_different_tables_are_refused(one_kind, tmp_path):
    write_hparams(one_kind("resnet8") / "hparams.csv", 5)
    one_kind("sparse_resnet8")
    (tmp_path / "resnet8" / "5.pt").unlink()
    refuse(import_paper, tmp_path, tmp_path / "zoo", "differs from the table of another folder, so there are no pairs")


def test_two_folders_of_the_same_kind_are_refused(one_kind, tmp_path):
    one_kind("resnet8").rename(tmp_path / "copy")
    one_kind("resnet8")
    refuse(import_paper, tmp_path, tmp_path / "zoo", r"copy/ and resnet8/ both have standard networks")


def test_accuracies_that_are_fractions_are_refused(one_kind, tmp_path):
    folder = one_kind()
    for path in folder.glob("*.pt"):
        save_again(path, lambda state, percent: (state, percent / 100))
    refuse(import_paper, folder, tmp_path / "zoo", "accuracies are fractions, but the published ones are in percent")


def test_a_folder_that_is_not_empty_is_refused_and_unchanged(published, tmp_path):
    (tmp_path / "mine").write_text("mine")
    refuse(import_paper, published, tmp_path, "is not empty; choose another folder")
    assert (tmp_path / "mine").read_text() == "mine"
