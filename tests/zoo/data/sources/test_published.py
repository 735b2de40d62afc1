import datasets
import pytest

from tests.zoo.data.scenarios import (
    CIFAR_FILES,
    IDX_FILES,
    PUBLISHED,
    SAVED,
    as_datasets,
    assert_holds,
    message,
    write_idx,
)
from zoo.data import load_data
from zoo.data.sources import FORMATS
from zoo.data.sources.hub import Repository

FILES = {"saved": [SAVED], "idx": sum(IDX_FILES, ()), "cifar": sum(CIFAR_FILES, ())}


def test_the_subfolder_with_the_data_sets_name_is_read_before_the_folder(tmp_path, grey):
    write_idx(tmp_path, [(255 - images, labels) for images, labels in grey])
    write_idx(tmp_path / "mnist", grey)
    assert_holds(load_data("mnist", data_dir=tmp_path), grey)


def test_a_saved_folder_is_read_before_idx_files(tmp_path, grey):
    write_idx(tmp_path, [(255 - images, labels) for images, labels in grey])
    as_datasets(grey).save_to_disk(tmp_path)
    assert_holds(load_data("mnist", data_dir=tmp_path), grey)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_error_says_which_files_were_looked_for_and_where(tmp_path, name):
    text = message(name, data_dir=tmp_path)
    assert text.startswith(f"{tmp_path}: {name} is not there;")
    assert f"looked in {tmp_path / name} and {tmp_path} for" in text
    assert SAVED in text
    assert all(file in text for format in PUBLISHED[name].formats for file in FILES[format])


def test_the_hub_is_not_used_if_a_folder_is_given(monkeypatch, tmp_path, grey):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: pytest.fail("asked the Hub"))
    assert "mnist is not there" in message("mnist", data_dir=tmp_path)
    write_idx(tmp_path, grey)
    assert_holds(load_data("mnist", data_dir=tmp_path), grey)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_returns_none_for_a_folder_without_its_files(tmp_path, name):
    repository = Repository("owner/name")
    assert FORMATS[name].read(tmp_path, repository) is None
    assert FORMATS[name].read(tmp_path / "absent", repository) is None
    assert all(file in FORMATS[name].wanted(repository) for file in FILES[name])


def test_data_sets_are_read_in_their_listed_formats_and_in_no_others():
    assert {format for source in PUBLISHED.values() for format in source.formats} == set(FORMATS)
