"""The program `asymzoo`."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from metanets.cli import app as metanets_app
from zoo.cli import app as zoo_app
from zoo.cli import generate_with_bar
from zoo.errors import AsymZooError

app = typer.Typer(
    help="Paired model zoos with and without parameter symmetries, metanetworks on them, and what symmetry does.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(zoo_app, name="zoo")
app.add_typer(metanets_app, name="metanets")


@app.callback()
def options(debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False) -> None:
    """Take the options of all commands."""


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for zoos, results and report.")] = Path("quickstart"),
    pairs: Annotated[int, typer.Option(min=16, help="Pairs of varied networks, for metanetworks.")] = 384,
    replicas: Annotated[int, typer.Option(min=4, help="Networks alike, for connectivity.")] = 32,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default the CPUs.")] = None,
) -> None:
    """Generate two digits zoos, train metanetworks, measure connectivity, write a report."""
    from tqdm import tqdm

    from benchmark.quickstart import quickstart as run

    processes = workers or os.cpu_count() or 1

    def make(recipe: Any, folder: Path) -> Any:
        return generate_with_bar(recipe, folder, workers=processes)

    def track(items: Iterable[Any], total: int, title: str) -> Iterable[Any]:
        return tqdm(items, desc=title, total=total)

    report = run(out, make, pairs=pairs, replicas=replicas, workers=processes, track=track)
    typer.echo(
        f"""
zoos       {out / "digits-mlp"}, {out / "digits-mlp-replicas"}
results    {out / "results.json"}
report     {report}

Next:
    asymzoo zoo info {out / "digits-mlp"}
    asymzoo metanets train {out / "digits-mlp"} --model mlp --treatment w_asymmetric
    asymzoo zoo recipes"""
    )


def main() -> None:
    """Run the command line; an error of the user's is one line on stderr and exit code 2."""
    # Every process has one thread; what a worker imports must not start more.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        code = app(standalone_mode=False)
    except (AsymZooError, TyperException) as error:
        if "--debug" in sys.argv:
            raise
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        bare = message.startswith("Usage:")  # no command was given: this is the help
        print(message if bare else f"asymzoo: {message}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("asymzoo: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
