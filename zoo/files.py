"""Writes files completely or not at all, computes their SHA-256 checksums, and reads TOML."""

import errno
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import file_digest
from importlib.resources.abc import Traversable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zoo.errors import AsymZooError, ZooError


def read_toml(path: Traversable, error: type[AsymZooError]) -> dict[str, Any]:
    """Return the content of a TOML file.

    Arguments:
        path: Path of the file.
        error: Class of the error.

    Raises:
        AsymZooError: If the file cannot be read, or is not valid TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror}); give the path of a TOML file") from cause
    except UnicodeDecodeError as cause:
        raise error(f"{path}: not valid TOML: no UTF-8 at byte {cause.start}; correct it") from cause
    except tomllib.TOMLDecodeError as cause:
        raise error(f"{path}: not valid TOML: {cause}; correct it") from cause


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
