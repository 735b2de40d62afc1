import pytest

from tests.zoo.data.scenarios import CIFAR_FILES, CIFAR_FOLDER, assert_holds, message, write_cifar
from zoo.data import load_data


@pytest.mark.parametrize("subfolder", ["", CIFAR_FOLDER, "cifar10", f"cifar10/{CIFAR_FOLDER}"])
def test_cifar_binary_files_load_to_the_images_written(tmp_path, colour, subfolder):
    write_cifar(tmp_path / subfolder, colour)
    data = load_data("cifar10", data_dir=tmp_path)
    assert_holds(data, colour)
    assert data.shape == (3, 32, 32)


def test_cifar_binary_files_are_not_read_as_mnist(tmp_path, colour):
    write_cifar(tmp_path, colour)
    assert "mnist is not there" in message("mnist", data_dir=tmp_path)


@pytest.mark.parametrize("part", [0, 1])
def test_the_error_names_a_cifar_file_with_an_incomplete_record(tmp_path, colour, part):
    write_cifar(tmp_path, colour)
    path = tmp_path / CIFAR_FILES[part][-1]
    path.write_bytes(path.read_bytes()[:-1])
    text = message("cifar10", data_dir=tmp_path)
    assert text.startswith(f"{path}: ")
    assert "bytes are not a multiple of 3073; download it again" in text
