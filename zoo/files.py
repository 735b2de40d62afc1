"""Files and folders: written whole or not at all, and checked by their SHA-256."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory

from zoo.errors import ZooError


def is_occupied(folder: Path) -> bool:
    """Whether a folder, to be or not yet to be, holds something.

    Raises:
        ZooError: if it cannot be a folder.
    """
    try:
        return folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise ZooError(f"{folder}: cannot be used ({error.strerror}); choose another folder") from error


def check_empty(folder: Path) -> None:
    """Raise a `ZooError` if a folder, to be or not yet to be, holds something or cannot be a folder."""
    if is_occupied(folder):
        raise ZooError(f"{folder}: is not empty; choose another folder")


@contextmanager
def room_beside(folder: Path) -> Iterator[Path]:
    """Give a folder on the same disk, in which to make what is moved in one step; it is removed in the end.

    Raises:
        ZooError: if there cannot be one, or what is done in it fails with an `OSError`.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            yield Path(temporary)
    except OSError as error:
        raise ZooError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears under its name only when all of it is on disk.

    Raises:
        ZooError: if it cannot be written; nothing is left behind.
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
    """Return the checksum of a file, as manifests record it."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
