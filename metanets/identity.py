"""What identifies the data of a task, so that a score is never compared with one on other data."""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256

from metanets.selection import Labelled
from metanets.tasks import Task, TaskData
from zoo.errors import TaskError
from zoo.store.columns import Split
from zoo.store.zoo import Zoo


def identify(
    task: Task, zoo: Zoo, test_zoo: Zoo | None = None, found: Mapping[Split, Labelled] | None = None
) -> TaskData:
    """Return what identifies a task's data, see `TaskData`.

    Arguments:
        task: The task.
        zoo: Zoo of the task.
        test_zoo: Zoo that is tested on, if it is another one.
        found: Networks of all splits, as `select_all` returns them; without these, labels and test rows are left out.
    """
    labels, rows = sha256(), sha256()
    for labelled in found.values() if found else ():
        labels.update(labelled.values.astype("<f8").tobytes())
    if found:
        test = found["test"]
        stored = replace(test, permuted=False) if test.permuted else test  # which has read its rows, or will
        rows.update(stored.rows.numpy().astype("<f4", copy=False).tobytes())
    return TaskData(
        recipe=zoo.digest({*task.learn_from, *(() if task.test_recipe else task.test_on)}),
        pairs=len(zoo),
        test_recipe=test_zoo.digest(task.test_on) if test_zoo else None,
        test_pairs=len(test_zoo) if test_zoo else None,
        labels=labels.hexdigest() if found else None,
        test_rows=rows.hexdigest() if found else None,
    )


def check_identity(task: Task, found: TaskData) -> None:
    """Raise a `TaskError` that names the first difference if a task is pinned to other data."""
    pinned = {} if task.data is None else task.data.model_dump(exclude_none=True)
    for name, value in found.model_dump(exclude_none=True).items():
        if pinned.get(name, value) != value:
            raise TaskError(f"{task.name}: {name} of the zoo is {value}, but the task is pinned to {pinned[name]}")
