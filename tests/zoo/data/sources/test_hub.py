import datasets
import pytest

from tests.zoo.data.scenarios import PUBLISHED, as_datasets, assert_holds, message
from zoo.data import load_data


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_data_set_on_the_hub_loads(monkeypatch, grey, colour, name):
    repository, asked = PUBLISHED[name].repository, []
    splits = colour if name in ("cifar10", "svhn") else grey

    def load_dataset(*arguments):
        asked.append(arguments)
        if name != "mnist1d":
            return as_datasets(splits, repository.image, repository.label)
        rows = [{"x": images[:, 0].tolist(), "y": labels} for images, labels in splits]
        return datasets.DatasetDict(zip(("train", "test"), map(datasets.Dataset.from_dict, rows), strict=True))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_data(name)
    assert asked == [(repository.address, repository.config)]
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
def test_without_the_hub_the_error_says_which_files_to_put_where(monkeypatch, error, name, files):
    def load_dataset(*arguments):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    text = message(name)
    assert text.startswith(f"{name}: {PUBLISHED[name].repository.address} cannot be loaded from the Hugging Face Hub")
    assert type(error).__name__ in text
    assert files in text
    assert text.endswith("in a folder DIR and give --data-dir DIR (data_dir= in Python)")
