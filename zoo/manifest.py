"""The manifest of a zoo, `zoo.json`: its recipe, what its columns mean, and which files it has, with checksums.

A file appears under its name only when it is whole, and the manifest is replaced after the shards that it lists,
so an interrupted run leaves a zoo that can be resumed.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import machine, processor, python_version
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError, field_validator

from zoo.errors import ZooError
from zoo.recipe import Recipe

MANIFEST = "zoo.json"


class Mode(BaseModel):
    """What trained weights depend on besides the recipe: the same mode gives the same bits.

    Arguments:
        device: `cpu`, or the name of the GPU.
        processor: its family, model and vector instructions.
        torch: version.
        data: digest of the data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    device: str
    processor: str
    torch: str
    data: str

    @classmethod
    def here(cls, device: str, data_digest: str) -> "Mode":
        """Describe this machine."""
        return cls(
            device=device if device == "cpu" else torch.cuda.get_device_name(device),
            processor=processor_name(),
            torch=str(torch.__version__),
            data=data_digest,
        )


def processor_name() -> str:
    """Return the processor's family, model and vector instructions, as PyTorch sees them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor())
    return f"{machine()}, {model}, {torch.backends.cpu.get_cpu_capability()}"


class File(BaseModel):
    """A shard, or what a treatment holds constant (then `pairs` and `mode` are None).

    Arguments:
        path: relative to the zoo.
        treatment: whose networks.
        pairs: the first, and one past the last.
        bytes, sha256: of the file.
        mode: in which its networks were trained.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str
    treatment: str
    pairs: tuple[NonNegativeInt, NonNegativeInt] | None = None
    bytes: NonNegativeInt
    sha256: str
    mode: Mode | None = None

    @field_validator("path")
    @classmethod
    def _stay_inside(cls, path: str) -> str:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise ValueError("leads out of the zoo")
        return path


class Manifest(BaseModel):
    """`zoo.json`: what a zoo is and which files it has.

    Arguments:
        schema_version: of this format.
        recipe: that made it, as far as it was asked for.
        digest: the recipe's.
        created: when the zoo was begun, ISO 8601.
        versions: of what made it.
        layouts: for each treatment, what the columns of a row mean.
        files: shards and constants.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    recipe: Recipe
    digest: str
    created: str
    versions: dict[str, str]
    layouts: dict[str, list[dict[str, Any]]]
    files: tuple[File, ...] = ()

    @field_validator("created")
    @classmethod
    def _is_a_time(cls, created: str) -> str:
        datetime.fromisoformat(created)
        return created

    @classmethod
    def begin(cls, recipe: Recipe) -> "Manifest":
        """Describe a zoo without networks."""
        packages = ("asymzoo", "torch", "numpy", "h5py")
        return cls(
            recipe=recipe,
            digest=recipe.digest,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions={"python": python_version()} | {name: version(name) for name in packages},
            layouts={name: recipe.treat(name).layout.to_json() for name in recipe.treatments},
        )

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read a zoo's manifest.

        Raises:
            ZooError: if there is none or it is not valid.
        """
        path = folder / MANIFEST
        try:
            manifest = cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ZooError(f"{folder}: no zoo here, {MANIFEST} cannot be read ({error.strerror})") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ZooError(f"{path}: {place}: {first['msg']}; restore it from a copy or generate anew") from None
        if manifest.digest != manifest.recipe.digest:
            raise ZooError(f"{path}: the digest is not that of the recipe; restore it from a copy or generate anew")
        return manifest

    def write(self, folder: Path) -> None:
        """Replace a zoo's manifest."""
        write_whole(folder / MANIFEST, self.model_dump_json(indent=1).encode())

    def of(self, treatment: str) -> list[File]:
        """Return the shards of a treatment, in the order of their pairs."""
        shards = [file for file in self.files if file.treatment == treatment and file.pairs is not None]
        return sorted(shards, key=lambda file: file.pairs or ())

    def missing(self, treatment: str) -> list[range]:
        """Return the runs of pairs that a treatment still lacks."""
        runs, begin = [], 0
        for file in self.of(treatment):
            assert file.pairs is not None
            if begin < file.pairs[0]:
                runs.append(range(begin, file.pairs[0]))
            begin = file.pairs[1]
        return runs + ([range(begin, self.recipe.pairs)] if begin < self.recipe.pairs else [])


def merge(old: Recipe, new: Recipe, folder: Path) -> Recipe:
    """Return the recipe of a zoo that is to grow: more pairs, further treatments, nothing else changed.

    Raises:
        ZooError: if the two would not make one zoo.
    """
    for field in ("name", "seed", "data", "architecture", "training", "imported"):
        if getattr(old, field) != getattr(new, field):
            raise ZooError(f"{folder}: holds a zoo of another recipe, {field} differs; choose another folder")
    for name in old.treatments.keys() & new.treatments.keys():
        if old.treatments[name] != new.treatments[name]:
            raise ZooError(f"{folder}: holds a zoo in which treatments.{name} differs; choose another folder or name")
    treatments = {**old.treatments, **new.treatments}
    return new.model_copy(update={"pairs": max(old.pairs, new.pairs), "treatments": treatments})


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
