"""What to generate: a distribution over networks, and the treatments that each pair of draws gets.

A recipe is a TOML file; the built-in ones are in `zoo/recipes`.
"""

import inspect
import json
import tomllib
from collections.abc import Iterable
from functools import reduce
from hashlib import blake2b
from importlib.resources import files
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    create_model,
    field_serializer,
    field_validator,
)

from zoo.architectures import ARCHITECTURES, Architecture
from zoo.augmentation import Augmentation
from zoo.data import DATASETS, Data, load_data
from zoo.distribution import Distribution
from zoo.errors import RecipeError, nearest
from zoo.imported import Imported
from zoo.seeds import rng_for, seed_for
from zoo.training import Optimizer
from zoo.treatments import TREATMENTS, Treated, Treatment
from zoo.treatments.base import Held

BUILT_IN = files("zoo") / "recipes"
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
HYPERPARAMETERS = ("learning_rate", "weight_decay", "label_smoothing", "epochs")
FROZEN = ConfigDict(extra="forbid", frozen=True)


class DataChoice(BaseModel):
    """What the networks learn.

    Arguments:
        name: a key of `zoo.data.DATASETS`.
        train_limit: use a fixed random subset of this size for training.
    """

    model_config = FROZEN
    name: Literal[tuple(DATASETS)]  # type: ignore[valid-type]
    train_limit: PositiveInt | None = None


class Training(Optimizer):
    """How the networks learn: what they share (see `Optimizer`), and what is drawn for each pair.

    Arguments:
        learning_rate: the highest of the schedule.
        weight_decay: decoupled for AdamW, part of the gradient for SGD, as in `torch.optim`.
        label_smoothing: share of the label's mass that is spread over all classes.
        epochs: passes over the training set.
    """

    learning_rate: Distribution
    weight_decay: Distribution = Distribution(constant=0.0)
    label_smoothing: Distribution = Distribution(constant=0.0)
    epochs: Distribution

    @field_validator("learning_rate", "weight_decay", "label_smoothing", "epochs")
    @classmethod
    def _check_range(cls, value: Distribution, info: Any) -> Distribution:
        if info.field_name == "learning_rate" and value.low <= 0:
            raise ValueError(f"must be above 0, not {value.low}")
        if info.field_name == "weight_decay" and value.low < 0:
            raise ValueError(f"must not be negative, as {value.low} is")
        if info.field_name == "label_smoothing" and not 0 <= value.low <= value.high < 1:
            raise ValueError("must be at least 0 and less than 1")
        if info.field_name == "epochs" and (value.low < 1 or not (value.integers or value.low == int(value.high))):
            raise ValueError("must be a whole number above 0, or integers = [low, high]")
        return value

    @field_serializer("learning_rate", "weight_decay", "label_smoothing", "epochs")
    def _write(self, value: Distribution) -> Any:
        given = value.model_dump(exclude_none=True)
        return given.get("constant", given)


class ArchitectureArguments(BaseModel):
    """An architecture's name; the arguments of its constructor are the fields of subclasses."""

    model_config = FROZEN
    name: str

    @classmethod
    def of(cls, name: str, architecture: type[Architecture]) -> "type[ArchitectureArguments]":
        """Turn a constructor's annotated arguments into a model that validates them."""
        hints = get_type_hints(architecture.__init__, include_extras=True)
        fields: dict[str, Any] = {
            argument.name: (hints[argument.name], ... if argument.default is argument.empty else argument.default)
            for argument in inspect.signature(architecture).parameters.values()
        }
        fields["name"] = (Literal[name], ...)
        return create_model(architecture.__name__, __base__=cls, **fields)

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return self.model_dump(exclude={"name"})


_ARGUMENTS = {name: ArchitectureArguments.of(name, architecture) for name, architecture in ARCHITECTURES.items()}
if TYPE_CHECKING:
    AnyArchitecture = ArchitectureArguments
    AnyTreatment = Treatment
else:
    AnyArchitecture = Annotated[reduce(or_, _ARGUMENTS.values()), Field(discriminator="name")]
    AnyTreatment = Annotated[reduce(or_, TREATMENTS.values()), Field(discriminator="kind")]


class Recipe(BaseModel):
    """A paired zoo to be made.

    Arguments:
        name: of the zoo.
        description: one sentence.
        seed: the one number that all draws come from.
        pairs: how many draws; each is trained under every treatment.
        data: what the networks learn.
        architecture: the name of an architecture and its arguments.
        training: how they learn.
        treatments: by the name that the zoo gives them, a kind and its arguments.
        imported: who trained the networks, if not we: then `training` only tells the bounds of their hyperparameters.
    """

    model_config = FROZEN
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    description: str = ""
    seed: NonNegativeInt = 0
    pairs: PositiveInt
    data: DataChoice
    architecture: AnyArchitecture
    training: Training
    treatments: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")], AnyTreatment],
        Field(min_length=1),
    ]
    imported: Imported | None = None

    @classmethod
    def load(cls, source: str | Path) -> "Recipe":
        """Read a built-in recipe by its name, or a TOML file.

        Raises:
            RecipeError: if there is none, or it is not a valid recipe.
        """
        path = Path(source)
        if path.suffix != ".toml":
            if str(source) not in built_in_recipes():
                raise RecipeError(
                    f"{source}: no such recipe{nearest(str(source), built_in_recipes())}; "
                    f"the built-in ones are {', '.join(built_in_recipes())}, others are files that end in .toml"
                )
            text = (BUILT_IN / f"{source}.toml").read_text()
        else:
            try:
                text = path.read_text()
            except OSError as error:
                raise RecipeError(f"{path}: cannot be read ({error.strerror}); give the path of a TOML file") from error
            except UnicodeDecodeError as error:
                raise RecipeError(f"{path}: not valid TOML: no UTF-8 at byte {error.start}") from error
        try:
            return cls.read(tomllib.loads(text), str(source))
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{source}: not valid TOML: {error}") from error

    @classmethod
    def read(cls, values: dict[str, Any], source: str = "recipe") -> "Recipe":
        """Validate a recipe's values, naming `source` in errors.

        Raises:
            RecipeError: for the first field that is wrong.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RecipeError(f"{source}: {_explain(error)}") from None

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        """Pickle as JSON: the model of an architecture's arguments is no module's attribute."""
        return type(self).model_validate_json, (self.model_dump_json(),)

    def only(self, treatments: Iterable[str]) -> "Recipe":
        """Return the recipe with some of its treatments, in its own order.

        Raises:
            RecipeError: if it does not have one of them.
        """
        chosen = set(treatments)
        for name in chosen - self.treatments.keys():
            raise RecipeError(
                f"treatments: {self.name} has no {name!r}{nearest(name, self.treatments)}; "
                f"it has {', '.join(self.treatments)}"
            )
        return self.model_copy(update={"treatments": {n: t for n, t in self.treatments.items() if n in chosen}})

    @property
    def digest(self) -> str:
        """Identify the recipe by its content: the blake2b digest of its canonical JSON, without the description."""
        apart = {"description"} | ({"imported"} if self.imported is None else set())  # older zoos keep their digest
        text = json.dumps(self.model_dump(mode="json", exclude=apart), sort_keys=True)
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def treat(self, treatment: str, held: Held | None = None) -> Treated:
        """Return the architecture under a treatment, with what a zoo `held` or else drawn anew.

        Raises:
            RecipeError: if the treatment does not fit the architecture.
        """
        name, arguments = self.architecture.name, self.architecture.arguments
        try:
            return Treated.of(self.treatments[treatment], name, arguments, seed=self.seed, held=held)
        except RecipeError as error:
            raise RecipeError(f"{self.name}: treatments.{treatment}.{error}") from None

    def load_data(self, data_dir: str | Path | None = None, outside: str | None = None) -> Data:
        """Load what the networks learn, as they read it; arguments and errors are those of `zoo.data.load_data`."""
        data = load_data(self.data.name, data_dir=data_dir, train_limit=self.data.train_limit, outside=outside)
        return data if self.imported is None else self.imported.prepare(data)

    def draw(self, pair: int) -> dict[str, int | float]:
        """Draw the hyperparameters of a pair."""
        return {
            name: getattr(self.training, name).draw(rng_for(self.seed, f"hyperparameters/{name}", pair))
            for name in HYPERPARAMETERS
        }

    def split_of(self, pair: int) -> Split:
        """Return the split of a pair, the same under all treatments: 50 % train, 25 % validation, 25 % test."""
        share = seed_for(self.seed, "split", pair) / 2**64
        return SPLITS[(share >= 0.5) + (share >= 0.75)]


def built_in_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.name.removesuffix(".toml") for path in BUILT_IN.iterdir() if path.name.endswith(".toml"))


def _model_at(loc: tuple[Any, ...]) -> type[BaseModel]:
    """Return the model that lacks the field at a place in a recipe."""
    match loc:
        case ("architecture", name, _):
            return _ARGUMENTS[name]
        case ("treatments", _, kind, _):
            return TREATMENTS[kind]
        case ("training", "augmentation", _):
            return Augmentation
        case ("training", _, _):
            return Distribution
        case ("training", _):
            return Training
        case ("data", _):
            return DataChoice
        case ("imported", _):
            return Imported
    return Recipe


def _explain(error: ValidationError) -> str:
    """Put the first of a validation's errors in one line: the field, what is wrong, what to do."""
    errors = error.errors()
    # A union of forms reports on each of them: the one that came furthest is what was meant.
    first = max((e for e in errors if e["loc"][:4] == errors[0]["loc"][:4]), key=lambda e: len(e["loc"]))
    tags = {*ARCHITECTURES, *TREATMENTS}
    place = list(first["loc"])
    # A union puts its tag or form after the field; `treatments` is followed by the user's own names.
    if place[:1] == ["treatments"] and len(place) > 2:
        form = place[4:5] if place[4:5] and isinstance(place[4], int) else []
        place = place[:2] + place[3:4] + form + place[5:] if place[2] in tags else place
    elif place[:1] == ["architecture"]:
        place = place[:1] + place[2:] if len(place) > 1 and place[1] in tags else place
    field, context = ".".join(map(str, place)), first.get("ctx", {})
    if first["type"] == "extra_forbidden":
        fields = _model_at(first["loc"]).model_fields
        return f"{field}: unknown field{nearest(str(place[-1]), fields) or '; remove it'}"
    if first["type"] == "union_tag_not_found":
        tag = context["discriminator"].strip("'")
        return f"{field}.{tag}: missing; add one of {', '.join(TREATMENTS if tag == 'kind' else ARCHITECTURES)}"
    if first["type"] == "union_tag_invalid":
        tag, known = context["tag"], [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        what = context["discriminator"].strip("'")
        return f"{field}: unknown {what} {tag!r}{nearest(tag, known)}; one of {', '.join(known)}"
    if first["type"] == "literal_error":
        found, known = first["input"], context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return f"{field}: {found!r} is not known{nearest(str(found), known)}; one of {', '.join(known)}"
    if first["type"] == "missing":
        return f"{field}: missing; add it"
    return f"{field}: {first['msg'].removeprefix('Value error, ')} (found {first['input']!r})"
