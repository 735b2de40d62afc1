"""The manifest of a zoo, `zoo.json`: its recipe as JSON, what its columns mean, and its files with their checksums.

A file appears under its name only when it is whole, and the manifest is replaced after the shards that it lists, so an
interrupted run leaves a zoo that can be resumed. The manifest begins with a seal, the SHA-256 of its own bytes with
zeros in the seal's place, so that a single flipped bit is found when a zoo is opened.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError, field_validator, model_validator

from zoo.errors import ZooError, nearest
from zoo.files import write_whole
from zoo.networks.parameters import ParameterLayout
from zoo.store.columns import Column

MANIFEST = "zoo.json"
SCHEMA = 2
ZOO_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
TREATMENT_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
COLUMN_NAME = re.compile(r"[A-Za-z]\w*")
MOST = 1 << 40  # parameters, far beyond any network that fits a shard
KEPT = ConfigDict(extra="allow", frozen=True)  # fields that later versions add are kept when a zoo grows
SEAL = re.compile(rb'\{\n "seal": "([0-9a-f]{64})",\n')
UNSEALED = b'{\n "seal": "%s",\n' % (b"0" * 64)


class Mode(BaseModel):
    """What trained weights depend on besides the recipe: the same mode gives the same bits.

    Arguments:
        device: `cpu`, or the name of the GPU.
        processor: its family, model and vector instructions.
        torch: version.
        data: digest of the data.
        engine: that trained, `torch`.
        precision: in which it trained.
    """

    model_config = KEPT
    device: str
    processor: str
    torch: str
    data: str
    engine: str = "torch"
    precision: str = "float32"


class File(BaseModel):
    """A shard, or what a treatment holds constant (then `pairs` and `mode` are None).

    Arguments:
        path: relative to the zoo.
        treatment: whose networks.
        pairs: the first, and one past the last.
        bytes, sha256: of the file.
        mode: in which its networks were trained.
    """

    model_config = KEPT
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

    @field_validator("pairs")
    @classmethod
    def _has_a_pair(cls, pairs: tuple[int, int] | None) -> tuple[int, int] | None:
        if pairs is not None and pairs[0] >= pairs[1]:
            raise ValueError("a shard has at least one pair")
        return pairs


class Manifest(BaseModel):
    """`zoo.json`: what a zoo is and which files it has.

    Arguments:
        schema_version: of this format.
        recipe: that made it, as far as it was asked for; JSON, which `zoo.recipes.recipe.Recipe.of` validates.
        digest: the recipe's, see `digest_of`.
        created: when the zoo was begun, ISO 8601.
        versions: of what made it.
        columns: of its shards.
        layouts: for each treatment, what the columns of a row mean.
        sites: for each treatment and activation, named by its submodule, the axis and the module, such as `ReLU`.
        files: shards and constants.
    """

    model_config = KEPT
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
            raise ValueError("columns need different names of letters, digits and _")
        return columns

    @model_validator(mode="after")
    def _is_a_whole(self) -> "Manifest":
        name, pairs, treatments = (self.recipe.get(field) for field in ("name", "pairs", "treatments"))
        if not isinstance(name, str) or not ZOO_NAME.fullmatch(name):
            raise ValueError("recipe.name is no name")
        if type(pairs) is not int or pairs < 1:
            raise ValueError("recipe.pairs is no number above 0")
        if not isinstance(treatments, dict) or not treatments:
            raise ValueError("recipe.treatments is no table of treatments by name")
        if wrong := [name for name in treatments if not TREATMENT_NAME.fullmatch(name)]:
            raise ValueError(f"recipe.treatments: {wrong[0]!r} is no name of a treatment")
        if unknown := {name for column in self.columns for name in column.treatments or ()} - treatments.keys():
            raise ValueError(f"columns: there is no treatment {min(unknown)!r}")
        if not treatments.keys() == self.layouts.keys() == self.sites.keys():
            raise ValueError("layouts and sites are not those of recipe.treatments")
        for treatment in treatments:
            begin = 0
            for file in self.of(treatment):
                if file.pairs is not None and (file.pairs[0] < begin or file.pairs[1] > pairs):
                    raise ValueError(f"files: {file.path} has pairs of another shard, or beyond {pairs}")
                begin = file.pairs[1] if file.pairs else begin
        return self

    @field_validator("layouts")
    @classmethod
    def _are_layouts(cls, layouts: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
        for treatment, parameters in layouts.items():
            try:
                size = ParameterLayout.from_json(parameters).size
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"{treatment} is no layout ({type(error).__name__}: {error})") from None
            if not 0 < size < MOST:
                raise ValueError(f"{treatment} has {size} parameters")
        return layouts

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read a zoo's manifest.

        Raises:
            ZooError: if there is none, a bit of it has changed, or it is of another version.
        """
        path, content = folder / MANIFEST, _content(folder)
        seal = SEAL.match(content)
        if seal is None or seal[1] != _seal_of(content):
            raise ZooError(f"{path}: {_why_unsealed(content)}")
        return cls.parse(content, path)

    @classmethod
    def parse(cls, content: bytes, path: Path) -> "Manifest":
        """Validate the JSON of a manifest, whatever its seal.

        Raises:
            ZooError: for the first field that is wrong, naming `path`.
        """
        try:
            manifest = cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = f"{'.'.join(map(str, first['loc']))}: " if first["loc"] else ""
            fact = first["msg"].removeprefix("Value error, ")
            raise ZooError(f"{path}: {place}{fact}; restore it from a copy or generate anew") from None
        if manifest.schema_version != SCHEMA:
            raise ZooError(f"{path}: is of format {manifest.schema_version}, not {SCHEMA}; install a newer asymzoo")
        if manifest.digest != digest_of(manifest.recipe):
            raise ZooError(f"{path}: the digest is not that of the recipe; restore it from a copy or generate anew")
        return manifest

    def write(self, folder: Path) -> None:
        """Replace a zoo's manifest, sealed."""
        text = self.model_dump_json(indent=1, exclude={"seal"}).encode()
        content = UNSEALED + text.removeprefix(b"{\n")
        write_whole(folder / MANIFEST, content.replace(b"0" * 64, _seal_of(content), 1))

    @property
    def name(self) -> str:
        """The recipe's."""
        return str(self.recipe["name"])

    @property
    def description(self) -> str:
        """One sentence."""
        return str(self.recipe.get("description", ""))

    @property
    def source(self) -> str | None:
        """Whose networks these are, if they were imported."""
        imported = self.recipe.get("imported")
        return str(imported.get("source", "")) if isinstance(imported, dict) else None

    @property
    def pairs(self) -> int:
        """How many pairs were asked for."""
        return int(self.recipe["pairs"])

    @property
    def treatments(self) -> tuple[str, ...]:
        """The names of its treatments."""
        return tuple(self.recipe["treatments"])

    def columns_of(self, treatment: str) -> dict[str, Column]:
        """Return the columns of a treatment's shards by name."""
        return {c.name: c for c in self.columns if c.treatments is None or treatment in c.treatments}

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
        return runs + ([range(begin, self.pairs)] if begin < self.pairs else [])

    def check_treatment(self, treatment: str, place: Path) -> None:
        """Raise a `ZooError` that names `place` and the nearest name if there is no such treatment."""
        if treatment not in self.treatments:
            near = nearest(treatment, self.treatments)
            raise ZooError(f"{place}: has no treatment {treatment!r}{near}; it has {', '.join(self.treatments)}")


def digest_of(recipe: Mapping[str, Any]) -> str:
    """Identify a recipe by its stored JSON: the blake2b digest of its canonical form, without the description."""
    content = {name: value for name, value in recipe.items() if name != "description"}
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def reseal(folder: Path) -> Manifest:
    """Rewrite a manifest that was edited by hand, if it is valid, with the digest of its recipe and a new seal.

    Raises:
        ZooError: if there is none or it is not valid.
    """
    path, content = folder / MANIFEST, _content(folder)
    try:
        values = json.loads(content)
        values["digest"] = digest_of(values["recipe"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ZooError(f"{path}: is no manifest ({type(error).__name__}: {error}); correct it") from None
    manifest = Manifest.parse(json.dumps(values).encode(), path)
    manifest.write(folder)
    return manifest


def _content(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise ZooError(f"{folder}: no zoo here, {MANIFEST} cannot be read ({error.strerror})") from error


def _seal_of(content: bytes) -> bytes:
    """Return the SHA-256 of a sealed manifest with zeros in the seal's place, in hexadecimal."""
    return sha256(UNSEALED + content[len(UNSEALED) :]).hexdigest().encode()


def _why_unsealed(content: bytes) -> str:
    try:
        version = json.loads(content)["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        version = SCHEMA
    if version == 1:
        return "is of format 1, which was never published; generate the zoo anew"
    return (
        "altered, it is not what was written; restore it from a copy or, if you edited it, run "
        "`asymzoo zoo reseal` on the folder"
    )
