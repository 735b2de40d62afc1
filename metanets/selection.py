"""The networks of a task: which of a zoo's networks a split has, their rows and their targets."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from metanets.inputs import Reader, fit_reader, is_usual
from metanets.targets import DERIVED, describe_target, read_targets, to_scale
from metanets.tasks import COMPARISONS, Task, parse_condition
from zoo.errors import TaskError, nearest
from zoo.networks.parameters import ParameterLayout
from zoo.seeds import rng_for
from zoo.store.columns import SPLITS, Column, Split
from zoo.store.networks import Networks
from zoo.store.zoo import Zoo

UNKNOWN = Column(name="unknown", kind="metric", dtype="float32")  # a target that a zoo does not hold


@dataclass(frozen=True)
class Labelled:
    """Networks with targets: those of each treatment, one treatment after the other.

    Arguments:
        networks: Networks, `Networks` of one treatment each; all have the same layout.
        values: Targets in their units, `(N,)`, or numbers of classes.
        column: Description of the target; None for classes.
        read: Name of the column of rows to read.
        permuted: Whether hidden units are permuted at random, in the same way at every reading.
    """

    networks: tuple[Networks, ...]
    values: Float[np.ndarray, " networks"] | Int[np.ndarray, " networks"]
    column: Column | None
    read: str = "weights"
    permuted: bool = False

    def __len__(self) -> int:
        """Return N."""
        return len(self.values)

    @property
    def layout(self) -> ParameterLayout:
        """What the entries of a row mean."""
        return self.networks[0].layout

    @property
    def pairs(self) -> Int[np.ndarray, " networks"]:
        """Numbers of their pairs."""
        return np.concatenate([networks.pairs for networks in self.networks])

    @property
    def y(self) -> Shaped[Tensor, " networks"]:
        """Targets on their scale in single precision, or numbers of classes."""
        if self.column is None:
            return torch.from_numpy(self.values)
        return torch.from_numpy(to_scale(self.values, self.column)).float()

    @cached_property
    def rows(self) -> Float[Tensor, "networks parameters"]:
        """Rows to read.

        Raises:
            ZooError: If the zoo does not hold them.
        """
        rows = [self._permute(networks, networks.rows(self.read)[:]) for networks in self.networks]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _permute(self, networks: Networks, rows: Tensor) -> Tensor:
        if not self.permuted:
            return rows
        _check_symmetric(networks)
        layout = networks.layout
        orders = [layout.random_permutations(rng_for(0, "task/permuted", int(pair)), 1) for pair in networks.pairs]
        return layout.permute(rows, {axis: torch.cat([order[axis] for order in orders]) for axis in layout.hidden_axes})

    def take(self, keep: Bool[np.ndarray, " networks"]) -> "Labelled":
        """Return those that a mask selects."""
        parts = np.split(keep, np.cumsum([len(networks) for networks in self.networks])[:-1])
        networks = tuple(each[part] for each, part in zip(self.networks, parts, strict=True))
        return replace(self, networks=networks, values=self.values[keep])


def is_symmetric(networks: Networks) -> bool:
    """Whether a treatment holds nothing constant, so that permuting hidden units changes nothing computed."""
    return not networks.own_constants and not networks.zoo.shared(networks.treatment).held


def _check_symmetric(networks: Networks) -> None:
    if not is_symmetric(networks):
        raise TaskError(f"permuted: permuting hidden units changes what {networks.treatment} networks compute")


def label(networks: Sequence[Networks], target: str, classes: Sequence[str] = (), *, read: str = "weights") -> Labelled:
    """Return networks with their targets, leaving out those whose target is missing or not finite.

    A warning says how many are left out.

    Arguments:
        networks: Networks of one treatment each.
        target: Name of the target.
        classes: Treatments to tell apart, if the target is `treatment`.
        read: Name of the column of rows to read.

    Raises:
        TaskError: If there is no such target, or layouts differ.
    """
    first = networks[0]
    for each in networks[1:]:
        if each.layout != first.layout:
            raise TaskError(f"{each.zoo.folder}: {each.treatment} and {first.treatment} networks differ in layout")
    if classes:
        if unknown := {each.treatment for each in networks} - {*classes}:
            raise TaskError(f"{first.zoo.folder}: {min(unknown)} is none of the classes {', '.join(classes)}")
        numbers = [np.full(len(each), classes.index(each.treatment), np.int64) for each in networks]
        return Labelled(tuple(networks), np.concatenate(numbers), None, read)
    column = describe_target(first, target)
    labelled = Labelled(tuple(networks), np.concatenate([read_targets(n, target) for n in networks]), column, read)
    known = np.isfinite(to_scale(labelled.values, column))
    if known.all():
        return labelled
    treatments = "+".join(each.treatment for each in networks)
    warnings.warn(
        f"{first.zoo.folder}: {int((~known).sum())} of {len(known)} {treatments} networks are left out, "
        f"their {target} is missing or not finite",
        stacklevel=2,
    )
    return labelled.take(known)


def select(task: Task, zoo: Zoo, split: Split, test_zoo: Zoo | None = None) -> Labelled:
    """Return the networks of a task's split, without those that diverged or have no target.

    Several treatments are restricted to the pairs that trained under all of them.

    Arguments:
        task: The task.
        zoo: Zoo of the task.
        split: `train`, `validation` or `test`.
        test_zoo: Zoo that is tested on, if it is another one.

    Raises:
        TaskError: If a zoo is another one than the task's, fewer than two networks remain, all have the same target, or
            test networks have another layout.
        ZooError: If a zoo lacks a treatment, a column or rows.
    """
    if split not in SPLITS:
        raise TaskError(f"split: there is no {split!r}{nearest(split, SPLITS)}; there are {', '.join(SPLITS)}")
    own = test_zoo or zoo if split == "test" else zoo
    _check_zoo(task, own, split)
    labelled = label(_networks(task, own, split), task.target, task.classes, read=rows_column(task.rows))
    if split == "train" and task.max_train is not None:
        labelled = labelled.take(np.concatenate([np.arange(len(n)) < task.max_train for n in labelled.networks]))
    if split == "test":
        labelled = replace(_above(task, zoo, labelled), permuted=task.permuted)
        for networks in labelled.networks if task.permuted else ():
            _check_symmetric(networks)
        if labelled.layout != zoo.shared(task.learn_from[0]).layout:
            raise TaskError(f"{own.folder}: test networks have another layout than those of {task.learn_from[0]}")
    place = f"{own.folder}: {'+'.join(networks.treatment for networks in labelled.networks)}"
    if len(labelled) < 2:
        raise TaskError(
            f"{place} has {len(labelled)} networks with a {task.target} in its {split} split"
            f"{' that meet the conditions' if _conditions(task, split) else ''}; two or more are needed: "
            f"{'change these, or ' if _conditions(task, split) else ''}generate more pairs"
        )
    if (labelled.values == labelled.values[0]).all():
        raise TaskError(f"{place}: all {split} networks have the same {task.target}; there is nothing to predict")
    return labelled


def select_unlabelled(task: Task, zoo: Zoo, split: Split) -> Labelled:
    """Return all networks of a split to predict; targets are NaN where the zoo does not know them.

    Test networks that `Task.among` does not count are included.

    Arguments:
        task: The task.
        zoo: Zoo that holds the split.
        split: `train`, `validation` or `test`.

    Raises:
        TaskError: If the zoo is another one than the task's.
        ZooError: If the zoo lacks a treatment or a column of a condition.
    """
    _check_zoo(task, zoo, split)
    networks = _networks(task, zoo, split)
    read = rows_column(task.rows)
    permuted = task.permuted and split == "test"
    if task.classes:
        return replace(label(networks, task.target, task.classes, read=read), permuted=permuted)
    known = task.target in DERIVED or task.target in networks[0].columns
    values = [read_targets(n, task.target) if known else np.full(len(n), np.nan) for n in networks]
    column = describe_target(networks[0], task.target) if known else UNKNOWN
    return Labelled(tuple(networks), np.concatenate(values), column, read, permuted)


def select_all(task: Task, zoo: Zoo, test_zoo: Zoo | None = None) -> dict[Split, Labelled]:
    """Return the networks of all splits of a task; see `select`."""
    return {split: select(task, zoo, split, test_zoo) for split in SPLITS}


def select_usual(task: Task, zoo: Zoo) -> Labelled:
    """Return the validation networks by which epochs and settings are chosen, unless fewer than two remain.

    Those whose weights exploded are left out: what is predicted of them would decide alone.
    """
    labelled = select(task, zoo, "validation")
    usual = is_usual(labelled.rows).numpy()
    return labelled if usual.all() or usual.sum() < 2 else labelled.take(usual)


def fit_task_reader(task: Task, zoo: Zoo, reads: str, *, include_fixed: bool = False) -> Reader:
    """Return a reader fitted to the task's training networks, also to those whose targets `max_train` keeps back.

    Entries that do not train are read, too, if requested, if the test networks trained under another treatment, or if
    the target is the treatment.

    Arguments:
        task: The task.
        zoo: Zoo of the task.
        reads: Name of the reader, a key of `metanets.inputs.READERS`.
        include_fixed: Whether to read the entries, too, that do not train.
    """
    everyone = _networks(task, zoo, "train")
    include_fixed = include_fixed or set(task.learn_from) != set(task.test_on) or len(task.learn_from) > 1
    return fit_reader(reads, *everyone, include_fixed=include_fixed, column=rows_column(task.rows))


def rows_column(rows: str) -> str:
    """Return the column that holds the rows that `Task.rows` names; `weights_at_0_1` for `checkpoint:0.1`."""
    if rows.startswith("checkpoint:"):
        return f"weights_at_{rows.removeprefix('checkpoint:')}".replace(".", "_")
    return {"weights": "weights", "initial": "initial_weights"}[rows]


def _above(task: Task, zoo: Zoo, test: Labelled) -> Labelled:
    """Return the test networks above the median of the train split, if only these count."""
    if task.among == "all":
        return test
    train = label(_networks(task, zoo, "train"), task.target)
    return test.take(test.values > (np.median(train.values) if len(train) else np.inf))


def _check_zoo(task: Task, zoo: Zoo, split: Split) -> None:
    """Raise a `TaskError` if a zoo is not the one that holds a task's split."""
    wanted = (task.test_recipe if split == "test" else None) or task.recipe
    if zoo.name != wanted:
        raise TaskError(f"{zoo.folder}: holds the zoo {zoo.name}, but the task {task.name} is about {wanted}")


def _conditions(task: Task, split: Split) -> tuple[str, ...]:
    return task.test_where if split == "test" else task.train_where


def _networks(task: Task, zoo: Zoo, split: Split) -> list[Networks]:
    """Return the networks of a split whose pair meets the task's conditions under every treatment."""
    every = [networks.split(split) for networks in zoo.paired(*(task.test_on if split == "test" else task.learn_from))]
    keep = np.ones(len(every[0]), bool)
    for condition in _conditions(task, split):
        for networks in every:
            keep &= _holds(networks, condition)
    return [networks[keep] for networks in every]


def _holds(networks: Networks, condition: str) -> Bool[np.ndarray, " networks"]:
    """Return which networks meet a condition; one whose value is missing meets none."""
    column, comparison, value = parse_condition(condition)
    values = networks[column]
    if values.ndim != 1 or isinstance(value, str) != (values.dtype.kind == "U"):
        raise TaskError(f"{networks.zoo.folder}: {condition}: {column} holds {values.dtype}, which cannot be compared")
    known = np.ones(len(values), bool) if isinstance(value, str) else ~np.isnan(values)
    return np.asarray(COMPARISONS[comparison](values, value)) & known
