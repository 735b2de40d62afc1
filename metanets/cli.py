"""`asymzoo metanets`: list metanetworks, train them on a zoo."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Train networks that read networks.", no_args_is_help=True)


@app.command("list")
def list_models() -> None:
    """List the metanetworks."""
    import sys

    from metanets.models import MODELS

    for name, model in MODELS.items():
        summary = (sys.modules[model.__module__].__doc__ or "").splitlines()[0]
        typer.echo(f"{name:10} reads {model.reads}. {summary}")


@app.command()
def train(
    zoo: Annotated[Path, typer.Argument(help="A zoo's folder.")],
    model: Annotated[str, typer.Option(help="A metanetwork of `asymzoo metanets list`.")] = "statnn",
    treatment: Annotated[str, typer.Option(help="Whose networks to read.")] = "standard",
    task: Annotated[str, typer.Option(help="The metric to predict.")] = "test_accuracy",
    seeds: Annotated[int, typer.Option(min=1, help="How many trainings.")] = 5,
    fixed: Annotated[bool, typer.Option(help="Read also the entries that no network trains.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")] = None,
) -> None:
    """Train a metanetwork on a zoo and test its predictions."""
    from tqdm import tqdm

    from metanets.training import evaluate_model
    from zoo.manifest import write_whole
    from zoo.store import open_zoo

    opened = open_zoo(zoo)
    with tqdm(total=seeds, desc=f"{model} on {treatment}", unit=" seeds", delay=1e-3) as bar:
        result = evaluate_model(opened, treatment, model, task=task, seeds=seeds, fixed=fixed, progress=bar.update)
    for name, (mean, low, high) in (("R^2", result.r2), ("Kendall tau", result.kendall_tau)):
        typer.echo(f"{name:12}{mean:6.3f}  (95 % interval {low:.3f} to {high:.3f})")
    if out is not None:
        write_whole(out, json.dumps(result.to_json(), indent=1).encode())
        typer.echo(f"written to {out}")
