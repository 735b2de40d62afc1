"""Recipes: a distribution over networks, and the treatments that train every pair.

A recipe is a TOML file. The built-in ones are in `zoo/recipes`.
"""

import json
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
from zoo.files import read_toml
from zoo.networks.architectures import BUILT_IN as KNOWN_TO_ALL
from zoo.networks.architectures import Architecture, architecture_of, register
from zoo.recipes.arguments import ArchitectureArguments, arguments_of
from zoo.recipes.distribution import Distribution
from zoo.recipes.explaining import FieldError, explain
from zoo.recipes.optimizer import Optimizer
from zoo.seeds import rng_for, seed_for
from zoo.store.columns import SPLITS, Split
from zoo.store.zoo import Zoo
from zoo.stored import TREATMENT_NAME, ZOO_NAME, Stored, digest_of
from zoo.treatments import TREATMENTS, Treated, Treatment

BUILT_IN = files("zoo") / "recipes"
HYPERPARAMETERS = ("learning_rate", "weight_decay", "label_smoothing", "epochs")  # drawn for each pair


class DataChoice(Stored):
    """The data set that the networks learn.

    Arguments:
        name: Name of the data set, a key of `zoo.data.DATASETS`.
        train_limit: Number of training examples to use, a fixed random subset; by default all.
    """

    name: Literal[tuple(DATASETS)]  # type: ignore[valid-type]
    train_limit: PositiveInt | None = None


class Training(Optimizer):
    """How the networks are trained: shared settings (see `Optimizer`), and hyperparameters drawn for each pair.

    Arguments:
        learning_rate: Highest learning rate of the schedule.
        weight_decay: Weight decay, decoupled for AdamW and part of the gradient for SGD, as in `torch.optim`.
        label_smoothing: Fraction of the label's probability that is spread over all classes.
        epochs: Number of passes over the training set.
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
            raise ValueError(f"must not be negative, but is {value.low}")
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
    """Description of a paired zoo: what `generate` trains.

    Arguments:
        name: Name of the zoo.
        description: Description of the zoo, one sentence.
        seed: Seed from which everything random is derived.
        pairs: Number of pairs. Every pair is trained under every treatment.
        data: Data set that the networks learn.
        architecture: Name of the architecture, and its arguments.
        training: How the networks are trained.
        treatments: Kind and arguments of each treatment, by the name that it has in the zoo.
        imported: Origin of networks that were not trained by this package. Then `training` only records the bounds of
            their hyperparameters.
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
        """Validate the arguments by the constructor of the named architecture."""
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
        """Return a built-in recipe, or one read from a TOML file.

        Arguments:
            source: Name of a built-in recipe, or a path that ends in `.toml`.

        Raises:
            RecipeError: If there is no such recipe or file, or it is not a valid recipe.
        """
        path = Path(source)
        if path.suffix != ".toml":
            if str(source) not in built_in_recipes():
                raise RecipeError(
                    f"{source}: no such recipe{nearest(str(source), built_in_recipes())}; "
                    f"use one of {', '.join(built_in_recipes())}, or a file that ends in .toml"
                )
            return cls.read(read_toml(BUILT_IN / f"{source}.toml", RecipeError), str(source))
        return cls.read(read_toml(path, RecipeError), str(source))

    @classmethod
    def read(cls, values: dict[str, Any], source: str = "recipe") -> "Recipe":
        """Return the recipe with the given values, such as the content of a TOML file.

        Arguments:
            values: Fields of the recipe by name.
            source: Place of the recipe, for error messages.

        Raises:
            RecipeError: If a field is wrong; the message is about the first one.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RecipeError(f"{source}: {explain(error, _model_at, TREATMENTS)}") from None

    @classmethod
    def of(cls, zoo: Zoo) -> "Recipe":
        """Return the recipe of a zoo.

        Raises:
            RecipeError: If the architecture is not known here, or a later version of the package made the zoo.
        """
        return cls.read(zoo.manifest.recipe, str(zoo.folder))

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as values that JSON can hold, as zoos store it."""
        return self.model_dump(mode="json")

    def __reduce__(self) -> tuple[Any, tuple[str, type[Architecture] | None]]:
        """Pickle the JSON, and a reference to the architecture if it is not built in, so that workers import it."""
        name = self.architecture.name
        return _restore, (self.model_dump_json(), None if name in KNOWN_TO_ALL else architecture_of(name))

    def only(self, treatments: Iterable[str]) -> "Recipe":
        """Return the recipe with only some of its treatments, in the order of the recipe.

        Arguments:
            treatments: Names of the treatments to keep.

        Raises:
            RecipeError: If the recipe does not have one of them.
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
        """Digest that identifies the content of the recipe, see `zoo.stored.digest_of`."""
        return digest_of(self.to_json())

    def treat(self, treatment: str, *, pairs: Iterable[int] = (0,), data_dir: Path | None = None) -> Treated:
        """Return the architecture under a treatment.

        Arguments:
            treatment: Name of the treatment in the recipe.
            pairs: Numbers of the pairs, for treatments whose constants are drawn for each pair; see `Treated.of`.
            data_dir: Folder of files that the networks themselves read, such as a graph.

        Raises:
            RecipeError: If the treatment does not fit the architecture.
        """
        name, arguments, chosen = self.architecture.name, self.architecture.arguments, self.treatments[treatment]
        try:
            return Treated.of(chosen, name, arguments, seed=self.seed, pairs=tuple(pairs), data_dir=data_dir)
        except RecipeError as error:
            fact = str(error)
            place = "" if fact.startswith("architecture: ") else f"treatments.{treatment}."
            raise RecipeError(f"{self.name}: {place}{fact}") from None

    def load_data(self, data_dir: str | Path | None = None, outside: str | None = None) -> Data:
        """Return the data that the networks learn, with arguments and errors as in `zoo.data.load_data`.

        For imported networks, the data are prepared as those networks read them.
        """
        data = load_data(self.data.name, data_dir=data_dir, train_limit=self.data.train_limit, outside=outside)
        return data if self.imported is None else self.imported.prepare(data)

    def draw(self, pair: int) -> dict[str, int | float]:
        """Draw the hyperparameters of a pair, by name."""
        return {
            name: getattr(self.training, name).draw(rng_for(self.seed, f"hyperparameters/{name}", pair))
            for name in HYPERPARAMETERS
        }

    def split_of(self, pair: int) -> Split:
        """Return the split of a pair, the same under all treatments: 50 % train, 25 % validation, 25 % test."""
        uniform = seed_for(self.seed, "split", pair) / 2**64
        return SPLITS[(uniform >= 0.5) + (uniform >= 0.75)]


def built_in_recipes() -> list[str]:
    """Return the names of the built-in recipes."""
    return sorted(path.name.removesuffix(".toml") for path in BUILT_IN.iterdir() if path.name.endswith(".toml"))


def _restore(text: str, architecture: type[Architecture] | None) -> Recipe:
    """Register the architecture, if it is not built in, and return the recipe from its JSON."""
    if architecture is not None:
        register(architecture, json.loads(text)["architecture"]["name"])
    return Recipe.model_validate_json(text)


def _model_at(place: tuple[Any, ...]) -> type[BaseModel]:
    """Return the model in which the field at a place of a recipe was looked up."""
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
