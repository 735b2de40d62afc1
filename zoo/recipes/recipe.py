"""What to generate: a distribution over networks, and the treatments that each pair of draws gets.

A recipe is a TOML file; the built-in ones are in `zoo/recipes`.
"""

import json
import tomllib
from collections.abc import Iterable
from functools import reduce
from importlib.resources import files
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializeAsAny,
    ValidationError,
    field_serializer,
    field_validator,
)

from zoo.data import DATASETS, Data, load_data
from zoo.data.augmentation import Augmentation
from zoo.data.imported import Imported
from zoo.errors import RecipeError, nearest
from zoo.networks.architectures import BUILT_IN as KNOWN_TO_ALL
from zoo.networks.architectures import Architecture, architecture_of, register
from zoo.recipes.arguments import ArchitectureArguments, arguments_of
from zoo.recipes.distribution import Distribution
from zoo.recipes.explaining import FieldError, explain
from zoo.recipes.optimizer import Optimizer
from zoo.seeds import rng_for, seed_for
from zoo.store.columns import SPLITS, Split
from zoo.store.manifest import TREATMENT_NAME, ZOO_NAME, digest_of
from zoo.store.zoo import Zoo
from zoo.stored import Stored
from zoo.treatments import TREATMENTS, Treated, Treatment

BUILT_IN = files("zoo") / "recipes"
HYPERPARAMETERS = ("learning_rate", "weight_decay", "label_smoothing", "epochs")


class DataChoice(Stored):
    """What the networks learn.

    Arguments:
        name: a key of `zoo.data.DATASETS`.
        train_limit: use a fixed random subset of this size for training.
    """

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


if TYPE_CHECKING:
    AnyTreatment = Treatment
else:
    AnyTreatment = Annotated[reduce(or_, TREATMENTS.values()), Field(discriminator="kind")]


class Recipe(Stored):
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

    later: ClassVar[frozenset[str]] = frozenset({"imported"})

    name: Annotated[str, Field(pattern=f"^{ZOO_NAME.pattern}$")]
    description: str = ""
    seed: NonNegativeInt = 0
    pairs: PositiveInt
    data: DataChoice
    architecture: SerializeAsAny[ArchitectureArguments]
    training: Training
    treatments: Annotated[
        dict[Annotated[str, Field(pattern=f"^{TREATMENT_NAME.pattern}$")], AnyTreatment],
        Field(min_length=1),
    ]
    imported: Imported | None = None

    @field_validator("architecture", mode="before")
    @classmethod
    def _read_architecture(cls, value: Any) -> Any:
        """Validate the arguments by the constructor of the architecture that is named."""
        if not isinstance(value, dict):
            return value
        if not isinstance(name := value.get("name"), str):
            raise FieldError(f".name: missing; add one of {', '.join(KNOWN_TO_ALL)}")
        try:
            model = arguments_of(architecture_of(name), name)  # type: ignore[arg-type]  # classes can be hashed
            return model.model_validate(value)
        except RecipeError as error:
            raise FieldError(str(error).removeprefix("architecture")) from None
        except ValidationError as error:
            raise FieldError(f".{explain(error, lambda place: model)}") from None

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
            raise RecipeError(f"{source}: {explain(error, _model_at, TREATMENTS)}") from None

    @classmethod
    def of(cls, zoo: Zoo) -> "Recipe":
        """Return the recipe of a zoo.

        Raises:
            RecipeError: if the code of its architecture is not known here, or a later version made it.
        """
        return cls.read(zoo.manifest.recipe, str(zoo.folder))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, as zoos store it."""
        return self.model_dump(mode="json")

    def __reduce__(self) -> tuple[Any, tuple[str, type[Architecture] | None]]:
        """Pickle as JSON, and an architecture of the user's by reference, for workers to import."""
        name = self.architecture.name
        return _restore, (self.model_dump_json(), None if name in KNOWN_TO_ALL else architecture_of(name))

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
        """Identify the recipe by its content, see `zoo.store.manifest.digest_of`."""
        return digest_of(self.to_json())

    def treat(self, treatment: str, *, pairs: Iterable[int] = (0,), data_dir: Path | None = None) -> Treated:
        """Return the architecture under a treatment.

        Arguments:
            treatment: its name in the recipe.
            pairs: whose networks these are, see `Treated.of`.
            data_dir: folder of files that the networks themselves read.

        Raises:
            RecipeError: if the treatment does not fit the architecture.
        """
        name, arguments, chosen = self.architecture.name, self.architecture.arguments, self.treatments[treatment]
        try:
            return Treated.of(chosen, name, arguments, seed=self.seed, pairs=tuple(pairs), data_dir=data_dir)
        except RecipeError as error:
            fact = str(error)
            place = "" if fact.startswith("architecture: ") else f"treatments.{treatment}."
            raise RecipeError(f"{self.name}: {place}{fact}") from None

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


def _restore(text: str, architecture: type[Architecture] | None) -> Recipe:
    """Unpickle a recipe, and let its architecture be known."""
    if architecture is not None:
        register(architecture, json.loads(text)["architecture"]["name"])
    return Recipe.model_validate_json(text)


def _model_at(place: tuple[Any, ...]) -> type[BaseModel]:
    """Return the model that lacks the field at a place in a recipe."""
    match place:
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
