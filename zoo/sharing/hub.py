"""Zoos on the Hugging Face Hub: push, pull, and the addresses `hf://owner/name@revision` that `open_zoo` takes.

`huggingface_hub` transfers the files, keeps them in its cache and goes on where it was interrupted, but of a plain
download it checks the size alone. So every file is compared with the checksum that the repository lists: SHA-256 for
what the Hub stores as large files (Parquet and constants), git's for the others.
"""

import errno
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    cached_assets_path,
    constants,
    errors,
    snapshot_download,
)
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # the library's client has changed its name
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from zoo.errors import ZooError
from zoo.files import check_empty, room_beside
from zoo.sharing.card import CARD, REPOSITORY
from zoo.sharing.configuration import METADATA
from zoo.sharing.croissant import CROISSANT
from zoo.sharing.export import export_zoo
from zoo.sharing.importers.hf import import_zoo
from zoo.store.manifest import MANIFEST, Manifest
from zoo.store.zoo import Zoo

ADDRESS = re.compile(r"hf:/*(datasets/)?(?P<repository>[^@]*)(@(?P<revision>.*))?", re.DOTALL)
REVISION = re.compile(r"(?!/)(?!.*\.\.)[^\s\\]+")  # cannot lead out of the cache
DATA = (".parquet", ".safetensors")
LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
REMEDIES: tuple[tuple[type[Exception] | int, str], ...] = (  # the first that fits
    (errors.GatedRepoError, f"is gated; ask for access on its page, then {LOG_IN}"),
    (errors.RevisionNotFoundError, "the repository has no such revision; its page lists branches, tags and commits"),
    (errors.RepositoryNotFoundError, f"there is no such repository, or not for you; check the name, or {LOG_IN}"),
    (401, f"there is no such repository, or not for you; check the name, or {LOG_IN}"),
    (403, f"your token does not permit this; {LOG_IN} to one that does"),
    (429, "the Hub has had too many requests; wait some minutes, then run the same again"),
)


def push_zoo(
    folder: str | Path,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    progress: Callable[[int], object] = lambda networks: None,
) -> str:
    """Upload a zoo to a data set repository, which is made if there is none, as one commit.

    What an earlier push left there and this zoo has not is removed. The user's token is found by `huggingface_hub`.

    Arguments:
        folder: of a zoo, which is exported on the way, or of what `export_zoo` wrote.
        repository: `owner/name`.
        private: whether a new repository is.
        revision: the branch, made if there is none; by default `main`.
        progress: called with the number of networks just exported.

    Returns:
        The address of just this commit, `hf://owner/name@commit`.

    Raises:
        ZooError: if the folder is no whole zoo or export, or the Hub refuses or cannot be reached. The repository
            then is as it was, and what was uploaded already is not uploaded again.
    """
    place, folder = _address(repository, revision), Path(folder).resolve()
    shards = [folder / file.path for file in Manifest.read(folder).files if file.pairs is not None]
    zoo = Zoo(folder) if any(path.is_file() for path in shards) else None
    if zoo is None and not (folder / CARD).is_file():
        raise ZooError(f"{folder}: neither a zoo nor a whole export, {CARD} is missing; export the zoo again")
    with _one_line(place):
        HfApi().create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        if revision is not None:
            HfApi().create_branch(repository, repo_type="dataset", branch=revision, exist_ok=True)
    if zoo is None:
        return _upload(folder, repository, revision)
    with room_beside(folder) as temporary:
        return _upload(export_zoo(zoo, temporary, progress=progress), repository, revision)


def pull_zoo(
    repository: str,
    folder: str | Path,
    revision: str | None = None,
    *,
    progress: Callable[[int], object] = lambda networks: None,
) -> Zoo:
    """Download what `push_zoo` uploaded, check it and make a zoo of it, bit for bit.

    Interrupted, it leaves no half zoo; the same again does not download again the files that had arrived.

    Arguments:
        repository: `owner/name`.
        folder: of the zoo, new or empty.
        revision: a branch, a tag or a commit; by default `main`.
        progress: called with the number of networks just written.

    Raises:
        ZooError: if there is no such repository or revision, it may not be read or is no zoo, it cannot be reached,
            a file is not what the repository lists, there is no room, or the folder holds something.
    """
    folder = Path(folder).resolve()
    check_empty(folder)
    return import_zoo(_download(repository, revision), folder, progress=progress)


def open_remote(address: str, data_dir: str | Path | None = None) -> Zoo:
    """Open a zoo on the Hub; it is pulled once for each commit, into a folder beside the Hub's cache.

    Then a commit is opened without the network, and so is a branch or tag, as it was last seen, where there is none.

    Arguments:
        address: `hf://owner/name` or `hf://owner/name@revision`, also as `hf://datasets/owner/name`.
        data_dir: folder of files that networks read when they run, such as a graph.

    Raises:
        ZooError: see `pull_zoo`.
    """
    match = ADDRESS.fullmatch(address)
    assert match is not None, "open_zoo takes all else for a folder"
    repository, revision = match["repository"], match["revision"]
    with _one_line(_address(repository, revision)):
        snapshot = snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=[MANIFEST])
        commit = Path(snapshot).name
        folder = cached_assets_path("asymzoo", repository, commit) / "zoo"
    with WeakFileLock(folder.with_suffix(".lock")):  # of many processes that open it, one pulls it
        if not (folder / MANIFEST).is_file():
            pull_zoo(repository, folder, commit)
    return Zoo(folder, data_dir)


def _address(repository: str, revision: str | None) -> str:
    """Return an address, having checked its revision; names of repositories are checked by the library."""
    address = f"hf://{repository}" + ("" if revision is None else f"@{revision}")
    if revision is not None and not REVISION.fullmatch(revision):
        raise ZooError(f"{address!r}: names no revision; give a branch, a tag or a commit")
    return address


def _upload(folder: Path, repository: str, revision: str | None) -> str:
    """Make one commit of an export: nobody ever reads half of it."""
    manifest = Manifest.read(folder)
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)]
    unnamed, named = REPOSITORY.format(manifest.name).encode(), repository.encode()
    additions = [
        CommitOperationAdd(
            name, (folder / name).read_bytes().replace(unnamed, named) if name in (CARD, CROISSANT) else folder / name
        )
        for name in names
    ]
    with _one_line(_address(repository, revision)):
        there = HfApi().list_repo_files(repository, repo_type="dataset", revision=revision)
        gone = [CommitOperationDelete(name) for name in there if name.endswith(DATA) and name not in names]
        commit = HfApi().create_commit(
            repository,
            [*gone, *additions],
            commit_message=f"AsymZoo {manifest.name}, recipe {manifest.digest}",
            repo_type="dataset",
            revision=revision,
        )
    return _address(repository, commit.oid)


def _download(repository: str, revision: str | None) -> Path:
    """Return a folder with the files of a zoo's repository, each as the repository lists it."""
    place = _address(repository, revision)
    ours = [MANIFEST, CROISSANT, *(f"*/*{suffix}" for suffix in DATA)]
    with _one_line(place):
        plan = snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            allow_patterns=ours,
            ignore_patterns=f"{METADATA}/*",
            dry_run=True,
        )
        names = [file.filename for file in plan]
        if MANIFEST not in names:
            raise ZooError(f"{place}: no zoo, it has no {MANIFEST}; name a repository that `asymzoo zoo push` made")
        _check_room(sum(file.file_size or 0 for file in plan if file.will_download))
        commit = plan[0].commit_hash
        snapshot = Path(snapshot_download(repository, repo_type="dataset", revision=commit, allow_patterns=names))
        check = HfApi().verify_repo_checksums(repository, repo_type="dataset", revision=commit)
    for file in check.mismatches:
        (snapshot / file["path"]).resolve().unlink(missing_ok=True)  # else the cache gave it again
        (snapshot / file["path"]).unlink(missing_ok=True)
    if check.mismatches:
        damaged = ", ".join(file["path"] for file in check.mismatches)
        raise ZooError(f"{place}: {damaged} came damaged, checksums differ; run the same again to download anew")
    return snapshot


def _check_room(needed: int) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
    if free < needed:
        raise ZooError(
            f"{cache}: {needed / 1e9:.2f} GB are to be downloaded, {free / 1e9:.2f} GB are free; make room, or set "
            "HF_HUB_CACHE to a folder that has it"
        )


@contextmanager
def _one_line(place: str) -> Iterator[None]:
    """Say in one line what of the library's errors the user has to know."""
    try:
        yield
    except errors.HFValidationError as error:
        raise ZooError(f"{place!r}: names no repository of the Hub; write owner/name") from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise ZooError(f"{place}: {_explain(error)}") from error


def _explain(error: BaseException) -> str:
    chain = [error]  # the library wraps errors in its own
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    answers = [each for each in chain if isinstance(each, errors.HfHubHTTPError)]
    for answer in answers:
        for case, remedy in REMEDIES:
            if case == answer.response.status_code or (isinstance(case, type) and isinstance(answer, case)):
                return remedy
    reason = str(chain[-1]).strip().partition("\n")[0]
    if answers:
        return f"the Hub answers {answers[0].response.status_code} ({reason}); run the same again later"
    if any(isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT) for each in chain):
        return f"{constants.HF_HUB_CACHE} is full; make room, then run the same again to go on"
    if any(isinstance(each, HTTPError | ConnectionError) for each in chain):
        return (
            f"{constants.ENDPOINT} cannot be reached ({reason}); see to the network, then run the same again to go on"
        )
    return f"{reason}; run the same again to go on"
