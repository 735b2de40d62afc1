import gzip
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from zoo.data import CIFAR_FILES, CIFAR_FOLDER, DATASETS, IDX_FILES, Data, load_data
from zoo.errors import DataError

TRAIN, TEST = 30, 10


@pytest.fixture
def grey():
    """Images (n, 28, 28) and labels of both splits, as bytes."""
    return random_splits(28, 28)


@pytest.fixture
def colour():
    """Images (n, 3, 32, 32) and labels of both splits, as bytes."""
    return random_splits(3, 32, 32)


def random_splits(*shape):
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, high, (n, *shape), dtype=np.uint8), rng.permutation(np.arange(n, dtype=np.uint8) % 10))
        for n, high in ((TRAIN, 256), (TEST, 200))
    ]


def idx_bytes(array):
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_idx(folder, splits, suffix=""):
    for (images, labels), files in zip(splits, IDX_FILES, strict=True):
        write(folder / f"{files[0]}{suffix}", idx_bytes(images))
        write(folder / f"{files[1]}{suffix}", idx_bytes(labels))


def write_cifar(folder, splits):
    for (images, labels), files in zip(splits, CIFAR_FILES, strict=True):
        records = np.concatenate([labels[:, None], images.reshape(len(images), -1)], axis=1)
        for file, batch in zip(files, np.split(records, len(files)), strict=True):
            write(folder / file, batch.tobytes())


def as_datasets(splits, image="image", label="label"):
    """The same splits as the Hub would give them."""
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(num_classes=10)})
    parts = {}
    for part, (images, labels) in zip(("train", "test"), splits, strict=True):
        pictures = list(images if images.ndim == 3 else images.transpose(0, 2, 3, 1))
        parts[part] = datasets.Dataset.from_dict({image: pictures, label: labels}, features=features)
    return datasets.DatasetDict(parts)


def bytes_again(data, splits):
    """Undo the standardisation of both splits by the bytes that were written."""
    pixels = splits[0][0].astype(np.float64) / 255
    axes = (0, 1, 2) if pixels.ndim == 3 else (0, 2, 3)
    mean, deviation = pixels.mean(axes, keepdims=True), pixels.std(axes, keepdims=True)
    shape = (1, -1, 1, 1)
    undone = [x.numpy() * deviation.reshape(shape) + mean.reshape(shape) for x in (data.train_x, data.test_x)]
    return [np.rint(255 * x).astype(np.uint8) for x in undone]


def assert_holds(data, splits):
    """Both splits of `data` are the bytes that were written, in their order."""
    for (images, labels), again, y in zip(splits, bytes_again(data, splits), (data.train_y, data.test_y), strict=True):
        np.testing.assert_array_equal(again.squeeze(1) if images.ndim == 3 else again, images)
        np.testing.assert_array_equal(y.numpy(), labels)


def assert_equal(one, other):
    for field in ("train_x", "train_y", "test_x", "test_y"):
        torch.testing.assert_close(getattr(one, field), getattr(other, field), rtol=0, atol=0)


def message(name, **options):
    """The message of the DataError that loading raises: one line."""
    with pytest.raises(DataError) as raised:
        load_data(name, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Files


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_idx_files_load_to_the_images_written(tmp_path, grey, name, suffix):
    write_idx(tmp_path, grey, suffix)
    data = load_data(name, data_dir=tmp_path)
    assert_holds(data, grey)
    assert (data.name, data.shape, data.classes) == (name, (1, 28, 28), 10)
    assert {x.dtype for x in (data.train_x, data.test_x)} == {torch.float32}
    assert {y.dtype for y in (data.train_y, data.test_y)} == {torch.int64}


def test_plain_and_gzipped_idx_files_may_be_mixed(tmp_path, grey):
    write_idx(tmp_path, grey, ".gz")
    write(tmp_path / IDX_FILES[0][0], idx_bytes(grey[0][0]))
    (tmp_path / f"{IDX_FILES[0][0]}.gz").unlink()
    assert_holds(load_data("mnist", data_dir=str(tmp_path)), grey)


def test_the_subfolder_of_the_name_comes_before_the_folder(tmp_path, grey):
    write_idx(tmp_path, [(255 - images, labels) for images, labels in grey])
    write_idx(tmp_path / "mnist", grey)
    assert_holds(load_data("mnist", data_dir=tmp_path), grey)


def test_saved_folder_comes_before_idx_files(tmp_path, grey):
    write_idx(tmp_path, [(255 - images, labels) for images, labels in grey])
    as_datasets(grey).save_to_disk(tmp_path)
    assert_holds(load_data("mnist", data_dir=tmp_path), grey)


def test_images_saved_by_datasets_and_as_idx_files_give_equal_tensors(tmp_path, grey):
    write_idx(tmp_path / "idx", grey)
    as_datasets(grey).save_to_disk(tmp_path / "saved" / "mnist")
    idx, saved = (load_data("mnist", data_dir=tmp_path / folder) for folder in ("idx", "saved"))
    assert_equal(idx, saved)
    assert idx.digest == saved.digest


@pytest.mark.parametrize("subfolder", ["", CIFAR_FOLDER, "cifar10", f"cifar10/{CIFAR_FOLDER}"])
def test_cifar_binary_files_load_to_the_images_written(tmp_path, colour, subfolder):
    write_cifar(tmp_path / subfolder, colour)
    data = load_data("cifar10", data_dir=tmp_path)
    assert_holds(data, colour)
    assert data.shape == (3, 32, 32)


def test_images_saved_by_datasets_and_as_cifar_binary_give_equal_tensors(tmp_path, colour):
    write_cifar(tmp_path / "binary", colour)
    as_datasets(colour, image="img").save_to_disk(tmp_path / "saved")
    assert_equal(*(load_data("cifar10", data_dir=tmp_path / folder) for folder in ("binary", "saved")))


def test_mnist1d_loads_from_a_saved_folder_as_one_channel_of_40(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(3.0, 2.0, (TRAIN, 40)), np.arange(TRAIN) % 10
    train, test = (datasets.Dataset.from_dict({"x": x[:n].tolist(), "y": y[:n]}) for n in (TRAIN, TEST))
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path)
    data = load_data("mnist1d", data_dir=tmp_path)
    expected = torch.from_numpy((x - x.mean()) / x.std()).float()[:, None]
    torch.testing.assert_close(data.train_x, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(data.test_x, expected[:TEST], rtol=1e-5, atol=1e-6)
    assert data.train_y.tolist() == y.tolist()
    assert data.shape == (1, 40)


def test_each_channel_of_the_training_set_has_mean_0_and_deviation_1(tmp_path, colour):
    (images, labels), test = colour
    images = images // np.array([1, 2, 4], np.uint8)[:, None, None]
    write_cifar(tmp_path, [(images, labels), test])
    x = load_data("cifar10", data_dir=tmp_path).train_x.double()
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_examples_are_pixels_from_0_to_1_standardised_by_the_moments(tmp_path, grey, colour, name):
    splits, write = (grey, write_idx) if name == "mnist" else (colour, write_cifar)
    write(tmp_path, splits)
    data = load_data(name, data_dir=tmp_path)
    mean, deviation = (values[:, None, None] for values in data.moments)
    pixels = torch.from_numpy(splits[1][0] / 255).float()
    torch.testing.assert_close(data.test_x * deviation + mean, pixels[:, None] if name == "mnist" else pixels)


# Examples of other data sets


def test_others_are_standardised_as_the_data_are(tmp_path, grey):
    """A black pixel is the same number in both."""
    others = [(255 - images, labels) for images, labels in grey]
    write_idx(tmp_path / "mnist", grey)
    write_idx(tmp_path / "kmnist", others)
    data = load_data("mnist", data_dir=tmp_path, outside="kmnist", train_limit=7)
    mean, deviation = grey[0][0].mean(), grey[0][0].std()
    np.testing.assert_allclose(data.outside[:, 0], (others[1][0] - mean) / deviation, rtol=1e-4, atol=1e-5)
    assert data.digest == load_data("mnist", data_dir=tmp_path, train_limit=7).digest


def test_others_are_not_taken_from_the_files_of_the_data(tmp_path, grey):
    write_idx(tmp_path, grey)
    told = message("mnist", data_dir=tmp_path, outside="kmnist")
    assert told.startswith(f"{tmp_path / 'kmnist'}: holds no kmnist; looked in {tmp_path / 'kmnist'} for")


def test_others_that_do_not_fit_are_refused(tmp_path, grey, colour):
    write_idx(tmp_path / "mnist", grey)
    write_cifar(tmp_path / "cifar10", colour)
    told = message("mnist", data_dir=tmp_path, outside="cifar10")
    assert told.startswith("outside: examples of cifar10 are (3, 32, 32) of uint8, not (1, 28, 28) of uint8; take")
    assert message("mnist", outside="mnist").startswith("outside: mnist cannot be told from mnist; take another")
    assert message("sbm", outside="mnist").startswith("outside: mnist cannot be told from sbm; take another")
    assert message("mnist", outside="fasion_mnist").startswith("outside: no data set 'fasion_mnist' (did you mean")


# Digits


def test_digits_are_split_into_disjoint_parts_of_the_whole():
    data = load_data("digits")
    x = torch.cat([data.train_x, data.test_x]).flatten(1)
    pixels = torch.round(16 * (x - x.min()) / (x.max() - x.min())).int().tolist()
    loaded = Counter(zip(map(tuple, pixels), torch.cat([data.train_y, data.test_y]).tolist(), strict=True))
    images, labels = load_digits(return_X_y=True)
    assert loaded == Counter(zip(map(tuple, images.astype(int).tolist()), labels.tolist(), strict=True))
    assert (data.shape, len(data.train_y), len(data.test_y)) == ((1, 8, 8), 1438, 359)


def test_digits_split_is_stratified():
    data = load_data("digits")
    train, test = data.train_y.bincount(minlength=10), data.test_y.bincount(minlength=10)
    assert ((test - 0.2 * (train + test)).abs() <= 0.5).all()


def test_digits_are_standardised_by_the_training_set():
    data = load_data("digits")
    assert abs(data.train_x.double().mean()) < 1e-6
    assert abs(data.train_x.double().std(correction=0) - 1) < 1e-6
    assert abs(data.test_x.double().mean()) > 1e-4


def test_digits_are_the_same_everywhere(tmp_path):
    assert load_data("digits", data_dir=tmp_path / "absent").digest == "b58b425020b77df46f5e20a30dee6f4c"


# Limits


def test_train_limit_is_a_fixed_subset_nested_in_larger_ones():
    whole, few, more = (load_data("digits", train_limit=limit) for limit in (None, 100, 400))
    assert_equal(few, load_data("digits", train_limit=100))
    torch.testing.assert_close(more.train_x[:100], few.train_x, rtol=0, atol=0)
    torch.testing.assert_close(more.train_y[:100], few.train_y, rtol=0, atol=0)
    examples = Counter(zip(map(tuple, whole.train_x.flatten(1).tolist()), whole.train_y.tolist(), strict=True))
    assert Counter(zip(map(tuple, more.train_x.flatten(1).tolist()), more.train_y.tolist(), strict=True)) <= examples
    torch.testing.assert_close(few.test_x, whole.test_x, rtol=0, atol=0)


def test_train_limit_draws_at_random(tmp_path, grey):
    write_idx(tmp_path, grey)
    whole, half = (load_data("mnist", data_dir=tmp_path, train_limit=limit) for limit in (None, TRAIN // 2))
    kept = [torch.nonzero((whole.train_x == x).flatten(1).all(1)).item() for x in half.train_x]
    assert kept != sorted(kept)
    assert max(kept) >= TRAIN // 2
    fashion = load_data("fashion_mnist", data_dir=tmp_path, train_limit=TRAIN // 2)
    assert not torch.equal(fashion.train_x, half.train_x)


def test_train_limit_may_be_all_and_no_more():
    assert len(load_data("digits", train_limit=1438).train_y) == 1438
    for limit in (1439, 0, -1):
        expected = f"train_limit {limit}: digits has 1438 training examples; ask for 1 to 1438"
        assert message("digits", train_limit=limit) == expected


# Errors


@pytest.mark.parametrize(("wrong", "nearest"), [("mnits", "mnist"), ("cifar-10", "cifar10"), ("MNIST", "mnist")])
def test_unknown_name_suggests_the_nearest(wrong, nearest):
    text = message(wrong)
    assert repr(wrong) in text
    assert f"did you mean {nearest!r}?" in text
    assert ", ".join(DATASETS) in text


@pytest.mark.parametrize("name", [name for name, source in DATASETS.items() if source])
def test_folder_without_the_files_says_what_was_looked_for_and_where(tmp_path, name):
    text = message(name, data_dir=tmp_path)
    assert text.startswith(f"{tmp_path}: holds no {name};")
    assert f"looked in {tmp_path / name} and {tmp_path} for" in text
    assert "dataset_dict.json" in text
    assert all(file in text for files in DATASETS[name].files for file in files)


def test_an_incomplete_set_of_files_is_none(tmp_path, grey):
    write_idx(tmp_path, grey)
    (tmp_path / IDX_FILES[1][1]).unlink()
    assert "holds no mnist" in message("mnist", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "svhn", "mnist1d"])
def test_idx_files_do_not_serve_other_data_sets(tmp_path, grey, name):
    write_idx(tmp_path, grey)
    assert f"holds no {name}" in message(name, data_dir=tmp_path)


def test_cifar_binary_files_do_not_serve_mnist(tmp_path, colour):
    write_cifar(tmp_path, colour)
    assert "holds no mnist" in message("mnist", data_dir=tmp_path)


def test_wrong_magic_number_is_named(tmp_path, grey):
    write_idx(tmp_path, grey)
    path = tmp_path / IDX_FILES[0][0]
    path.write_bytes(idx_bytes(grey[0][1]))
    text = message("mnist", data_dir=tmp_path)
    assert text == f"{path}: starts with 00000801, not IDX's 00000803; fetch it again"


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kept", [-1, 16, 7])
def test_truncated_idx_file_is_named(tmp_path, grey, suffix, kept):
    write_idx(tmp_path, grey, suffix)
    path = tmp_path / f"{IDX_FILES[1][0]}{suffix}"
    content = idx_bytes(grey[1][0])[:kept]
    write(path, content)
    text = message("mnist", data_dir=tmp_path)
    assert text.startswith(f"{path}: has {len(content)} bytes, its header says ")
    assert text.endswith("; fetch it again")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_header_that_promises_more_than_memory_is_only_an_error(tmp_path, grey, suffix):
    write_idx(tmp_path, grey, suffix)
    write(tmp_path / f"{IDX_FILES[0][0]}{suffix}", bytes([0, 0, 8, 3]) + b"\xff" * 12 + bytes(100))
    expected = 16 + (2**32 - 1) ** 3
    assert f"has 116 bytes, its header says {expected};" in message("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-20], lambda b: b"no" + b[2:], lambda b: b[:10] + b"\x07" + b[11:]],
    ids=["cut", "header", "stream"],
)
def test_damaged_gzip_file_is_named(tmp_path, grey, damage):
    write_idx(tmp_path, grey, ".gz")
    path = tmp_path / f"{IDX_FILES[0][0]}.gz"
    path.write_bytes(damage(path.read_bytes()))
    assert message("mnist", data_dir=tmp_path) == f"{path}: is a damaged gzip file; fetch it again"


def test_images_and_labels_of_different_counts_are_named(tmp_path, grey):
    (images, labels), test = grey
    write_idx(tmp_path, [(images, labels[:-1]), test])
    text = message("mnist", data_dir=tmp_path)
    assert text == f"{tmp_path / IDX_FILES[0][1]}: 29 labels for 30 images; take both from one download"


def test_files_without_images_are_an_error(tmp_path, grey):
    write_idx(tmp_path, [(images[:0], labels[:0]) for images, labels in grey])
    assert "0 labels for 0 images" in message("mnist", data_dir=tmp_path)


def test_labels_out_of_range_are_named(tmp_path, grey, colour):
    write_idx(tmp_path / "mnist", [grey[0], (grey[1][0], grey[1][1] + 1)])
    place = tmp_path / "mnist" / IDX_FILES[1][1]
    assert f"{place}: labels run from 1 to 10, not 0 to 9;" in message("mnist", data_dir=tmp_path)
    write_cifar(tmp_path / "cifar10", [(colour[0][0], colour[0][1] + 100), colour[1]])
    assert "cifar10: labels run from 100 to 109, not 0 to 9;" in message("cifar10", data_dir=tmp_path)


def test_negative_labels_of_a_saved_folder_are_named(tmp_path):
    part = datasets.Dataset.from_dict({"x": [[0.0, 1.0]] * 2, "y": [-1, 0]})
    datasets.DatasetDict(train=part, test=part).save_to_disk(tmp_path)
    assert f"{tmp_path} (train): labels run from -1 to 0, not 0 to 9;" in message("mnist1d", data_dir=tmp_path)


def test_training_and_test_images_of_different_shapes_are_named(tmp_path, grey):
    write_idx(tmp_path, [grey[0], (grey[1][0][:, 1:], grey[1][1])])
    assert "(1, 28, 28) in training and (1, 27, 28) in test" in message("mnist", data_dir=tmp_path)


def test_a_channel_without_variation_is_an_error(tmp_path, colour):
    (images, labels), test = colour
    images[:, 1] = 7
    write_cifar(tmp_path, [(images, labels), test])
    assert "a channel has the same value everywhere" in message("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("part", [0, 1])
def test_cifar_file_of_broken_records_is_named(tmp_path, colour, part):
    write_cifar(tmp_path, colour)
    path = tmp_path / CIFAR_FILES[part][-1]
    path.write_bytes(path.read_bytes()[:-1])
    text = message("cifar10", data_dir=tmp_path)
    assert text.startswith(f"{path}: ")
    assert "bytes are no multiple of 3073; fetch it again" in text


def test_saved_folder_with_other_columns_or_splits_is_named(tmp_path, grey):
    as_datasets(grey, image="img").save_to_disk(tmp_path / "columns")
    text = message("mnist", data_dir=tmp_path / "columns")
    assert text.startswith(f"{tmp_path / 'columns'}: needs a split 'train' with columns ['image', 'label']")
    only_train = datasets.DatasetDict(train=as_datasets(grey)["train"])
    only_train.save_to_disk(tmp_path / "splits")
    assert "needs a split 'test' with columns" in message("mnist", data_dir=tmp_path / "splits")


def test_saved_images_of_different_sizes_are_an_error(tmp_path):
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    ragged = {"image": [np.zeros((4, 4), np.uint8), np.zeros((5, 4), np.uint8)], "label": [0, 1]}
    part = datasets.Dataset.from_dict(ragged, features=features)
    datasets.DatasetDict(train=part, test=part).save_to_disk(tmp_path)
    assert "needs images of one size and whole-number labels" in message("mnist", data_dir=tmp_path)


def test_damaged_saved_folder_is_an_error(tmp_path, grey):
    as_datasets(grey).save_to_disk(tmp_path)
    (tmp_path / "dataset_dict.json").write_text("{")
    assert message("mnist", data_dir=tmp_path).startswith(f"{tmp_path}: cannot be read (")


# The Hub


@pytest.mark.parametrize("name", [name for name, source in DATASETS.items() if source])
def test_data_set_of_the_hub_loads(monkeypatch, grey, colour, name):
    source, asked = DATASETS[name], []
    splits = colour if name in ("cifar10", "svhn") else grey

    def load_dataset(*arguments):
        asked.append(arguments)
        if name != "mnist1d":
            return as_datasets(splits, source.image, source.label)
        rows = [{"x": images[:, 0].tolist(), "y": labels} for images, labels in splits]
        return datasets.DatasetDict(zip(("train", "test"), map(datasets.Dataset.from_dict, rows), strict=True))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_data(name)
    assert asked == [(source.repository, source.config)]
    if name == "mnist1d":
        assert data.shape == (1, 28)
    else:
        assert_holds(data, splits)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach it\non the Hub"),
        FileNotFoundError("no such repository"),
        OSError("disk full"),
        ValueError("Couldn't find cache"),
        datasets.exceptions.DatasetNotFoundError("gone"),
        datasets.exceptions.DatasetGenerationError("broken"),
    ],
)
@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("mnist", "the IDX files (train-images-idx3-ubyte, "),
        ("fashion_mnist", "the IDX files (train-images-idx3-ubyte, "),
        ("kmnist", "the IDX files (train-images-idx3-ubyte, "),
        ("cifar10", "the binary version (data_batch_1.bin, "),
        ("svhn", "put a folder saved by `datasets`' save_to_disk"),
        ("mnist1d", "put a folder saved by `datasets`' save_to_disk"),
    ],
)
def test_hub_out_of_reach_says_which_files_to_put_where(monkeypatch, error, name, files):
    def load_dataset(*arguments):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    text = message(name)
    assert text.startswith(f"{name}: {DATASETS[name].repository} cannot be had from the Hugging Face Hub")
    assert type(error).__name__ in text
    assert files in text
    assert text.endswith("in a folder DIR and pass --data-dir DIR (data_dir= in Python)")


def test_folder_given_means_the_hub_is_not_asked(monkeypatch, tmp_path, grey):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: pytest.fail("asked the Hub"))
    assert "holds no mnist" in message("mnist", data_dir=tmp_path)
    write_idx(tmp_path, grey)
    assert_holds(load_data("mnist", data_dir=tmp_path), grey)


# Data


def tiny():
    x, y = torch.arange(12.0).view(3, 1, 2, 2), torch.tensor([0, 1, 2])
    return Data("tiny", x, y, x[:2] + 1, y[:2], 3, outside=x + 2)


def test_digest_depends_on_every_tensor_and_on_nothing_else():
    data = tiny()
    others = [
        replace(data, **{field: getattr(data, field).flip(0)}) for field in vars(data) if field[-2:] in ("_x", "_y")
    ]
    assert len({data.digest, *(other.digest for other in others)}) == 5
    strided = replace(data, name="other", train_x=data.train_x.transpose(2, 3).contiguous().transpose(2, 3))
    assert not strided.train_x.is_contiguous()
    assert strided.digest == data.digest
    assert len(data.digest) == 32


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_to_converts_examples_and_keeps_labels(dtype):
    data = tiny().to("cpu", dtype)
    assert data.train_x.dtype == data.test_x.dtype == data.outside.dtype == dtype
    assert data.train_y.dtype == data.test_y.dtype == torch.int64
    assert data.to().digest == tiny().digest
    assert data.digest != tiny().digest


def test_importing_needs_neither_datasets_nor_scikit_learn():
    code = "import sys, zoo.data; print(sorted({'datasets', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
