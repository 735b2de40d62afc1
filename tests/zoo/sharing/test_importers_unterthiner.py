"""The Small CNN Zoo: written here in TensorFlow's conventions and computed with NumPy, then imported."""

import gzip

import numpy as np
import pandas as pd
import pytest
import torch

from tests.zoo.sharing.test_importers import refuse
from zoo.data import Data
from zoo.data.imported import Imported
from zoo.recipes.recipe import Recipe
from zoo.sharing.importers import import_unterthiner

RUNS, STEPS = 8, (0, 1, 86)
SHAPES = {  # in the order of the columns: biases before kernels, as published
    "sequential/conv2d/bias:0": (16,),
    "sequential/conv2d/kernel:0": (3, 3, 1, 16),
    "sequential/conv2d_1/bias:0": (16,),
    "sequential/conv2d_1/kernel:0": (3, 3, 16, 16),
    "sequential/conv2d_2/bias:0": (16,),
    "sequential/conv2d_2/kernel:0": (3, 3, 16, 16),
    "sequential/dense/bias:0": (10,),
    "sequential/dense/kernel:0": (16, 10),
}
SIZE = 4970


def layout_table():
    ends = np.cumsum([np.prod(shape) for shape in SHAPES.values()])
    starts = ends - [np.prod(shape) for shape in SHAPES.values()]
    shapes = [str(shape) for shape in SHAPES.values()]
    return pd.DataFrame(
        {"varname": list(SHAPES), "start_idx": starts, "end_idx": ends, "size": ends - starts, "shape": shapes}
    )


def metrics_table():
    """Return a table of checkpoints: those of a run are consecutive, but the last one is not always at the end."""
    rng = np.random.default_rng(0)
    rows = []
    for run in range(RUNS):
        settings = {
            "config.activation": ("relu", "tanh")[run % 2],
            "config.dataset": "mnist",
            "config.dropout": rng.uniform(0, 0.7),
            "config.epochs": 86,
            "config.init_std": rng.uniform(1e-3, 0.5),
            "config.l2reg": 10 ** rng.uniform(-8, -2),
            "config.learning_rate": 10 ** rng.uniform(-5, -1),
            "config.optimizer": ("adam", "sgd")[run // 4],
            "config.train_fraction": (0.1, 1.0)[run // 4],
            "config.w_init": "he_normal",
        }
        for step in rng.permutation(STEPS):
            metrics = {f"{part}_{name}": rng.random() for part in ("test", "train") for name in ("accuracy", "loss")}
            checkpoint = {"step": step, "modeldir": f"/runs/{run}" + (f"/permanent_ckpt-{step}" if run < 4 else "")}
            rows.append(settings | checkpoint | metrics)
    return pd.DataFrame(rows)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    layout_table().to_csv(folder / "layout.csv", index=False)
    metrics_table().to_csv(folder / "metrics.csv", index=False)
    weights = 0.3 * np.random.default_rng(1).standard_normal((RUNS * len(STEPS), SIZE))
    np.save(folder / "weights.npy", weights.astype(np.float32))
    return folder


def tensorflow_logits(row, images, activation):
    """The logits of `tf.keras` on `(B, H, W, 1)`: valid convolutions of stride 2, a global mean, a dense layer."""
    variables, at = {}, 0
    for name, shape in SHAPES.items():
        variables[name.removeprefix("sequential/")] = row[at : at + np.prod(shape)].reshape(shape).astype(np.float64)
        at += np.prod(shape)
    x = images
    for layer in ("conv2d", "conv2d_1", "conv2d_2"):
        kernel, bias = variables[f"{layer}/kernel:0"], variables[f"{layer}/bias:0"]
        rows, columns = ((length - 3) // 2 + 1 for length in x.shape[1:3])
        y = np.empty((len(x), rows, columns, kernel.shape[-1]))
        for i in range(rows):
            for j in range(columns):
                y[:, i, j] = np.tensordot(x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel, 3) + bias
        x = np.maximum(y, 0) if activation == "relu" else np.tanh(y)
    return x.mean((1, 2)) @ variables["dense/kernel:0"] + variables["dense/bias:0"]


def last_rows(activation):
    table = metrics_table()
    return np.flatnonzero((table["step"] == STEPS[-1]) & (table["config.activation"] == activation))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("length", [28, 32])
def test_an_imported_network_has_the_logits_of_the_tensorflow_network(
    source, tmp_path, monkeypatch, activation, length
):
    monkeypatch.setattr("zoo.training.planning.SHARD_BYTES", 1)
    zoo = import_unterthiner(source, tmp_path / "zoo", activation=activation)
    images = np.random.default_rng(2).standard_normal((3, length, length, 1))
    logits = zoo["standard"].stack().logits(torch.from_numpy(images).float().movedim(-1, 1)).numpy()
    weights, rows = np.load(source / "weights.npy"), last_rows(activation)
    assert len(zoo) == len(rows) == RUNS // 2
    for ours, row in zip(logits, rows, strict=True):
        np.testing.assert_allclose(ours, tensorflow_logits(weights[row], images, activation), rtol=1e-4, atol=1e-4)


def test_labels_are_those_of_the_last_checkpoint(source, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.training.planning.SHARD_BYTES", 1)  # a network a shard
    done = []
    zoo = import_unterthiner(source, tmp_path / "zoo", activation="tanh", progress=done.append)
    table = metrics_table().iloc[last_rows("tanh")]
    assert done == [1] * len(table)
    for ours, theirs in {
        "test_accuracy": table["test_accuracy"],
        "train_accuracy": table["train_accuracy"],
        "learning_rate": table["config.learning_rate"],
        "weight_decay": 2 * table["config.l2reg"],
        "train_fraction": table["config.train_fraction"],
    }.items():
        np.testing.assert_allclose(zoo["standard"][ours], theirs, rtol=1e-6)
    assert zoo["standard"]["optimizer"].tolist() == table["config.optimizer"].tolist()
    assert Recipe.of(zoo).training.learning_rate.bounds == pytest.approx(
        (table["config.learning_rate"].min(), table["config.learning_rate"].max())
    )
    assert not any(name.endswith("loss") for name in zoo["standard"].columns)  # theirs have the penalty in them


def test_the_weight_decay_has_the_gradient_of_the_published_penalty():
    """The penalty is `l2reg * sum(w^2)`; weight decay as in `torch.optim.SGD` adds `weight_decay * w`."""
    l2reg, w = 0.01, torch.randn(5, requires_grad=True)
    (l2reg * w.square().sum()).backward()
    torch.testing.assert_close(w.grad, 2 * l2reg * w.detach())


def test_a_compressed_table_is_read(source, tmp_path):
    content = (source / "metrics.csv").read_bytes()
    (source / "metrics.csv").unlink()
    (source / "metrics.csv.gz").write_bytes(gzip.compress(content))
    assert len(import_unterthiner(source, tmp_path / "zoo", activation="relu")) == RUNS // 2


def test_the_order_of_rows_in_the_layout_does_not_matter(source, tmp_path):
    zoo = import_unterthiner(source, tmp_path / "zoo", activation="relu")
    layout_table().sample(frac=1, random_state=0).to_csv(source / "layout.csv", index=False)
    again = import_unterthiner(source, tmp_path / "again", activation="relu")
    assert torch.equal(again["standard"].weights[:], zoo["standard"].weights[:])


def test_a_network_that_is_not_finite_is_kept_and_flagged(source, tmp_path):
    weights = np.load(source / "weights.npy")
    weights[last_rows("relu")[2], 7] = np.inf
    np.save(source / "weights.npy", weights)
    zoo = import_unterthiner(source, tmp_path / "zoo", activation="relu")
    assert zoo.networks("standard", diverged=True)["status"].tolist() == ["trained", "trained", "diverged", "trained"]


def test_grey_networks_read_the_mean_of_the_pixels_from_minus_one_to_one(source, tmp_path):
    table = metrics_table().assign(**{"config.dataset": "cifar10"})
    table.to_csv(source / "metrics.csv", index=False)
    zoo = import_unterthiner(source, tmp_path / "zoo", activation="relu")
    assert Recipe.of(zoo).data.name == "cifar10"
    pixels = np.random.default_rng(0).random((5, 3, 4, 4))
    mean, deviation = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    x = torch.from_numpy(((pixels - mean[:, None, None]) / deviation[:, None, None]).astype(np.float32))
    moments = (torch.from_numpy(mean).float(), torch.from_numpy(deviation).float())
    data = Data("cifar10", x, torch.zeros(5).long(), x, torch.zeros(5).long(), 10, moments, outside=x)
    prepared = Recipe.of(zoo).imported.prepare(data)
    for theirs in (prepared.train_x, prepared.test_x, prepared.outside):
        np.testing.assert_allclose(theirs.numpy(), (2 * pixels - 1).mean(1, keepdims=True), atol=1e-6)


def test_one_mean_fits_only_data_of_one_channel():
    x, y = torch.zeros(2, 3, 4, 4), torch.zeros(2).long()
    data = Data("cifar10", x, y, x, y, 10, moments=(torch.zeros(3), torch.ones(3)))
    with pytest.raises(Exception, match=r"imported\.mean: 1 values do not fit cifar10"):
        Imported(source="me", mean=[0.5], deviation=[0.5]).prepare(data)


def layout(row, **values):
    def write(folder):
        table = layout_table()
        for name, value in values.items():
            table[name] = table[name].astype(object)
            table.loc[row, name] = value
        table.to_csv(folder / "layout.csv", index=False)

    return write


def metrics(row=4, **values):
    def write(folder):
        table = metrics_table().astype(object)
        for name, value in values.items():
            table.loc[row, name.replace("config_", "config.")] = value
        table.to_csv(folder / "metrics.csv", index=False)

    return write


def forge(shape, content=b""):
    """Write an array file whose header gives a larger size than the file has."""

    def write(folder):
        with (folder / "weights.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            file.write(content)

    return write


def rows_less(folder):
    np.save(folder / "weights.npy", np.zeros((RUNS * len(STEPS) - 1, SIZE), np.float32))


def link(folder):
    (folder / "weights.npy").rename(folder.parent / "weights.npy")
    (folder / "weights.npy").symlink_to(folder.parent / "weights.npy")


def pickled(folder):
    np.save(folder / "weights.npy", np.array([{"a": 1}], object), allow_pickle=True)


@pytest.mark.parametrize(
    ("harm", "fact"),
    [
        (layout(3, start_idx=170), r"conv2d_1/kernel:0 begins at column 170 and overlaps the tensor before it"),
        (layout(3, start_idx=180), r"conv2d_1/kernel:0 begins at column 180 and leaves a gap"),
        (layout(7, end_idx=5000), r"dense/kernel:0 has 190 columns and the shape '\(16, 10\)'"),
        (layout(7, end_idx=5000, shape="(19, 10)"), r"describes 5,000 columns, but weights\.npy has 4,970"),
        (layout(3, shape="(999999999, 999999999, 999999999)"), r"has 2304 columns and the shape '\(999999999"),
        (layout(3, shape="(9**9**9,)"), r"has 2304 columns and the shape '\(9\*\*9\*\*9,\)'"),
        (layout(3, shape="(16, 16, 3, 3)"), r"convs\.1\.conv\.weight would have shape \(3, 3, 16, 16\)"),
        (layout(3, start_idx=-1), r"layout\.csv: line 5: start_idx is '-1', not a finite number from 0"),
        (
            layout(3, varname="sequential/conv2d_1/gamma:0"),
            r"not kernels and biases of convolutions and one dense layer",
        ),
        (
            layout(3, varname="sequential/conv2d_1/bias:0"),
            r"not kernels and biases of convolutions and one dense layer",
        ),
        (forge((10**12, SIZE)), r"weights\.npy: is not an array of numbers of the size in its header"),
        (forge((10**30, 10**30)), r"weights\.npy: is not an array of numbers of the size in its header"),
        (forge((24 * SIZE,), bytes(4 * 24 * SIZE)), r"weights\.npy: is not a two-dimensional array"),
        (pickled, r"weights\.npy: is not an array of numbers"),
        (lambda f: (f / "weights.npy").write_bytes(b"no"), r"weights\.npy: is not an array of numbers"),
        (rows_less, r"metrics\.csv: needs 23 rows"),
        (link, r"weights\.npy: is outside "),
        (lambda f: (f / "layout.csv").unlink(), r"layout\.csv: missing"),
        (lambda f: (f / "metrics.csv").unlink(), r"metrics\.csv: missing"),
        (metrics(step="late"), r"metrics\.csv: line 6: step is 'late', not a finite number from 0"),
        (
            metrics(row=last_rows("relu")[2], test_accuracy=10),
            rf"line {last_rows('relu')[2] + 2}: test_accuracy is '10', not a finite number from 0 to 1",
        ),
        (
            metrics(row=range(24), config_dataset="imagenet"),
            r"config\.dataset is imagenet; it must be one of mnist, fashion_mnist",
        ),
        (metrics(row=range(3), config_dataset="cifar10"), r"config\.dataset is cifar10, mnist; it must be one of"),
    ],
)
def test_a_forged_or_damaged_zoo_is_one_clear_error_and_leaves_nothing(source, tmp_path, harm, fact):
    harm(source)
    refuse(import_unterthiner, source, tmp_path / "zoo", fact, activation="relu")


def test_the_activation_is_required_if_there_are_several(asymzoo, source, tmp_path):
    refuse(import_unterthiner, source, tmp_path / "zoo", "has networks with relu, tanh; choose one with --activation")
    refuse(
        import_unterthiner,
        source,
        tmp_path / "zoo",
        r"no networks with 'rely' \(did you mean 'relu'",
        activation="rely",
    )
    code, output, _ = asymzoo("zoo", "import", "unterthiner", source, tmp_path / "relu", "--activation", "relu")
    assert (code, output) == (0, f"{tmp_path / 'relu'}: {RUNS // 2} pairs of standard\n")
    metrics(row=range(24), config_activation="tanh")(source)
    assert Recipe.of(import_unterthiner(source, tmp_path / "zoo")).architecture.arguments["activation"] == "tanh"
