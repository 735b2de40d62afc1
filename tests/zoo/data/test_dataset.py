import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.zoo.data.scenarios import IDX_FILES, TRAIN, assert_equal, message, write_cifar, write_idx
from zoo.data import DATASETS, Data, load_data


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


def test_outside_examples_are_standardised_like_the_data(tmp_path, grey):
    """A black pixel has the same value in both data sets."""
    others = [(255 - images, labels) for images, labels in grey]
    write_idx(tmp_path / "mnist", grey)
    write_idx(tmp_path / "kmnist", others)
    data = load_data("mnist", data_dir=tmp_path, outside="kmnist", train_limit=7)
    mean, deviation = grey[0][0].mean(), grey[0][0].std()
    np.testing.assert_allclose(data.outside[:, 0], (others[1][0] - mean) / deviation, rtol=1e-4, atol=1e-5)
    assert data.digest == load_data("mnist", data_dir=tmp_path, train_limit=7).digest


def test_outside_examples_are_not_read_from_the_files_of_the_data(tmp_path, grey):
    write_idx(tmp_path, grey)
    told = message("mnist", data_dir=tmp_path, outside="kmnist")
    assert told.startswith(f"{tmp_path / 'kmnist'}: kmnist is not there; looked in {tmp_path / 'kmnist'} for")


def test_outside_data_sets_that_do_not_fit_are_refused(tmp_path, grey, colour):
    write_idx(tmp_path / "mnist", grey)
    write_cifar(tmp_path / "cifar10", colour)
    told = message("mnist", data_dir=tmp_path, outside="cifar10")
    assert told.startswith("outside: examples of cifar10 are (3, 32, 32) of uint8, not (1, 28, 28) of uint8; choose")
    assert message("mnist", outside="mnist").startswith("outside: mnist cannot be compared with mnist; choose another")
    assert message("sbm", outside="mnist").startswith("outside: mnist cannot be compared with sbm; choose another")
    assert message("mnist", outside="fasion_mnist").startswith("outside: unknown data set 'fasion_mnist' (did you mean")


def test_train_limit_is_a_fixed_subset_nested_in_larger_ones():
    whole, few, more = (load_data("digits", train_limit=limit) for limit in (None, 100, 400))
    assert_equal(few, load_data("digits", train_limit=100))
    torch.testing.assert_close(more.train_x[:100], few.train_x, rtol=0, atol=0)
    torch.testing.assert_close(more.train_y[:100], few.train_y, rtol=0, atol=0)
    examples = Counter(zip(map(tuple, whole.train_x.flatten(1).tolist()), whole.train_y.tolist(), strict=True))
    assert Counter(zip(map(tuple, more.train_x.flatten(1).tolist()), more.train_y.tolist(), strict=True)) <= examples
    torch.testing.assert_close(few.test_x, whole.test_x, rtol=0, atol=0)


def test_train_limit_keeps_random_examples(tmp_path, grey):
    write_idx(tmp_path, grey)
    whole, half = (load_data("mnist", data_dir=tmp_path, train_limit=limit) for limit in (None, TRAIN // 2))
    kept = [torch.nonzero((whole.train_x == x).flatten(1).all(1)).item() for x in half.train_x]
    assert kept != sorted(kept)
    assert max(kept) >= TRAIN // 2
    fashion = load_data("fashion_mnist", data_dir=tmp_path, train_limit=TRAIN // 2)
    assert not torch.equal(fashion.train_x, half.train_x)


def test_train_limit_is_at_most_the_number_of_examples():
    assert len(load_data("digits", train_limit=1438).train_y) == 1438
    for limit in (1439, 0, -1):
        expected = f"train_limit {limit}: digits has 1438 training examples; choose 1 to 1438"
        assert message("digits", train_limit=limit) == expected


@pytest.mark.parametrize(("wrong", "nearest"), [("mnits", "mnist"), ("cifar-10", "cifar10"), ("MNIST", "mnist")])
def test_unknown_name_suggests_the_nearest(wrong, nearest):
    text = message(wrong)
    assert repr(wrong) in text
    assert f"did you mean {nearest!r}?" in text
    assert ", ".join(DATASETS) in text


def test_the_error_names_labels_out_of_range(tmp_path, grey, colour):
    write_idx(tmp_path / "mnist", [grey[0], (grey[1][0], grey[1][1] + 1)])
    place = tmp_path / "mnist" / IDX_FILES[1][1]
    assert f"{place}: labels run from 1 to 10, not 0 to 9;" in message("mnist", data_dir=tmp_path)
    write_cifar(tmp_path / "cifar10", [(colour[0][0], colour[0][1] + 100), colour[1]])
    assert "cifar10: labels run from 100 to 109, not 0 to 9;" in message("cifar10", data_dir=tmp_path)


def test_the_error_names_training_and_test_images_of_different_shapes(tmp_path, grey):
    write_idx(tmp_path, [grey[0], (grey[1][0][:, 1:], grey[1][1])])
    assert "(1, 28, 28) in training and (1, 27, 28) in test" in message("mnist", data_dir=tmp_path)


def test_a_channel_without_variation_is_an_error(tmp_path, colour):
    (images, labels), test = colour
    images[:, 1] = 7
    write_cifar(tmp_path, [(images, labels), test])
    assert "a channel has the same value everywhere" in message("cifar10", data_dir=tmp_path)


def tiny():
    x, y = torch.arange(12.0).view(3, 1, 2, 2), torch.tensor([0, 1, 2])
    return Data("tiny", x, y, x[:2] + 1, y[:2], 3, outside=x + 2)


def test_the_digest_depends_on_every_tensor_and_on_nothing_else():
    data = tiny()
    others = [
        replace(data, **{field: getattr(data, field).flip(0)}) for field in vars(data) if field[-2:] in ("_x", "_y")
    ]
    assert len({data.digest, *(other.digest for other in others)}) == 5
    strided = replace(
        data, name="other", folder=Path("other"), train_x=data.train_x.transpose(2, 3).contiguous().transpose(2, 3)
    )
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


def test_data_record_the_folder_of_their_files(tmp_path, grey):
    write_idx(tmp_path, grey)
    data = load_data("mnist", data_dir=str(tmp_path))
    assert data.folder == tmp_path
    assert data.to().map_examples(lambda x: -x).folder == tmp_path
    assert load_data("digits").folder is None


def test_importing_zoo_data_imports_no_large_library():
    code = "import sys, zoo.data; print(sorted({'datasets', 'huggingface_hub', 'networkx', 'pandas', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
