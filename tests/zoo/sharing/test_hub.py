import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _cache_assets, _http

from tests.zoo.sharing.hub_server import Repository, serve
from tests.zoo.training.test_generation import assert_same
from zoo import open_zoo
from zoo.errors import ZooError
from zoo.sharing import hub as remote
from zoo.sharing.export import export_zoo
from zoo.sharing.hub import pull_zoo, push_zoo
from zoo.sharing.importers import hf as importing

LARGEST = "standard/train.parquet"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # the library's plain uploads


@pytest.fixture(scope="module")
def exported(tiny_zoo, tmp_path_factory):
    return export_zoo(tiny_zoo, tmp_path_factory.mktemp("exported") / "zoo")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A local hub that replaces the real one; its user may write, and retries do not wait."""
    with serve() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(_cache_assets, "HF_ASSETS_CACHE", str(tmp_path / "hf" / "assets"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1_000)
        for module in (file_download, _http):
            monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None))
        monkeypatch.setenv("HF_TOKEN", hub.token)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        huggingface_hub.utils.disable_progress_bars()
        huggingface_hub.close_session()
        yield hub
        huggingface_hub.close_session()
        huggingface_hub.utils.enable_progress_bars()


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def repository(hub, exported):
    """The repository `owner/zoo`, with the tiny zoo."""
    hub.repositories["owner/zoo"] = made = Repository()
    made.commit("main", contents(exported))
    return made


def assert_identical(found, zoo):
    assert_same(found, zoo)
    for treatment in zoo.treatments:
        np.testing.assert_array_equal(found[treatment]["seconds"], zoo[treatment]["seconds"])


def refused(work, fact):
    """Assert that `work` fails with one line that says the fact."""
    with pytest.raises(ZooError, match=fact) as error:
        work()
    assert "\n" not in str(error.value)


def left_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "hf")


def test_a_pulled_zoo_is_the_exported_one_bit_for_bit(repository, tiny_zoo, tmp_path):
    networks = []
    zoo = pull_zoo("owner/zoo", tmp_path / "made" / "zoo", progress=networks.append)
    assert zoo.folder == tmp_path / "made" / "zoo"
    assert sum(networks) == len(tiny_zoo) * len(tiny_zoo.treatments)
    assert_identical(zoo, tiny_zoo)


def test_files_that_a_zoo_does_not_need_are_not_downloaded(hub, repository, tmp_path):
    repository.commit("main", repository.find("main")[1] | {"film.mp4": b"film"})
    pull_zoo("owner/zoo", tmp_path / "zoo")
    fetched = {path.partition("/resolve/")[2].partition("/")[2] for method, path, *_ in hub.log if method == "GET"}
    assert {
        path for path in fetched if not path.endswith((".parquet", ".safetensors", "zoo.json", "croissant.json"))
    } == {""}
    assert not any(path.startswith("metadata") for path in fetched)


def test_a_pushed_zoo_comes_back_bit_for_bit_from_its_address(hub, tiny_zoo):
    address = push_zoo(tiny_zoo.folder, "owner/zoo")
    assert address == f"hf://owner/zoo@{hub.repositories['owner/zoo'].branches['main']}"
    assert_identical(open_zoo(address), tiny_zoo)
    assert left_in(tiny_zoo.folder.parent) == ["tiny"]


def test_an_export_is_pushed_unchanged_except_for_its_name(hub, exported):
    before = contents(exported)
    push_zoo(exported, "owner/zoo", private=True)
    repository = hub.repositories["owner/zoo"]
    there = repository.find("main")[1]
    assert repository.closed
    assert there.keys() == before.keys() | {".gitattributes"}
    assert {name for name in before if there[name] != before[name]} == {"README.md", "croissant.json"}
    assert b'load_dataset("owner/zoo", "standard"' in there["README.md"]
    assert not any(b"OWNER" in content for content in there.values())
    assert contents(exported) == before


def test_each_revision_gives_its_own_zoo(hub, tiny_zoo, exported, plant_zoo, tmp_path):
    small = plant_zoo(pairs=8)
    first = push_zoo(exported, "owner/zoo")
    push_zoo(exported, "owner/zoo", revision="large")
    second = push_zoo(small.folder, "owner/zoo")
    files = hub.repositories["owner/zoo"].find("main")[1]
    assert {name.partition("/")[0] for name in files if "/" in name} == {*small.treatments, "metadata"}
    for address in (second, "hf://owner/zoo"):
        assert torch.equal(open_zoo(address)["standard"].weights[:], small["standard"].weights[:])
    for address in (first, "hf://owner/zoo@large", "hf://datasets/owner/zoo@large"):
        assert_identical(open_zoo(address), tiny_zoo)
    assert_identical(pull_zoo("owner/zoo", tmp_path / "zoo", revision=first.partition("@")[2]), tiny_zoo)


def test_pushing_the_same_zoo_again_gives_the_same_commit_and_uploads_nothing(hub, exported):
    first = push_zoo(exported, "owner/zoo")
    hub.log.clear()
    assert push_zoo(exported, "owner/zoo") == first
    assert not any(method == "PUT" for method, *_ in hub.log)


def test_a_zoo_that_was_opened_once_needs_no_network(hub, repository, tiny_zoo, monkeypatch):
    commit = open_zoo(f"hf://owner/zoo@{repository.branches['main']}")
    branch = open_zoo("hf://owner/zoo")
    assert commit.folder == branch.folder
    hub.log.clear()
    open_zoo(f"hf://owner/zoo@{repository.branches['main']}")
    assert hub.log == []
    for name, value in (("ENDPOINT", "http://127.0.0.1:1"), ("HF_HUB_OFFLINE", True)):
        with monkeypatch.context() as patch:
            patch.setattr(constants, name, value)
            assert_identical(open_zoo("hf://owner/zoo"), tiny_zoo)
    assert hub.log == []
    repository.commit("main", repository.find("main")[1])
    assert open_zoo("hf://owner/zoo").folder != branch.folder  # back online, what is new is seen


def test_processes_that_open_the_same_zoo_pull_it_once(repository, tiny_zoo, monkeypatch):
    pulls = []
    monkeypatch.setattr(remote, "pull_zoo", lambda *asked: pulls.append(asked) or pull_zoo(*asked))
    with ThreadPoolExecutor(4) as pool:
        zoos = list(pool.map(open_zoo, ["hf://owner/zoo"] * 4))
    assert len(pulls) == 1
    assert_identical(zoos[-1], tiny_zoo)


def test_an_interrupted_download_continues_where_it_stopped(hub, repository, tiny_zoo, tmp_path):
    whole = len(repository.find("main")[1][LARGEST])
    hub.cut[LARGEST] = 3_000
    assert_identical(pull_zoo("owner/zoo", tmp_path / "zoo"), tiny_zoo)
    assert hub.got(LARGEST) == [(None, 3_000), ("bytes=3000-", whole - 3_000)]


def test_a_second_attempt_downloads_only_what_had_not_arrived(hub, repository, tiny_zoo, tmp_path):
    hub.refuse.add(LARGEST)
    refused(
        lambda: pull_zoo("owner/zoo", tmp_path / "zoo"),
        r"^hf://owner/zoo: http://127\S+ cannot be reached \(.+\); .* again to continue$",
    )
    assert left_in(tmp_path) == []
    arrived = {path for method, path, *_ in hub.log if method == "GET" and "/resolve/" in path}
    assert len(arrived) > 5
    hub.refuse.clear()
    hub.log.clear()
    assert_identical(pull_zoo("owner/zoo", tmp_path / "zoo"), tiny_zoo)
    assert len(hub.got(LARGEST)) == 1
    assert not arrived & {path for method, path, *_ in hub.log if method == "GET"}


@pytest.mark.parametrize("name", [LARGEST, "w_asymmetric/constants.safetensors", "zoo.json"])
def test_a_bit_changed_in_transit_is_refused_and_a_second_attempt_succeeds(hub, repository, tiny_zoo, tmp_path, name):
    hub.flip.add(name)
    refused(
        lambda: pull_zoo("owner/zoo", tmp_path / "zoo"),
        rf"^hf://owner/zoo: {re.escape(name)} arrived damaged, .* again",
    )
    refused(lambda: open_zoo("hf://owner/zoo"), rf": {re.escape(name)} arrived damaged")
    assert left_in(tmp_path) == []
    hub.flip.clear()
    assert_identical(pull_zoo("owner/zoo", tmp_path / "zoo"), tiny_zoo)


def test_an_interrupted_import_leaves_no_incomplete_zoo(hub, repository, tiny_zoo, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importing, "write_shard", interrupt)
        for work in (lambda: open_zoo("hf://owner/zoo"), lambda: pull_zoo("owner/zoo", tmp_path / "zoo")):
            with pytest.raises(KeyboardInterrupt):
                work()
    assert left_in(tmp_path) == []
    assert [path.name for path in tmp_path.glob("hf/assets/*/*/*/*")] == ["zoo.lock"]
    hub.log.clear()
    assert_identical(open_zoo("hf://owner/zoo"), tiny_zoo)
    assert hub.got(".parquet") == []


@pytest.mark.parametrize(
    ("closed", "fact"),
    [
        (
            (401, "RepoNotFound"),
            r"the repository does not exist, or you may not read it; .* `hf auth login` or set HF_TOKEN$",
        ),
        (
            (404, "RepoNotFound"),
            r"the repository does not exist, or you may not read it; .* `hf auth login` or set HF_TOKEN$",
        ),
        ((401, ""), r"the repository does not exist, or you may not read it; .* `hf auth login` or set HF_TOKEN$"),
        (
            (403, "GatedRepo"),
            r"is gated; ask for access on its page, then log in with `hf auth login` or set HF_TOKEN$",
        ),
        (
            (403, ""),
            r"your token does not permit this; log in with `hf auth login` or set HF_TOKEN to a token that does$",
        ),
        ((503, ""), r"the Hub answers 503 \(.*Service Unavailable.*\); run the same command again later$"),
    ],
)
def test_a_repository_that_may_not_be_read_is_one_clear_line(hub, repository, tmp_path, monkeypatch, closed, fact):
    repository.closed = closed
    monkeypatch.setenv("HF_TOKEN", "reader")
    refused(lambda: pull_zoo("owner/zoo", tmp_path / "zoo"), f"^hf://owner/zoo: {fact}")
    refused(lambda: open_zoo("hf://owner/zoo"), f"^hf://owner/zoo(@.*)?: {fact}")
    assert left_in(tmp_path) == []


def test_a_revision_that_does_not_exist_is_one_clear_line(hub, repository, tmp_path):
    for revision in ("v1", "0" * 40):
        fact = f"^hf://owner/zoo@{revision}: the repository has no such revision; its page lists branches"
        refused(lambda: pull_zoo("owner/zoo", tmp_path / "zoo", revision), fact)  # noqa: B023
        refused(lambda: open_zoo(f"hf://owner/zoo@{revision}"), fact)  # noqa: B023


def test_a_repository_that_does_not_exist_or_is_not_a_zoo_is_one_clear_line(hub, tmp_path):
    refused(lambda: pull_zoo("owner/none", tmp_path / "zoo"), "^hf://owner/none: the repository does not exist")
    hub.repositories["owner/other"] = other = Repository()
    other.commit("main", {"README.md": b"other", "data/train.parquet": b"other"})
    for work in (lambda: pull_zoo("owner/other", tmp_path / "zoo"), lambda: open_zoo("hf://owner/other")):
        refused(work, r"^hf://owner/other(@\w+)?: is not a zoo, it has no zoo\.json; give a repository that")
    assert hub.got("parquet") == []


def test_a_name_that_leads_out_of_the_cache_is_refused(hub, repository, tmp_path):
    repository.commit("main", {"zoo.json": b"{}", "../../../out.parquet": b"out"})
    refused(lambda: pull_zoo("owner/zoo", tmp_path / "zoo"), r"^hf://owner/zoo: Invalid filename")
    assert not list(tmp_path.rglob("out.parquet"))


@pytest.mark.parametrize(
    "address", ["hf://", "hf://o/n/m", "hf://../n", "hf://o/n@", "hf://o/n@../../x", "hf://o/n@/x", "hf://o/n@a b"]
)
def test_an_address_that_is_not_valid_is_one_clear_line(hub, address):
    refused(
        lambda: open_zoo(address),
        r"the (name of the repository is not valid; write owner/name|revision is not valid; give a branch)",
    )
    assert hub.log == []


def test_without_network_is_one_clear_line(hub, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    fact = r"^hf://owner/zoo: http://127.0.0.1:1 cannot be reached \(.*refused.*\); check the network"
    for work in (
        lambda: pull_zoo("owner/zoo", tmp_path / "zoo"),
        lambda: open_zoo("hf://owner/zoo"),
        lambda: push_zoo(exported, "owner/zoo"),
    ):
        refused(work, fact)


def test_too_little_space_is_an_error_before_anything_is_downloaded(hub, repository, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    refused(
        lambda: pull_zoo("owner/zoo", tmp_path / "zoo"),
        r"the download needs 0\.\d\d GB, 0\.00 GB are free; make room",
    )
    assert hub.got("parquet") == []


def test_a_full_disk_is_one_clear_line(repository, tmp_path, monkeypatch):
    def write(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", write)
    refused(
        lambda: pull_zoo("owner/zoo", tmp_path / "zoo"),
        r"hub is full; make room, then run the same command again to continue$",
    )


def test_an_occupied_folder_is_refused_and_unchanged(hub, repository, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    refused(lambda: pull_zoo("owner/zoo", tmp_path / "mine"), "is not empty; choose another folder$")
    assert contents(tmp_path / "mine") == {"file": b"mine"}
    assert hub.log == []


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("token", ["", "reader"])
def test_a_push_that_is_not_permitted_changes_nothing(hub, exported, monkeypatch, token, there):
    monkeypatch.setenv("HF_TOKEN", token)
    if there:
        hub.repositories["owner/zoo"] = repository = Repository()
        repository.commit("main", {})
    refused(lambda: push_zoo(exported, "owner/zoo"), "^hf://owner/zoo: your token does not permit this")
    assert hub.objects == {}
    assert [len(each.commits) for each in hub.repositories.values()] == [1] * there


def test_an_incomplete_zoo_is_not_pushed(hub, tiny_copy, exported, tmp_path):
    (tiny_copy.folder / "standard" / "00000.h5").unlink()
    refused(lambda: push_zoo(tiny_copy.folder, "owner/zoo"), r"00000\.h5: missing")
    half = shutil.copytree(exported, tmp_path / "half")
    (half / "README.md").unlink()
    refused(lambda: push_zoo(half, "owner/zoo"), r"half: is not a zoo or a complete export, README\.md is missing")
    refused(lambda: push_zoo(tmp_path / "none", "owner/zoo"), "none: is not a zoo")
    assert hub.log == []


def test_the_commands_push_pull_and_open(hub, tiny_zoo, asymzoo, tmp_path):
    code, output, _ = asymzoo("zoo", "push", tiny_zoo.folder, "owner/zoo", "--private", "--revision", "v1")
    address = f"hf://owner/zoo@{hub.repositories['owner/zoo'].branches['v1']}"
    assert (code, output) == (0, f'{address}: open_zoo("{address}")\n')
    assert hub.repositories["owner/zoo"].closed
    code, output, _ = asymzoo("zoo", "pull", "owner/zoo", tmp_path / "zoo", "--revision", "v1")
    assert (code, output) == (0, f"{tmp_path / 'zoo'}: 6 pairs of {', '.join(tiny_zoo.treatments)}\n")
    assert_identical(open_zoo(tmp_path / "zoo"), tiny_zoo)
    assert asymzoo("zoo", "info", address)[1] == asymzoo("zoo", "info", tiny_zoo.folder)[1]
    code, output, errors = asymzoo("zoo", "pull", "owner/none", tmp_path / "none")
    assert (code, output, errors.count("\n")) == (2, "", 1)


PROGRAM = """
import datasets, hashlib, zoo
rows = hashlib.sha256()
for streaming in (False, True):
    networks = datasets.load_dataset("owner/zoo", "w_asymmetric", streaming=streaming, split="train").with_format("numpy")
    for network in networks:
        rows.update(network["weights"].tobytes())
rows.update(zoo.open_zoo("hf://owner/zoo")["w_asymmetric"]["weights"].tobytes())
print(rows.hexdigest())
"""


def test_datasets_and_open_zoo_read_the_same_from_the_endpoint_of_the_environment(hub, repository, tiny_zoo, tmp_path):
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
    }
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, cwd=Path(__file__).parents[3], capture_output=True, text=True
    )
    whole = tiny_zoo["w_asymmetric"]
    wanted = b"".join(networks["weights"].tobytes() for networks in (whole.split("train"), whole.split("train"), whole))
    assert run.stdout.strip() == hashlib.sha256(wanted).hexdigest(), run.stderr
