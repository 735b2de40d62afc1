"""The program `asymzoo`."""

import ctypes
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from metanets.cli import app as metanets_app
from zoo.cli import Architecture, DataDir, generate_with_bar, provide
from zoo.cli import app as zoo_app
from zoo.errors import AsymZooError
from zoo.training.engines import fix_rounding

OUTSIDE = (
    "Data set whose test examples bayesian has to tell from the zoo's, below --data-dir in the subfolder of its name; "
    "by default these with their pixels permuted."
)
INTERRUPTED = 130  # what typer makes of control-C
# Of the GNU C library: the environment variable, the number in malloc.h, and bytes.
MALLOC = (("MALLOC_TRIM_THRESHOLD_", -1, 1 << 30), ("MALLOC_MMAP_THRESHOLD_", -3, 32 << 20))

app = typer.Typer(
    help="Paired model zoos with and without parameter symmetries, metanetworks on them, and what symmetry does.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(zoo_app, name="zoo")
app.add_typer(metanets_app, name="metanets")
benchmark_app = typer.Typer(help="Measure what symmetry does.", no_args_is_help=True)
app.add_typer(benchmark_app, name="benchmark")


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


@benchmark_app.command("run")
def run_phenomena(
    zoo: Annotated[Path, typer.Argument(help="A zoo's folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the results: a JSON file and a figure of each phenomenon.")],
    only: Annotated[str | None, typer.Option(help="Some of the phenomena: a,b,…; by default all.")] = None,
    data_dir: DataDir = None,
    outside: Annotated[str | None, typer.Option(help=OUTSIDE)] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default the CPUs.")] = None,
    architecture: Architecture = None,
) -> None:
    """Measure phenomena on every treatment of a zoo; by default those that it has enough networks for."""
    from tqdm import tqdm

    from benchmark.phenomena import PHENOMENA, measure
    from zoo.errors import TaskError, nearest
    from zoo.opening import open_zoo
    from zoo.recipes.recipe import Recipe

    provide(architecture)
    names = list(PHENOMENA) if only is None else only.split(",")
    for name in names:
        if name not in PHENOMENA:
            raise TaskError(f"only: no phenomenon {name!r}{nearest(name, PHENOMENA)}; there are {', '.join(PHENOMENA)}")
    opened = open_zoo(zoo, data_dir)
    data = Recipe.of(opened).load_data(data_dir, outside)
    for name in names:
        try:
            with tqdm(desc=name, total=len(opened.treatments), unit=" treatments", delay=1e-3) as bar:

                def show(progress: int | str, bar: Any = bar) -> None:
                    bar.set_postfix_str(progress) if isinstance(progress, str) else bar.update(progress)

                def leave_out(treatment: str, error: AsymZooError, name: str = name) -> None:
                    typer.echo(f"left out: {name} of {treatment}: {error}")

                processes = workers or os.cpu_count() or 1
                results = measure(name, opened, data, workers=processes, advance=show, left_out=leave_out)
        except AsymZooError as error:  # too few networks, or no such field in a zoo of others
            if only is not None:
                raise
            typer.echo(f"left out: {name}: {error}")
            continue
        _write_results(out, name, results)


def _write_results(out: Path, name: str, results: Sequence[Any]) -> None:
    """Write what a phenomenon is like under each treatment, and draw it where matplotlib is installed."""
    from benchmark.figures import save, styled
    from benchmark.findings import write_findings
    from benchmark.phenomena import PHENOMENA
    from zoo.errors import ExtraError

    for result in results:
        typer.echo(f"{result.treatment:20}{result.headline()}")
    write_findings(out / f"{name}.json", name, results)
    try:
        with styled():
            save(PHENOMENA[name].draw(results), out / f"{name}.png")
        figure = f"and {name}.png"
    except ExtraError as error:
        figure = f"without a figure: {error}"
    typer.echo(f"written to {out / name}.json {figure}")


@benchmark_app.command()
def metanetworks(
    zoo: Annotated[Path, typer.Argument(help="A zoo's folder.")],
    out: Annotated[Path, typer.Option(help="JSON file to which results are added; what it holds is not run again.")],
    models: Annotated[str | None, typer.Option(help="Some of `asymzoo metanets list`: a,b,…; by default all.")] = None,
    treatments: Annotated[str | None, typer.Option(help="Some of the zoo's: a,b,…; by default all.")] = None,
    task: Annotated[str, typer.Option(help="The metric to predict.")] = "test_accuracy",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each.")] = 3,
    train_networks: Annotated[str | None, typer.Option(help="Learn from so many networks only: 64,128,…")] = None,
    test_on: Annotated[str | None, typer.Option(help="Test on another treatment's networks.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default the CPUs.")] = None,
) -> None:
    """Train metanetworks on every treatment of a zoo and keep how well they predict."""
    from tqdm import tqdm

    from benchmark.metanetworks import Job, measure, read_entries, tabulate, tabulate_costs
    from metanets.evaluation import REFERENCES
    from metanets.models import MODELS
    from zoo.opening import open_zoo

    opened = open_zoo(zoo)
    sizes = [None] if train_networks is None else _numbers("train-networks", train_networks)
    jobs = [
        Job(opened, treatment, model, task, seeds, few, test_on)
        for model in ([*REFERENCES, *MODELS] if models is None else models.split(","))
        for treatment in (opened.treatments if treatments is None else treatments.split(","))
        for few in sizes
    ]
    readable = []
    for job in jobs:
        if (reason := job.refusal()) is None:
            readable.append(job)
        else:
            typer.echo(f"left out: {job.model} on {job.treatment}: {reason}")
    known = [entry.result for entry in read_entries(out)]
    missing = [job for job in readable if not any(job.is_done_by(result) for result in known)]
    trainings = seeds * sum(job.model in MODELS for job in missing)
    with tqdm(total=trainings, unit=" trainings", delay=1e-3) as bar:
        for entry in measure(missing, out, workers=workers or os.cpu_count() or 1, advance=bar.update):
            bar.set_description(f"{entry.result.model} on {entry.result.treatment}")
    results = [entry.result for entry in read_entries(out)]
    asked = [result for job in readable for result in results if job.is_done_by(result)]
    for metric in ("r2", "kendall_tau", "kendall_tau_of_good"):
        typer.echo(f"\n{metric}\n{tabulate(asked, metric)}")
    typer.echo(f"\n{tabulate_costs(asked)}\n\nwritten to {out}")


def _numbers(option: str, text: str) -> Sequence[int | None]:
    from zoo.errors import TaskError

    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise TaskError(f"{option}: {text!r} is no list of numbers; write 64,128") from None


def keep_freed_memory() -> None:
    """Let the C library keep what tensors give back: fetching pages anew takes longer than most operations on them."""
    for variable, option, size in MALLOC:
        if variable not in os.environ:
            os.environ[variable] = str(size)  # for workers, which read it when they start
            with suppress(AttributeError, OSError):  # other C libraries have no such function
                ctypes.CDLL(None).mallopt(option, size)


def main() -> None:
    """Run the command line; an error of the user's is one line on stderr and exit code 2."""
    # Every process has one thread; what a worker imports must not start more.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    keep_freed_memory()
    fix_rounding()
    try:
        code = app(standalone_mode=False)
    except (AsymZooError, TyperException) as error:
        if "--debug" in sys.argv:
            raise
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        bare = message.startswith("Usage:")  # no command was given: this is the help
        print(message if bare else f"asymzoo: {message}", file=sys.stderr)
        sys.exit(2)
    if code == INTERRUPTED:
        print("asymzoo: interrupted; the same command goes on from here", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)
