import pytest
import torch

from tests.zoo.data.scenarios import IDX_FILES, assert_holds, idx_bytes, message, write, write_idx
from zoo.data import load_data


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


def test_an_incomplete_set_of_files_is_refused(tmp_path, grey):
    write_idx(tmp_path, grey)
    (tmp_path / IDX_FILES[1][1]).unlink()
    assert "mnist is not there" in message("mnist", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "svhn", "mnist1d"])
def test_idx_files_are_not_read_as_other_data_sets(tmp_path, grey, name):
    write_idx(tmp_path, grey)
    assert f"{name} is not there" in message(name, data_dir=tmp_path)


def test_the_error_names_a_file_with_a_wrong_magic_number(tmp_path, grey):
    write_idx(tmp_path, grey)
    path = tmp_path / IDX_FILES[0][0]
    path.write_bytes(idx_bytes(grey[0][1]))
    text = message("mnist", data_dir=tmp_path)
    assert text == f"{path}: starts with 00000801, not IDX's 00000803; download it again"


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kept", [-1, 16, 7])
def test_the_error_names_a_truncated_idx_file(tmp_path, grey, suffix, kept):
    write_idx(tmp_path, grey, suffix)
    path = tmp_path / f"{IDX_FILES[1][0]}{suffix}"
    content = idx_bytes(grey[1][0])[:kept]
    write(path, content)
    text = message("mnist", data_dir=tmp_path)
    assert text.startswith(f"{path}: has {len(content)} bytes, its header says ")
    assert text.endswith("; download it again")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_header_larger_than_memory_is_an_error_and_not_a_crash(tmp_path, grey, suffix):
    write_idx(tmp_path, grey, suffix)
    write(tmp_path / f"{IDX_FILES[0][0]}{suffix}", bytes([0, 0, 8, 3]) + b"\xff" * 12 + bytes(100))
    expected = 16 + (2**32 - 1) ** 3
    assert f"has 116 bytes, its header says {expected};" in message("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-20], lambda b: b"no" + b[2:], lambda b: b[:10] + b"\x07" + b[11:]],
    ids=["cut", "header", "stream"],
)
def test_the_error_names_a_damaged_gzip_file(tmp_path, grey, damage):
    write_idx(tmp_path, grey, ".gz")
    path = tmp_path / f"{IDX_FILES[0][0]}.gz"
    path.write_bytes(damage(path.read_bytes()))
    assert message("mnist", data_dir=tmp_path) == f"{path}: is a damaged gzip file; download it again"


def test_the_error_names_files_with_different_numbers_of_images_and_labels(tmp_path, grey):
    (images, labels), test = grey
    write_idx(tmp_path, [(images, labels[:-1]), test])
    text = message("mnist", data_dir=tmp_path)
    assert text == f"{tmp_path / IDX_FILES[0][1]}: 29 labels for 30 images; use files of one download"


def test_files_without_images_are_an_error(tmp_path, grey):
    write_idx(tmp_path, [(images[:0], labels[:0]) for images, labels in grey])
    assert "0 labels for 0 images" in message("mnist", data_dir=tmp_path)
