import json

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from pydantic import ValidationError

from metanets.tasks import RANKING, TREATMENT, Task, TaskData, parse_condition
from zoo.errors import TaskError

BASE = {"recipe": "small", "learn_from": ["standard"]}
FREE = {"name", "version", "question"}  # what scores do not depend on
OTHER = {
    "name": "another",
    "version": 2,
    "question": "How well does it generalise?",
    "recipe": "digits-mlp",
    "learn_from": ["syre"],
    "test_on": ["syre"],
    "target": "test_loss",
    "access": "weights+data",
    "rows": "checkpoint:0.1",
    "max_train": 64,
    "among": "above_median",
    "train_where": ["learning_rate < 0.01"],
    "test_where": ["learning_rate >= 0.01"],
    "test_recipe": "digits-mlp",
    "permuted": True,
    "metric": "r2",
    "data": {"recipe": "0", "pairs": 8},
}

names = st.sampled_from(["standard", "w_asymmetric", "syre", "0_narrow"])
conditions = st.builds(
    lambda column, comparison, value: f"{column} {comparison} {value!r}",
    st.sampled_from(["learning_rate", "epochs", "testAccuracy"]),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    st.floats(allow_nan=False),
)


@st.composite
def tasks(draw):
    """Values of valid tasks."""
    learnt = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    choices = [TREATMENT] if len(learnt) > 1 else []
    target = draw(st.sampled_from(["test_accuracy", "generalisation_gap", "learning_rate", *choices]))
    fields = {
        "recipe": st.sampled_from(["small", "digits-mlp"]),
        "learn_from": st.just(learnt),
        "test_on": st.permutations(learnt) if target == TREATMENT else st.lists(names, max_size=2, unique=True),
        "target": st.just(target),
        "access": st.sampled_from(["weights", "weights+function", "weights+data"]),
        "rows": st.one_of(
            st.sampled_from(["weights", "initial"]), st.integers(1, 10**7 - 1).map(lambda n: f"checkpoint:0.{n:07}")
        ),
        "max_train": st.none() | st.integers(2, 2000),
        "among": st.just("all") if target == TREATMENT else st.sampled_from(["all", "above_median"]),
        "train_where": st.lists(conditions, max_size=3),
        "test_where": st.lists(conditions, max_size=3),
        "test_recipe": st.none() | st.sampled_from(["small", "other"]),
        "permuted": st.booleans(),
        "metric": st.sampled_from(RANKING["classes" if target == TREATMENT else "number"]),
        "data": st.none() | st.just({"recipe": "0", "pairs": 8, "labels": "1"}),
    }
    return draw(st.fixed_dictionaries(fields))


@given(values=tasks(), names=st.lists(st.sampled_from(["a", "b"]), min_size=2, max_size=2))
@budget(deadline=None)
def test_a_name_a_version_and_a_question_never_change_the_digest(values, names):
    one, other = (Task.read(values | {"name": name}) for name in names)
    assert one.digest == other.model_copy(update={"version": 7, "question": "Why?"}).digest


@given(first=tasks(), second=tasks())
@budget(deadline=None)
def test_digests_are_the_same_exactly_where_all_other_fields_are(first, second):
    first, second = Task.read(first), Task.read(second)
    assert (first.digest == second.digest) == (first.model_dump(exclude=FREE) == second.model_dump(exclude=FREE))


@pytest.mark.parametrize("field", Task.model_fields)
def test_the_digest_changes_with_every_field_that_scores_depend_on(field):
    task = Task.read(BASE)
    changed = Task.read(BASE | {field: OTHER[field]})
    assert getattr(changed, field) != getattr(task, field)
    assert (changed.digest == task.digest) == (field in FREE)


def respell(condition, spaces):
    """The same condition, its number written otherwise."""
    column, comparison, value = parse_condition(condition)
    gap = " " * spaces
    return f"{gap}{column}{gap}{comparison}{gap}{value:.17e}{gap}"


@given(values=tasks(), data=st.data())
@budget(deadline=None)
def test_the_digest_is_the_same_however_a_task_is_written(values, data):
    task = Task.read(values)
    other = {name: values[name] for name in data.draw(st.permutations(list(values)))}
    if len(values["learn_from"]) == 1:
        other["learn_from"] = values["learn_from"][0]
    if values["test_on"] == values["learn_from"]:
        del other["test_on"]
    if values["test_recipe"] is None:
        other["test_recipe"] = values["recipe"]
    if values["rows"].startswith("checkpoint"):
        other["rows"] = values["rows"].replace("0.", ".", 1) + "0"
    if values["metric"] == Task.read(values | {"metric": None}).metric:
        del other["metric"]
    for where in ("train_where", "test_where"):
        respelt = [respell(condition, data.draw(st.integers(0, 2))) for condition in values[where]]
        other[where] = data.draw(st.permutations(respelt + respelt[:1]))
    assert Task.read(other).digest == task.digest


@given(values=tasks())
@budget(deadline=None)
def test_a_task_stored_as_json_is_read_back(values):
    task = Task.read(values)
    assert Task.model_validate_json(task.model_dump_json()) == task
    assert Task.read(json.loads(task.model_dump_json())) == task


def test_a_task_in_toml_is_the_one_built_in_python(tmp_path):
    path = tmp_path / "tasks" / "cross.toml"
    path.parent.mkdir()
    path.write_text(
        'name = "small/cross"\nquestion = "Do they transfer?"\nrecipe = "small"\nlearn_from = "standard"\n'
        'test_on = ["w_asymmetric"]\nrows = "checkpoint:.10"\ntrain_where = ["learning_rate<1e-2"]\n'
        '[data]\nrecipe = "0"\npairs = 8\n'
    )
    task = Task(
        name="small/cross",
        question="Do they transfer?",
        recipe="small",
        learn_from="standard",
        test_on="w_asymmetric",
        rows="checkpoint:0.1",
        train_where=("learning_rate < 0.01",),
        data=TaskData(recipe="0", pairs=8),
    )
    assert Task.load(path) == Task.load(str(path)) == Task.load("cross", [path.parent]) == task
    assert Task.load("tasks/cross", [tmp_path]) == task
    assert Task.load(task) is task


def test_what_a_task_leaves_out_follows_from_the_rest():
    task = Task.read(BASE)
    assert (task.name, task.test_on) == ("small/standard/test_accuracy", ("standard",))
    assert (task.metric, task.classes) == ("kendall_tau", ())
    both = Task.read(BASE | {"learn_from": ["standard", "syre"], "target": TREATMENT})
    assert (both.name, both.metric) == ("small/standard+syre/treatment", "accuracy")
    assert both.classes == both.test_on == ("standard", "syre")


def test_a_task_cannot_be_changed():
    task = Task.read(BASE)
    with pytest.raises(ValidationError, match="frozen"):
        task.target = "test_loss"
    with pytest.raises(ValidationError, match="frozen"):
        Task.read(BASE | {"data": OTHER["data"]}).data.pairs = 9


@pytest.mark.parametrize(
    ("wrong", "fact"),
    [
        ({"recipe": "Digits MLP"}, "task: recipe: String should match pattern"),
        ({"learn_from": []}, "task: learn_from: Tuple should have at least 1 item"),
        ({"learn_from": 3}, "task: learn_from: Input should be a valid tuple"),
        ({"learn_from": None}, "task: learn_from: Input should be a valid tuple"),
        ({"learn_from": ["W asymmetric"]}, "task: learn_from.0: String should match pattern"),
        ({"learn_from": ["syre", "syre"]}, "task: learn_from: names a treatment twice"),
        ({"test_on": ["syre", "syre"]}, "task: test_on: names a treatment twice"),
        ({"name": "My task"}, "task: name: String should match pattern"),
        ({"version": 0}, "task: version: Input should be greater than 0"),
        ({"targets": "test_loss"}, "task: targets: unknown field (did you mean 'target'?)"),
        ({"access": "data"}, "task: access: 'data' is not known"),
        ({"rows": "checkpoint:1.5"}, "task: rows: String should match pattern"),
        ({"rows": "checkpoint:0.0"}, "task: rows: String should match pattern"),
        ({"max_train": 1}, "task: max_train: Input should be greater than or equal to 2"),
        ({"among": "median"}, "task: among: 'median' is not known"),
        ({"train_where": ["learning_rate"]}, "task: train_where: 'learning_rate' is no condition; write one like"),
        ({"test_where": ["epochs < few"]}, "task: test_where: 'epochs < few' compares with 'few', which is no number"),
        ({"metric": "tau"}, "task: metric: 'tau' is not known"),
        (
            {"metric": "accuracy"},
            "task: metric: accuracy is not for test_accuracy; choose one of kendall_tau, r2, rmse",
        ),
        ({"data": {"recipe": "0", "pairs": 8, "digest": "1"}}, "task: data.digest: unknown field"),
        (
            {"data": {"recipe": "0", "pairs": 8, "label": ""}},
            "task: data.label: unknown field (did you mean 'labels'?)",
        ),
        ({"data": {"pairs": 8}}, "task: data.recipe: missing; add it"),
        ({"target": TREATMENT}, "task: learn_from: names one treatment; to tell treatments apart takes two or more"),
    ],
)
def test_a_wrong_field_is_named_in_one_line(wrong, fact):
    with pytest.raises(TaskError) as error:
        Task.read(BASE | wrong)
    assert str(error.value).startswith(fact)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "fact"),
    [
        ({"metric": "r2"}, "metric: r2 is not for treatment; choose one of accuracy, log_loss"),
        ({"test_on": ["syre"]}, "test_on: which treatment it is can be asked only of the treatments of learn_from"),
        ({"among": "above_median"}, "among: treatments have no median; leave it out"),
    ],
)
def test_what_makes_no_sense_of_classes_is_refused(wrong, fact):
    with pytest.raises(TaskError, match=f"^task: {fact}$"):
        Task.read({"recipe": "small", "learn_from": ["standard", "syre"], "target": TREATMENT} | wrong)


@pytest.mark.parametrize("missing", BASE)
def test_a_field_that_is_missing_is_named(missing):
    with pytest.raises(TaskError, match=f"^task: {missing}: missing; add it$"):
        Task.read({name: value for name, value in BASE.items() if name != missing})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(values=tasks(), data=st.data())
@budget(deadline=None)
def test_whatever_a_field_holds_is_a_task_or_one_line(values, data):
    field, task, fact = data.draw(st.sampled_from([*Task.model_fields, "beauty"])), None, "t.toml: "
    try:
        task = Task.read(values | {field: data.draw(json_values)}, "t.toml")
    except TaskError as error:
        fact = str(error)
    assert fact.startswith("t.toml: ")
    assert "\n" not in fact
    assert task is None or Task.model_validate_json(task.model_dump_json()) == task


@pytest.mark.parametrize("content", [b"recipe = ", b"\xff\xfe", b"[[recipe"])
def test_a_file_that_is_no_toml_is_one_line(tmp_path, content):
    path = tmp_path / "task.toml"
    path.write_bytes(content)
    with pytest.raises(TaskError, match=f"^{path}: not valid TOML: ") as error:
        Task.load(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_wrong_is_named(tmp_path):
    path = tmp_path / "task.toml"
    with pytest.raises(TaskError, match=f"^{path}: cannot be read"):
        Task.load(path)
    path.write_text('recipe = "small"\n')
    with pytest.raises(TaskError, match=f"^{path}: learn_from: missing; add it$"):
        Task.load(path)


def test_an_unknown_name_is_told_with_the_nearest_and_the_built_in_ones(tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "gap.toml").write_text("")
    with pytest.raises(TaskError) as error:
        Task.load("digits/gab", [tmp_path])
    assert str(error.value) == (
        "digits/gab: no such task (did you mean 'digits/gap'?); built-in tasks are digits/gap; files end in .toml"
    )
    with pytest.raises(TaskError, match=r"^gap: no such task; files end in \.toml$"):
        Task.load("gap")


@given(
    column=st.from_regex(r"[A-Za-z]\w{0,8}", fullmatch=True),
    comparison=st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    number=st.floats(allow_nan=False),
    spaces=st.integers(0, 3),
)
@budget(deadline=None)
def test_a_condition_is_a_column_a_comparison_and_a_number(column, comparison, number, spaces):
    gap = " " * spaces
    assert parse_condition(f"{gap}{column}{gap}{comparison}{gap}{number!r}{gap}") == (column, comparison, number)


def test_a_condition_can_compare_with_words():
    assert parse_condition("optimizer == adam w") == ("optimizer", "==", "adam w")
    assert parse_condition(" optimizer!=sgd ") == ("optimizer", "!=", "sgd")


@pytest.mark.parametrize(
    "wrong", ["", "epochs", "epochs <", "< 3", "epochs = 3", "1epoch < 3", "epochs < three", "a b < 3"]
)
def test_what_is_no_condition_is_refused(wrong):
    with pytest.raises(ValueError, match=r"is no condition|is no number"):
        parse_condition(wrong)
