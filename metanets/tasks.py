"""A task: a frozen question about zoos, which metanetworks learn to answer and are scored on."""

import operator
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator

from zoo.errors import TaskError, nearest
from zoo.files import read_toml
from zoo.recipes.explaining import explain
from zoo.stored import COLUMN_NAME, TREATMENT_NAME, ZOO_NAME, Stored, digest_of

TREATMENT = "treatment"  # the target whose values are classes: which treatment a network trained under
TARGET = "test_accuracy"
RANKING = {"number": ("kendall_tau", "r2", "rmse"), "classes": ("accuracy", "log_loss")}
Access = Literal["weights", "weights+function", "weights+data"]
ACCESS: tuple[Access, ...] = ("weights", "weights+function", "weights+data")
TreatmentName = Annotated[str, Field(pattern=f"^{TREATMENT_NAME.pattern}$")]
ZooName = Annotated[str, Field(pattern=f"^{ZOO_NAME.pattern}$")]

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
CONDITION = re.compile(rf"\s*({COLUMN_NAME.pattern})\s*({'|'.join(COMPARISONS)})\s*(\S.*?)\s*")
ROWS = re.compile(r"weights|initial|checkpoint:0?\.[0-9]*[1-9][0-9]*")


class TaskData(BaseModel):
    """The data of a task: what identifies the zoo, or the two zoos, that its networks come from.

    Adding treatments to a zoo changes none of it.

    Arguments:
        recipe: Digest of the zoo's recipe, restricted to the treatments that the task uses.
        pairs: Number of pairs of the zoo.
        test_recipe, test_pairs: The same of the zoo that is tested on, if it is another one.
        labels: SHA-256 of all targets, of the train, the validation and the test networks.
        test_rows: SHA-256 of the rows of the test networks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    recipe: str
    pairs: PositiveInt
    test_recipe: str | None = None
    test_pairs: PositiveInt | None = None
    labels: str | None = None
    test_rows: str | None = None


class Task(Stored):
    """A frozen question about zoos: which networks are learnt from, what is predicted of which, and how it is scored.

        >>> task = Task(recipe="digits-mlp", learn_from="standard", target="learning_rate", max_train=64)
        >>> task.name, task.test_on, task.metric
        ('digits-mlp/standard/learning_rate', ('standard',), 'kendall_tau')
        >>> task.digest == task.model_copy(update={"question": "How fast did it learn?"}).digest
        True

    Arguments:
        name: Name of the task; by default `recipe/treatments/target`.
        version: Version, raised when anything else changes.
        question: The question, in one sentence.
        recipe: Name of the zoo.
        learn_from: Treatments whose train and validation networks are learnt from.
        test_on: Treatments whose test networks are predicted; those of `learn_from` by default.
        target: Column to predict, `generalisation_gap`, or `treatment` (which treatment a network trained under).
        access: What a metanetwork may use: `weights`; `weights+function`, which lets it run the networks on inputs that
            it makes up; or `weights+data`, which lets it run them on examples of their data set.
        rows: Rows to read: `weights`, `initial` (before training) or `checkpoint:0.1` (after a tenth of it).
        max_train: Number of training pairs, the first of the train split; all by default.
        among: Test networks that count: `all`, or those `above_median`, the median target of the train split.
        train_where: Conditions on columns of train and validation networks, such as `"learning_rate < 0.01"`.
        test_where: Conditions on columns of test networks.
        test_recipe: Name of another zoo to test on; that of `recipe` by default.
        permuted: Whether the hidden units of test networks are permuted at random.
        metric: Metric that ranks: `kendall_tau`, `r2` or `rmse`; of classes `accuracy` or `log_loss`.
        data: Identity of the zoos, if the task is pinned to them.

    Raises:
        ValidationError: If a field is wrong; `Task.load` and `Task.read` raise `TaskError` in one line instead.
    """

    name: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9._/+-]*)?$")] = ""
    version: PositiveInt = 1
    question: str = ""
    recipe: ZooName
    learn_from: Annotated[tuple[TreatmentName, ...], Field(min_length=1)]
    test_on: tuple[TreatmentName, ...] = ()
    target: str = TARGET
    access: Access = "weights"
    rows: Annotated[str, Field(pattern=f"^({ROWS.pattern})$")] = "weights"
    max_train: Annotated[int, Field(ge=2)] | None = None
    among: Literal["all", "above_median"] = "all"
    train_where: tuple[str, ...] = ()
    test_where: tuple[str, ...] = ()
    test_recipe: ZooName | None = None
    permuted: bool = False
    metric: Literal["kendall_tau", "r2", "rmse", "accuracy", "log_loss"] = "kendall_tau"
    data: TaskData | None = None

    @field_validator("train_where", "test_where")
    @classmethod
    def _normalise(cls, conditions: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted({" ".join(map(str, parse_condition(condition))) for condition in conditions}))

    @field_validator("rows")
    @classmethod
    def _shorten(cls, rows: str) -> str:
        kind, _, fraction = rows.partition(":")
        return f"{kind}:0.{fraction.partition('.')[2].rstrip('0')}" if fraction else rows

    @field_validator("learn_from", "test_on")
    @classmethod
    def _differ(cls, treatments: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(treatments)) < len(treatments):
            raise ValueError("names a treatment twice")
        return treatments

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Write down what follows from other fields, so that it counts in the digest whether it was given or not."""
        if not isinstance(values, dict):
            return values
        one = ("learn_from", "test_on", "train_where", "test_where")
        values = {n: [v] if n in one and isinstance(v, str) else v for n, v in values.items()}
        if not values.get("test_on"):
            values["test_on"] = values.get("learn_from", ())
        if not values.get("name") and values.get("recipe"):
            learnt = values.get("learn_from")
            learnt = "+".join(map(str, learnt)) if isinstance(learnt, list | tuple) else learnt
            name = f"{values['recipe']}/{learnt}/{values.get('target', TARGET)}".lower()
            values["name"] = re.sub(r"[^a-z0-9._/+-]", "-", name).lstrip("._/+-")
        if not values.get("metric"):
            values["metric"] = "accuracy" if values.get("target") == TREATMENT else "kendall_tau"
        if values.get("test_recipe") == values.get("recipe"):
            values["test_recipe"] = None
        return values

    @model_validator(mode="after")
    def _fits(self) -> "Task":
        known = RANKING["classes" if self.classes else "number"]
        if self.metric not in known:
            raise ValueError(f"metric: {self.metric} is not for {self.target}; choose one of {', '.join(known)}")
        if self.classes and set(self.learn_from) != set(self.test_on):
            raise ValueError("test_on: which treatment it is can be asked only of the treatments of learn_from")
        if self.classes and len(self.learn_from) < 2:
            raise ValueError("learn_from: names one treatment; to tell treatments apart takes two or more")
        if self.classes and self.among != "all":
            raise ValueError("among: treatments have no median; leave it out")
        return self

    @classmethod
    def load(cls, source: "Task | str | Path", folders: Iterable[Path] = ()) -> "Task":
        """Return a task as it is, or read it from a TOML file.

        Arguments:
            source: The task, the path of a file that ends in `.toml`, or a name such as `digits-mlp/accuracy`.
            folders: Folders in which a name is looked up, as `NAME.toml`.

        Raises:
            TaskError: If there is no such file, or it is no valid task.
        """
        if isinstance(source, Task):
            return source
        path = Path(source)
        if path.suffix != ".toml":
            known = {str(p.relative_to(f).with_suffix("")): p for f in folders for p in sorted(f.rglob("*.toml"))}
            if str(source) not in known:
                names = f"built-in tasks are {', '.join(known)}; " if known else ""
                raise TaskError(f"{source}: no such task{nearest(str(source), known)}; {names}files end in .toml")
            path = known[str(source)]
        return cls.read(read_toml(path, TaskError), str(path))

    @classmethod
    def read(cls, values: dict[str, Any], source: str = "task") -> "Task":
        """Validate the values of a task, naming `source` in errors.

        Raises:
            TaskError: For the first field that is wrong.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            fact = explain(error, lambda place: TaskData if place[:1] == ("data",) else Task).removeprefix(": ")
            raise TaskError(f"{source}: {fact.partition(' (found {')[0]}") from None

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes to tell apart; none if a number is predicted."""
        return self.learn_from if self.target == TREATMENT else ()

    @property
    def digest(self) -> str:
        """Identify all that scores depend on: every field but name, version and question."""
        return digest_of(self.model_dump(mode="json", exclude={"name", "version", "question"}))


def parse_condition(condition: str) -> tuple[str, str, float | str]:
    """Return column, comparison and value of a condition such as `learning_rate < 0.01`.

    Raises:
        ValueError: If it is something else.
    """
    found = CONDITION.fullmatch(condition)
    if found is None:
        raise ValueError(f"{condition!r} is no condition; write one like 'learning_rate < 0.01'")
    column, comparison, value = found.groups()
    value = re.sub(r"""^(["'])(.*)\1$""", r"\2", value)  # as strings are written in TOML and Python
    try:
        return column, comparison, float(value)
    except ValueError:
        if comparison not in ("==", "!="):
            raise ValueError(f"{condition!r} compares with {value!r}, which is no number") from None
        return column, comparison, value
