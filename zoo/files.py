"""Writes files completely or not at all, and computes their SHA-256 checksums."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory

from zoo.errors import ZooError


def is_occupied(folder: Path) -> bool:
    """Return whether a folder exists and is not empty.

    Raises:
        ZooError: If the path cannot be a folder, for example because a file is there.
    """
    try:
        return folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise ZooError(f"{folder}: cannot be used ({error.strerror}); choose another folder") from error


def check_empty(folder: Path) -> None:
    """Raise a `ZooError` if a folder exists and is not empty, or if the path cannot be a folder."""
    if is_occupied(folder):
        raise ZooError(f"{folder}: is not empty; choose another folder")


@contextmanager
def room_beside(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, so that finished work can be moved there in one step.

    Raises:
        ZooError: If the temporary folder cannot be made, or the work in it fails with an `OSError`.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            yield Path(temporary)
    except OSError as error:
        raise ZooError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears under its name only when all of its content is on disk.

    Raises:
        ZooError: If the file cannot be written; then nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose a folder that can be written"
        raise ZooError(f"{path}: cannot be written ({error.strerror}); {remedy}, then run the same again") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def checksum_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, as manifests record it."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
