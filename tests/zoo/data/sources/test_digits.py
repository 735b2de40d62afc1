from collections import Counter

import torch
from sklearn.datasets import load_digits

from zoo.data import load_data


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
