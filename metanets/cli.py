"""`asymzoo metanets`: list metanetworks, train them on a zoo, search their settings, predict with one."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Train networks that read networks.", no_args_is_help=True)

ZooFolder = Annotated[Path, typer.Argument(help="A zoo's folder.")]
Model = Annotated[str, typer.Option(help="A metanetwork of `asymzoo metanets list`.")]
Treatment = Annotated[str, typer.Option(help="Whose networks to read.")]
Task = Annotated[str, typer.Option(help="The metric to predict.")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
Out = Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")]


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
    treatment: Treatment = "standard",
    task: Task = "test_accuracy",
    seeds: Annotated[int, typer.Option(min=1, help="How many trainings.")] = 5,
    fixed: Annotated[bool, typer.Option(help="Read also the entries that no network trains.")] = False,
    train_networks: Annotated[int | None, typer.Option(min=2, help="Learn from so many networks only.")] = None,
    test_on: Annotated[str | None, typer.Option(help="Test on another treatment's networks.")] = None,
    device: Device = "cpu",
    out: Out = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Write the first seed's metanetwork here.")] = None,
) -> None:
    """Train a metanetwork on a zoo and test its predictions."""
    from tqdm import tqdm

    from metanets.evaluation import evaluate_model
    from zoo.opening import open_zoo
    from zoo.training.generation import check_device

    check_device(device)
    opened = open_zoo(zoo)
    with tqdm(total=seeds, desc=f"{model} on {treatment}", unit=" seeds", delay=1e-3) as bar:
        result, metanets = evaluate_model(
            opened,
            treatment,
            model,
            task=task,
            seeds=seeds,
            fixed=fixed,
            train_networks=train_networks,
            test_on=test_on,
            device=device,
            progress=bar.update,
        )
    for name, (mean, low, high) in result.metrics.items():
        typer.echo(f"{name:20}{mean:7.3f}  (95 % interval {low:.3f} to {high:.3f})")
    if result.seconds:
        typer.echo(f"{result.parameters} parameters, {result.seconds['epoch']:.3g} s an epoch")
    if out is not None:
        _write(out, result.to_json())
    if checkpoint is not None and metanets:
        metanets[0].save(checkpoint)
        typer.echo(f"written to {checkpoint}")


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="What `train --checkpoint` wrote.")],
    zoo: ZooFolder,
    treatment: Treatment = "standard",
    split: Annotated[str, typer.Option(help="train, validation, test or all.")] = "test",
    device: Device = "cpu",
    out: Out = None,
) -> None:
    """Predict a property of a zoo's networks, and say how well where it is known."""
    from metanets.metanet import Metanet
    from metanets.metrics import METRICS
    from zoo.errors import TaskError, nearest
    from zoo.opening import open_zoo
    from zoo.store.columns import SPLITS
    from zoo.training.generation import check_device

    if split not in (*SPLITS, "all"):
        raise TaskError(f"split: no split {split!r}{nearest(split, SPLITS)}; there are {', '.join(SPLITS)}, all")
    check_device(device)
    metanet, opened = Metanet.load(checkpoint, device), open_zoo(zoo)
    index = opened.index(treatment, None if split == "all" else split)
    if not len(index):
        raise TaskError(f"{zoo}: {treatment} has no networks in its {split} split; generate more pairs")
    metanet.check(opened, treatment)
    predicted = metanet.predict(opened.rows(treatment, index)).double().numpy()
    true = opened.field(treatment, metanet.config.task)[index].astype(float)
    typer.echo(f"{len(index)} networks, {metanet.config.task} by {metanet.config.model}")
    if len(index) > 1:
        for name, metric in METRICS.items():
            typer.echo(f"{name:20}{metric(true, predicted):7.3f}")
    if out is not None:
        pairs = {"pair": index.tolist(), "predicted": predicted.tolist(), "true": true.tolist()}
        _write(out, {"checkpoint": metanet.config.model_dump(exclude={"layout"}), **pairs})


@app.command()
def tune(
    zoo: ZooFolder,
    model: Model = "statnn",
    treatment: Treatment = "standard",
    task: Task = "test_accuracy",
    trials: Annotated[int, typer.Option(min=1, help="How many settings to try, one training each.")] = 8,
    device: Device = "cpu",
) -> None:
    """Search settings by the validation networks; print the best as TOML."""
    from tqdm import tqdm

    from metanets.tuning import search, to_toml
    from zoo.opening import open_zoo
    from zoo.training.generation import check_device

    check_device(device)
    opened = open_zoo(zoo)
    with tqdm(total=trials, desc=f"{model} on {treatment}", unit=" trials", delay=1e-3) as bar:
        found = search(
            opened, treatment, model, task=task, trials=trials, device=device, progress=lambda trial: bar.update()
        )
    for trial in found:
        reached = f"validation R^2 {trial.r2:.4f}, tau {trial.kendall_tau:.4f}"
        typer.echo(f"# {reached}: {trial.settings.model_dump(exclude_defaults=True)}")
    typer.echo(to_toml(task, found[0].settings))


def _write(path: Path, values: object) -> None:
    from zoo.files import write_whole

    write_whole(path, json.dumps(values, indent=1).encode())
    typer.echo(f"written to {path}")
