"""The manifest of a zoo, `zoo.json`: its recipe as JSON, what its columns mean, and its files with their checksums.

Files are written completely before they appear under their names, and the manifest is written after the shards that it
lists. So an interrupted run leaves a zoo that can be continued. The manifest begins with a seal: the SHA-256 of its own
bytes, with zeros in place of the seal. Any change of the file, even of a single bit, is found when the zoo is opened.
"""

import json
import re
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError, field_validator, model_validator

from zoo.errors import ZooError, nearest
from zoo.files import write_whole
from zoo.networks.parameters import ParameterLayout
from zoo.store.columns import Column
from zoo.stored import COLUMN_NAME, TREATMENT_NAME, ZOO_NAME, digest_of

MANIFEST = "zoo.json"
SCHEMA = 2
MOST_PARAMETERS = 1 << 40  # far more than any network in a shard has; refuses forged layouts
KEEP_UNKNOWN = ConfigDict(extra="allow", frozen=True)  # a growing zoo keeps the fields that later versions added
SEAL = re.compile(rb'\{\n "seal": "([0-9a-f]{64})",\n')
UNSEALED = b'{\n "seal": "%s",\n' % (b"0" * 64)


class Mode(BaseModel):
    """What trained weights depend on besides the recipe; see `zoo.training.modes.give_same_bits`.

    Arguments:
        device: Device that trained, `cpu` or the name of a GPU.
        processor: Architecture, model and vector instructions of the processor.
        torch: Version of PyTorch.
        data: Digest of the data.
        engine: Engine that trained, and its version.
        precision: Precision of the training.
        stack: Most networks that trained together on a GPU, where results depend on it in the last bits; else None.
    """

    model_config = KEEP_UNKNOWN
    device: str
    processor: str
    torch: str
    data: str
    engine: str = "torch"
    precision: str = "float32"
    stack: int | None = None


class File(BaseModel):
    """A file of a zoo: a shard, or the constants of a treatment.

    Arguments:
        path: Path relative to the folder of the zoo.
        treatment: Name of the treatment.
        pairs: First pair in the shard, and one past the last one; None for constants.
        bytes: Size of the file.
        sha256: Checksum of the file.
        mode: Mode in which the networks of the shard were trained; None for constants.
    """

    model_config = KEEP_UNKNOWN
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
            raise ValueError("is outside the zoo's folder")
        return path

    @field_validator("pairs")
    @classmethod
    def _has_a_pair(cls, pairs: tuple[int, int] | None) -> tuple[int, int] | None:
        if pairs is not None and pairs[0] >= pairs[1]:
            raise ValueError("a shard must have at least one pair")
        return pairs


class Manifest(BaseModel):
    """The content of `zoo.json`: what a zoo is, and which files it has.

    Arguments:
        schema_version: Version of the format.
        recipe: Recipe of the zoo as JSON, with the pairs and treatments that were generated.
            `zoo.recipes.recipe.Recipe.of` validates it.
        digest: Digest of the recipe, see `zoo.stored.digest_of`.
        created: Time at which the zoo was started, ISO 8601.
        versions: Versions of Python and of the packages that made the zoo.
        columns: Columns of the shards.
        layouts: Layout of a row under each treatment, see `ParameterLayout.to_json`.
        sites: Axis and class, such as `ReLU`, of each activation under each treatment, by the name of its submodule.
        files: Shards and constants.
    """

    model_config = KEEP_UNKNOWN
    schema_version: int = SCHEMA
    recipe: dict[str, Any]
    digest: str
    created: str
    versions: dict[str, str]
    columns: tuple[Column, ...]
    layouts: dict[str, list[dict[str, Any]]]
    sites: dict[str, dict[str, tuple[str, str]]]
    files: tuple[File, ...] = ()

    @field_validator("created")
    @classmethod
    def _is_a_time(cls, created: str) -> str:
        datetime.fromisoformat(created)
        return created

    @field_validator("columns")
    @classmethod
    def _are_named(cls, columns: tuple[Column, ...]) -> tuple[Column, ...]:
        names = [column.name for column in columns]
        if len(set(names)) < len(names) or not all(map(COLUMN_NAME.fullmatch, names)):
            raise ValueError("columns must have different names of letters, digits and _")
        return columns

    @model_validator(mode="after")
    def _is_a_whole(self) -> "Manifest":
        name, pairs, treatments = (self.recipe.get(field) for field in ("name", "pairs", "treatments"))
        if not isinstance(name, str) or not ZOO_NAME.fullmatch(name):
            raise ValueError("recipe.name is not a valid name")
        if type(pairs) is not int or pairs < 1:
            raise ValueError("recipe.pairs is not a whole number above 0")
        if not isinstance(treatments, dict) or not treatments:
            raise ValueError("recipe.treatments is not a table of treatments by name")
        if wrong := [name for name in treatments if not TREATMENT_NAME.fullmatch(name)]:
            raise ValueError(f"recipe.treatments: {wrong[0]!r} is not a valid name of a treatment")
        if unknown := {name for column in self.columns for name in column.treatments or ()} - treatments.keys():
            raise ValueError(f"columns: there is no treatment {min(unknown)!r}")
        if not treatments.keys() == self.layouts.keys() == self.sites.keys():
            raise ValueError("layouts and sites must have the treatments of recipe.treatments")
        for treatment in treatments:
            begin = 0
            for file in self.of(treatment):
                if file.pairs is not None and (file.pairs[0] < begin or file.pairs[1] > pairs):
                    raise ValueError(f"files: {file.path} has pairs of another shard, or pairs beyond {pairs}")
                begin = file.pairs[1] if file.pairs else begin
        return self

    @field_validator("layouts")
    @classmethod
    def _are_layouts(cls, layouts: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
        for treatment, parameters in layouts.items():
            try:
                size = ParameterLayout.from_json(parameters).size
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"{treatment} is not a layout ({type(error).__name__}: {error})") from None
            if not 0 < size < MOST_PARAMETERS:
                raise ValueError(f"{treatment} has {size} parameters")
        return layouts

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of a zoo.

        Raises:
            ZooError: If there is none, its seal does not match, or it has another version of the format.
        """
        path, content = folder / MANIFEST, _content(folder)
        seal = SEAL.match(content)
        if seal is None or seal[1] != _seal_of(content):
            raise ZooError(f"{path}: {_why_unsealed(content)}")
        return cls.parse(content, path)

    @classmethod
    def parse(cls, content: bytes, path: Path) -> "Manifest":
        """Validate the JSON of a manifest, without a check of its seal.

        Arguments:
            content: JSON of the manifest.
            path: Path of the manifest, for error messages.

        Raises:
            ZooError: If a field is wrong; the message is about the first one.
        """
        try:
            manifest = cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = f"{'.'.join(map(str, first['loc']))}: " if first["loc"] else ""
            fact = first["msg"].removeprefix("Value error, ")
            raise ZooError(f"{path}: {place}{fact}; restore it from a copy or generate the zoo again") from None
        if manifest.schema_version != SCHEMA:
            raise ZooError(f"{path}: has format {manifest.schema_version}, not {SCHEMA}; install a newer asymzoo")
        if manifest.digest != digest_of(manifest.recipe):
            fact = "the digest is not that of the recipe"
            raise ZooError(f"{path}: {fact}; restore it from a copy or generate the zoo again")
        return manifest

    def write(self, folder: Path) -> None:
        """Write the manifest with its seal, in place of an earlier one."""
        text = self.model_dump_json(indent=1, exclude={"seal"}).encode()
        content = UNSEALED + text.removeprefix(b"{\n")
        write_whole(folder / MANIFEST, content.replace(b"0" * 64, _seal_of(content), 1))

    @property
    def name(self) -> str:
        """Name of the zoo, which is that of its recipe."""
        return str(self.recipe["name"])

    @property
    def description(self) -> str:
        """Description of the zoo, one sentence."""
        return str(self.recipe.get("description", ""))

    @property
    def source(self) -> str | None:
        """Origin of the networks if they were imported, else None."""
        imported = self.recipe.get("imported")
        return str(imported.get("source", "")) if isinstance(imported, dict) else None

    @property
    def pairs(self) -> int:
        """Number of pairs of the recipe."""
        return int(self.recipe["pairs"])

    @property
    def treatments(self) -> tuple[str, ...]:
        """Names of the treatments."""
        return tuple(self.recipe["treatments"])

    def columns_of(self, treatment: str) -> dict[str, Column]:
        """Return the columns of a treatment's shards, by name."""
        return {c.name: c for c in self.columns if c.treatments is None or treatment in c.treatments}

    def of(self, treatment: str) -> list[File]:
        """Return the shards of a treatment, in the order of their pairs."""
        shards = [file for file in self.files if file.treatment == treatment and file.pairs is not None]
        return sorted(shards, key=lambda file: file.pairs or ())

    def missing(self, treatment: str) -> list[range]:
        """Return the ranges of consecutive pairs that a treatment still lacks."""
        runs, begin = [], 0
        for file in self.of(treatment):
            assert file.pairs is not None
            if begin < file.pairs[0]:
                runs.append(range(begin, file.pairs[0]))
            begin = file.pairs[1]
        return runs + ([range(begin, self.pairs)] if begin < self.pairs else [])

    def check_treatment(self, treatment: str, place: Path) -> None:
        """Raise a `ZooError` that suggests the closest name if the zoo does not have the treatment."""
        if treatment not in self.treatments:
            near = nearest(str(treatment), self.treatments)
            raise ZooError(f"{place}: has no treatment {treatment!r}{near}; it has {', '.join(self.treatments)}")


def reseal(folder: Path) -> Manifest:
    """Check a manifest that was edited by hand, and write it with the digest of its recipe and a new seal.

    Raises:
        ZooError: If there is no manifest, or it is not valid.
    """
    path, content = folder / MANIFEST, _content(folder)
    try:
        values = json.loads(content)
        values["digest"] = digest_of(values["recipe"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ZooError(f"{path}: is not a manifest ({type(error).__name__}: {error}); correct it") from None
    manifest = Manifest.parse(json.dumps(values).encode(), path)
    manifest.write(folder)
    return manifest


def _content(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST).read_bytes()
    except OSError as error:
        fact = f"is not a zoo, {MANIFEST} cannot be read ({error.strerror})"
        raise ZooError(f"{folder}: {fact}; give the folder of a zoo") from error


def _seal_of(content: bytes) -> bytes:
    """Return the SHA-256 of a manifest with zeros in place of its seal, in hexadecimal."""
    return sha256(UNSEALED + content[len(UNSEALED) :]).hexdigest().encode()


def _why_unsealed(content: bytes) -> str:
    """Return fact and remedy for a manifest whose seal does not match."""
    try:
        version = json.loads(content)["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        version = SCHEMA
    if version == 1:
        return "has format 1, which was never published; generate the zoo again"
    return (
        "was altered after it was written; restore it from a copy or, if you edited it, run `asymzoo zoo reseal` on "
        "the folder"
    )
