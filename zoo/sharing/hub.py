"""Zoos on the Hugging Face Hub: push, pull, and addresses `hf://owner/name@revision` for `open_zoo`.

`huggingface_hub` transfers the files, caches them and continues interrupted transfers, but it checks only the size of a
downloaded file. So every file is also compared with the checksum in the repository: SHA-256 for files that the Hub
stores as large files (Parquet and constants), and that of git for the others.
"""

import errno
import re
import shutil
from collections.abc import Iterator
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
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # its class depends on the library's version
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from zoo.errors import ZooError
from zoo.files import check_empty, room_beside
from zoo.progress import Progress, ignore
from zoo.sharing.card import CARD, REPOSITORY
from zoo.sharing.configuration import METADATA
from zoo.sharing.croissant import CROISSANT
from zoo.sharing.export import export_zoo
from zoo.sharing.importers.hf import import_zoo
from zoo.store.manifest import MANIFEST, Manifest
from zoo.store.zoo import Zoo

ADDRESS = re.compile(r"hf:/*(datasets/)?(?P<repository>[^@]*)(@(?P<revision>.*))?", re.DOTALL)
REVISION = re.compile(r"(?!/)(?!.*\.\.)[^\s\\]+")  # a revision is part of a path and must not lead out of the cache
DATA = (".parquet", ".safetensors")
LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
NOT_FOUND = f"the repository does not exist, or you may not read it; check the name, or {LOG_IN}"
REMEDIES: tuple[tuple[type[Exception] | int, str], ...] = (  # by error or status; the first match counts
    (errors.GatedRepoError, f"is gated; ask for access on its page, then {LOG_IN}"),
    (errors.RevisionNotFoundError, "the repository has no such revision; its page lists branches, tags and commits"),
    (errors.RepositoryNotFoundError, NOT_FOUND),
    (401, NOT_FOUND),
    (403, f"your token does not permit this; {LOG_IN} to a token that does"),
    (429, "the Hub received too many requests; wait a few minutes, then run the same command again"),
)


def push_zoo(
    folder: str | Path,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    progress: Progress = ignore,
) -> str:
    """Upload a zoo to a data set repository as one commit. A missing repository is created.

    Files of an earlier push that the zoo does not have are deleted. `huggingface_hub` finds the user's token.

    Arguments:
        folder: Folder of a zoo, which is then exported first, or folder of an export.
        repository: Repository, `owner/name`.
        private: Whether a new repository is private.
        revision: Branch, which is created if it does not exist; by default `main`.
        progress: Called with the number of networks that were just exported.

    Returns:
        Address of this commit, `hf://owner/name@commit`.

    Raises:
        ZooError: If the folder is not a complete zoo or export, or the Hub refuses or cannot be reached. Then the
            repository is unchanged, and a second attempt does not upload again what has arrived.
    """
    place, folder = _address(repository, revision), Path(folder).resolve()
    shards = [folder / file.path for file in Manifest.read(folder).files if file.pairs is not None]
    zoo = Zoo(folder) if any(path.is_file() for path in shards) else None
    if zoo is None and not (folder / CARD).is_file():
        raise ZooError(f"{folder}: is not a zoo or a complete export, {CARD} is missing; export the zoo again")
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
    progress: Progress = ignore,
) -> Zoo:
    """Download and check what `push_zoo` uploaded, and write it as a zoo that is equal to the original bit for bit.

    After an interruption there is no incomplete zoo, and the next call does not download again what has arrived.

    Arguments:
        repository: Repository, `owner/name`.
        folder: New or empty folder for the zoo.
        revision: Branch, tag or commit; by default `main`.
        progress: Called with the number of networks that were just written.

    Raises:
        ZooError: If the repository or revision does not exist, may not be read, is not a zoo or cannot be reached, a
            file differs from its checksum, the disk is full, or the folder is not empty.
    """
    folder = Path(folder).resolve()
    check_empty(folder)
    return import_zoo(_download(repository, revision), folder, progress=progress)


def open_remote(address: str, data_dir: str | Path | None = None) -> Zoo:
    """Open a zoo on the Hub. Each commit is pulled once, into a folder beside the cache of the Hub.

    After that, a commit opens without the network. Without a network, a branch or a tag opens as it was last seen.

    Arguments:
        address: Address, `hf://owner/name` or `hf://owner/name@revision`; `hf://datasets/owner/name` is the same.
        data_dir: Folder of files that networks read when they run, such as a graph.

    Raises:
        ZooError: In the cases of `pull_zoo`.
    """
    match = ADDRESS.fullmatch(address)
    assert match is not None, "`open_zoo` calls this only for addresses that start with hf:"
    repository, revision = match["repository"], match["revision"]
    with _one_line(_address(repository, revision)):
        snapshot = snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=[MANIFEST])
        commit = Path(snapshot).name
        folder = cached_assets_path("asymzoo", repository, commit) / "zoo"
    with WeakFileLock(folder.with_suffix(".lock")):  # if several processes open the zoo, only one pulls it
        if not (folder / MANIFEST).is_file():
            pull_zoo(repository, folder, commit)
    return Zoo(folder, data_dir)


def _address(repository: str, revision: str | None) -> str:
    """Check a revision and return its address; the library checks the name of the repository."""
    address = f"hf://{repository}" + ("" if revision is None else f"@{revision}")
    if revision is not None and not REVISION.fullmatch(revision):
        raise ZooError(f"{address!r}: the revision is not valid; give a branch, a tag or a commit")
    return address


def _upload(folder: Path, repository: str, revision: str | None) -> str:
    """Upload an export as one commit, so that nobody reads an incomplete one."""
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
        present = HfApi().list_repo_files(repository, repo_type="dataset", revision=revision)
        deletions = [CommitOperationDelete(name) for name in present if name.endswith(DATA) and name not in names]
        commit = HfApi().create_commit(
            repository,
            [*deletions, *additions],
            commit_message=f"AsymZoo {manifest.name}, recipe {manifest.digest}",
            repo_type="dataset",
            revision=revision,
        )
    return _address(repository, commit.oid)


def _download(repository: str, revision: str | None) -> Path:
    """Download the files of a zoo's repository, check them, and return their folder in the cache."""
    place = _address(repository, revision)
    patterns = [MANIFEST, CROISSANT, *(f"*/*{suffix}" for suffix in DATA)]
    with _one_line(place):
        plan = snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=f"{METADATA}/*",
            dry_run=True,
        )
        names = [file.filename for file in plan]
        if MANIFEST not in names:
            raise ZooError(
                f"{place}: is not a zoo, it has no {MANIFEST}; give a repository that `asymzoo zoo push` made"
            )
        _check_room(sum(file.file_size or 0 for file in plan if file.will_download))
        commit = plan[0].commit_hash
        snapshot = Path(snapshot_download(repository, repo_type="dataset", revision=commit, allow_patterns=names))
        check = HfApi().verify_repo_checksums(repository, repo_type="dataset", revision=commit)
    for file in check.mismatches:
        (snapshot / file["path"]).resolve().unlink(missing_ok=True)  # otherwise the cache would return it again
        (snapshot / file["path"]).unlink(missing_ok=True)
    if check.mismatches:
        damaged = ", ".join(file["path"] for file in check.mismatches)
        raise ZooError(f"{place}: {damaged} arrived damaged, checksums differ; run the same command again")
    return snapshot


def _check_room(needed: int) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
    if free < needed:
        raise ZooError(
            f"{cache}: the download needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; make room, or set "
            "HF_HUB_CACHE to a folder on a larger disk"
        )


@contextmanager
def _one_line(place: str) -> Iterator[None]:
    """Turn errors of the library into one line for the user."""
    try:
        yield
    except errors.HFValidationError as error:
        raise ZooError(f"{place!r}: the name of the repository is not valid; write owner/name") from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise ZooError(f"{place}: {_explain(error)}") from error


def _explain(error: BaseException) -> str:
    """Return fact and remedy of an error, found in the chain of errors that caused it."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    answers = [cause for cause in chain if isinstance(cause, errors.HfHubHTTPError)]
    for answer in answers:
        for case, remedy in REMEDIES:
            if case == answer.response.status_code or (isinstance(case, type) and isinstance(answer, case)):
                return remedy
    reason = str(chain[-1]).strip().partition("\n")[0]
    if answers:
        return f"the Hub answers {answers[0].response.status_code} ({reason}); run the same command again later"
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in chain):
        return f"{constants.HF_HUB_CACHE} is full; make room, then run the same command again to continue"
    if any(isinstance(cause, HTTPError | ConnectionError) for cause in chain):
        remedy = "check the network, then run the same command again to continue"
        return f"{constants.ENDPOINT} cannot be reached ({reason}); {remedy}"
    return f"{reason}; run the same command again to continue"
