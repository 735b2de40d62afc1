import datasets
import numpy as np
import torch

from tests.zoo.data.scenarios import SAVED, TEST, TRAIN, as_datasets, assert_equal, message, write_cifar, write_idx
from zoo.data import load_data


def test_images_saved_by_datasets_and_as_idx_files_give_equal_tensors(tmp_path, grey):
    write_idx(tmp_path / "idx", grey)
    as_datasets(grey).save_to_disk(tmp_path / "saved" / "mnist")
    idx, saved = (load_data("mnist", data_dir=tmp_path / folder) for folder in ("idx", "saved"))
    assert_equal(idx, saved)
    assert idx.digest == saved.digest


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


def test_the_error_names_negative_labels_of_a_saved_folder(tmp_path):
    part = datasets.Dataset.from_dict({"x": [[0.0, 1.0]] * 2, "y": [-1, 0]})
    datasets.DatasetDict(train=part, test=part).save_to_disk(tmp_path)
    assert f"{tmp_path} (train): labels run from -1 to 0, not 0 to 9;" in message("mnist1d", data_dir=tmp_path)


def test_the_error_names_a_saved_folder_with_other_columns_or_splits(tmp_path, grey):
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
    (tmp_path / SAVED).write_text("{")
    assert message("mnist", data_dir=tmp_path).startswith(f"{tmp_path}: cannot be read (")
