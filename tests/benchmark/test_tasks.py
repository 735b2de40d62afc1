"""The built-in tasks, found by name."""

from pathlib import Path

import pytest

import benchmark
from metanets.cli import task_folders
from metanets.tasks import Task
from zoo import Recipe
from zoo.errors import TaskError

FOLDER = Path(benchmark.__file__).parent / "tasks"
NAMES = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_built_in_task_has_the_name_of_its_file_a_question_and_treatments_of_its_recipe(name):
    task = Task.load(name, [FOLDER])
    assert task.name == name
    assert task.question.endswith("?")
    assert {*task.learn_from, *task.test_on} <= Recipe.load(task.recipe).treatments.keys()


def test_built_in_tasks_have_different_digests():
    assert NAMES
    assert len({Task.load(name, [FOLDER]).digest for name in NAMES}) == len(NAMES)


def test_the_program_looks_names_up_in_the_built_in_tasks():
    import benchmark.cli  # noqa: F401

    assert task_folders == [FOLDER]


def test_an_unknown_name_is_answered_with_the_nearest_and_all():
    with pytest.raises(
        TaskError, match=r"^digits-mlp/acuracy: no such task \(did you mean 'digits-mlp/accuracy'\?\); "
    ):
        Task.load("digits-mlp/acuracy", [FOLDER])
