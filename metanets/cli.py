"""`asymzoo metanets`: list metanetworks, train them on a task, search their settings, predict with one."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Train networks that read networks.", no_args_is_help=True)

task_folders: list[Path] = []  # in which `--task NAME` is looked up; the program adds those of the built-in tasks

ZooFolder = Annotated[Path, typer.Argument(help="Folder of a zoo.")]
Model = Annotated[str, typer.Option(help="A metanetwork of `asymzoo metanets list`.")]
TaskName = Annotated[
    str | None, typer.Option("--task", help="TOML file or name of a task, instead of --treatment and --target.")
]
Treatment = Annotated[str | None, typer.Option(help="Treatment whose networks are read; by default standard.")]
Target = Annotated[str | None, typer.Option(help="Column to predict; by default test_accuracy.")]
TestOn = Annotated[str | None, typer.Option(help="Treatment whose networks are tested, if another one.")]
MaxTrain = Annotated[int | None, typer.Option(min=2, help="Number of training networks; by default all.")]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="TOML file of settings, such as `tune` prints; by default the best known."),
]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
Out = Annotated[Path | None, typer.Option(help="JSON file for the result.")]


def task_of(zoo: Any, name: str | None, **fields: Any) -> Any:
    """Return the task that options describe: one by name or path, or the short form of a treatment and a target.

    Arguments:
        zoo: Zoo that the short form is about.
        name: Name or path of a task.
        fields: Fields of the short form; None where an option is not given.

    Raises:
        TaskError: If both are given, or a field is wrong.
    """
    from metanets.tasks import Task
    from zoo.errors import TaskError

    given = {field: value for field, value in fields.items() if value is not None}
    if name is not None:
        if given:
            raise TaskError(f"task: {name} says all; leave out the options for {', '.join(given)}")
        return Task.load(name, task_folders)
    treatment = given.pop("learn_from", "standard")
    for each in (treatment, *given.get("test_on", ())):
        zoo.shared(each)  # names the nearest treatment if there is no such one
    return Task.read({"recipe": zoo.name, "learn_from": [treatment], **given})


@app.command("list")
def list_models() -> None:
    """List the metanetworks."""
    import sys

    from metanets.models import MODELS

    for name, model in MODELS.items():
        summary = (sys.modules[model.__module__].__doc__ or "").splitlines()[0]
        typer.echo(f"{name:24} reads {model.reads}. {summary}")


@app.command()
def train(
    zoo: ZooFolder,
    model: Model = "statnn",
    task: TaskName = None,
    treatment: Treatment = None,
    target: Target = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of trainings.")] = 5,
    max_train: MaxTrain = None,
    test_on: TestOn = None,
    include_fixed: Annotated[bool, typer.Option(help="Read the entries, too, that do not train.")] = False,
    settings: SettingsFile = None,
    test_zoo: Annotated[Path | None, typer.Option(help="Zoo to test on, if the task asks for another one.")] = None,
    device: Device = "cpu",
    out: Out = None,
    checkpoint: Annotated[Path | None, typer.Option(help="File for the metanetwork of the first seed.")] = None,
) -> None:
    """Train a metanetwork on a task and test its predictions."""
    from tqdm import tqdm

    from metanets.evaluation import REFERENCES, evaluate
    from metanets.selection import select_all
    from metanets.settings import Settings
    from metanets.training import class_of
    from metanets.training import train as train_metanets
    from zoo.devices import use_device
    from zoo.opening import open_zoo

    use_device(device)
    opened = open_zoo(zoo)
    asked = task_of(
        opened, task, learn_from=treatment, target=target, max_train=max_train, test_on=test_on and [test_on]
    )
    other = None if test_zoo is None else open_zoo(test_zoo)
    select_all(asked, opened, other)  # what is wrong with the networks shows before the work begins
    trained: Any = model
    if model not in REFERENCES:
        chosen = class_of(model).settings if settings is None else Settings.load(settings)
        chosen = chosen.model_copy(update={"include_fixed": include_fixed or chosen.include_fixed})
        with tqdm(total=seeds, desc=f"{model} on {asked.name}", unit=" seeds", delay=1e-3) as bar:
            trained = train_metanets(
                asked, opened, model, seeds=seeds, settings=chosen, device=device, progress=bar.update
            )
    result = evaluate(asked, opened, trained, test_zoo=other, seeds=seeds)
    _show(result)
    if out is not None:
        _write(out, result.to_json())
    if checkpoint is not None and not isinstance(trained, str):
        trained[0].save(checkpoint)
        typer.echo(f"written to {checkpoint}")


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="What `train --checkpoint` wrote.")],
    zoo: ZooFolder,
    task: TaskName = None,
    treatment: Treatment = None,
    split: Annotated[str, typer.Option(help="train, validation, test or all.")] = "test",
    device: Device = "cpu",
    out: Out = None,
) -> None:
    """Predict a property of a zoo's networks, and say how well where it is known."""
    import numpy as np

    from metanets.evaluation import predict as predict_split
    from metanets.metanet import Metanet
    from metanets.metrics import measure
    from zoo.devices import use_device
    from zoo.errors import TaskError, nearest
    from zoo.opening import open_zoo
    from zoo.store.columns import SPLITS

    if split not in (*SPLITS, "all"):
        raise TaskError(f"split: no split {split!r}{nearest(split, SPLITS)}; there are {', '.join(SPLITS)}, all")
    use_device(device)
    metanet, opened = Metanet.load(checkpoint, device), open_zoo(zoo)
    asked = task_of(opened, task, learn_from=treatment, target=None if task else metanet.target)
    parts = [predict_split(asked, opened, metanet, part) for part in SPLITS if split in (part, "all")]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    typer.echo(f"{len(found['pair'])} networks, {metanet.target} by {metanet.origin.model}")
    known = np.isfinite(found["true"])
    true, predicted = (metanet.link.on_scale(found[name][known]) for name in ("true", "predicted"))
    for name, value in measure(true, predicted).items() if known.sum() > 1 else ():
        typer.echo(f"{name:20}{value:7.3f}")
    if out is not None:
        described = {"model": metanet.origin.model, "task": asked.model_dump(mode="json")}
        listed = {name: [None if v != v else v for v in values.tolist()] for name, values in found.items()}
        _write(out, described | listed)


@app.command()
def tune(
    zoo: ZooFolder,
    model: Model = "statnn",
    task: TaskName = None,
    treatment: Treatment = None,
    target: Target = None,
    trials: Annotated[int, typer.Option(min=1, help="Number of settings to try, one training each.")] = 8,
    settings: SettingsFile = None,
    device: Device = "cpu",
) -> None:
    """Search settings by the validation networks; print the best as TOML, for `--settings`."""
    from tqdm import tqdm

    from metanets.settings import Settings
    from metanets.tuning import tune as search
    from zoo.devices import use_device
    from zoo.opening import open_zoo

    use_device(device)
    opened = open_zoo(zoo)
    asked = task_of(opened, task, learn_from=treatment, target=target)
    present = None if settings is None else Settings.load(settings)
    with tqdm(total=trials, desc=f"{model} on {asked.name}", unit=" trials", delay=1e-3) as bar:
        found = search(asked, opened, model, trials=trials, settings=present, device=device, progress=bar.update)
    for trial in found:
        reached = ", ".join(f"{name} {value:.4f}" for name, value in trial.metrics.items())
        typer.echo(f"# validation {reached}: {trial.settings.model_dump(exclude_defaults=True)}")
    typer.echo(found[0].settings.to_toml())


def _show(result: Any) -> None:
    from zoo.statistics import describe

    for name, metric in result.metrics.items():
        typer.echo(f"{name:20}{metric}")
    if note := describe(list(result.metrics.values())):
        typer.echo(note)
    if result.seconds:
        typer.echo(f"{result.parameters} parameters, {result.seconds['epoch']:.3g} s an epoch")


def _write(path: Path, values: object) -> None:
    from zoo.files import write_whole

    write_whole(path, json.dumps(values, indent=1).encode())
    typer.echo(f"written to {path}")
