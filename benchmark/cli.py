"""The program `asymzoo`."""

import ctypes
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from metanets.cli import Target, TestOn, task_folders, task_of
from metanets.cli import app as metanets_app
from zoo.cli import Architecture, DataDir, generate_with_bar, provide
from zoo.cli import app as zoo_app
from zoo.errors import AsymZooError
from zoo.training.workers import fix_rounding

OUTSIDE = (
    "Data set whose test examples are out of distribution for bayesian, in the subfolder of its name below --data-dir; "
    "by default the zoo's own test examples with their pixels permuted."
)
Workers = Annotated[int | None, typer.Option(min=1, help="Number of processes; by default one for each CPU.")]
INTERRUPTED = 130  # the exit code that typer gives for control-C
# Settings of the GNU C library: environment variable, number in malloc.h, bytes.
MALLOC = (("MALLOC_TRIM_THRESHOLD_", -1, 1 << 30), ("MALLOC_MMAP_THRESHOLD_", -3, 32 << 20))

app = typer.Typer(
    help="Paired model zoos with and without parameter symmetries, metanetworks on them, and what symmetry does.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
task_folders.append(Path(__file__).parent / "tasks")
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
    pairs: Annotated[
        int, typer.Option(min=16, help="Number of pairs with varied hyperparameters, for metanetworks.")
    ] = 384,
    replicas: Annotated[
        int, typer.Option(min=4, help="Number of pairs that differ only in their seeds, for connectivity.")
    ] = 32,
    workers: Workers = None,
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
    zoo: Annotated[Path, typer.Argument(help="Folder of a zoo.")],
    out: Annotated[Path, typer.Option(help="Folder for the results: a JSON file and a figure for each phenomenon.")],
    only: Annotated[str | None, typer.Option(help="Names of phenomena: a,b,…; by default all.")] = None,
    data_dir: DataDir = None,
    outside: Annotated[str | None, typer.Option(help=OUTSIDE)] = None,
    workers: Workers = None,
    architecture: Architecture = None,
) -> None:
    """Measure phenomena under every treatment of a zoo; by default all that it has enough networks for."""
    from tqdm import tqdm

    from benchmark.phenomena import PHENOMENA, run
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

                def leave_out(treatment: str, error: AsymZooError, name: str = name) -> None:
                    typer.echo(f"left out: {name} of {treatment}: {error}")

                results = run(
                    PHENOMENA[name].measure,
                    opened,
                    data,
                    workers=workers or os.cpu_count() or 1,
                    progress=bar.update,
                    log=bar.set_postfix_str,
                    left_out=leave_out,
                )
        except AsymZooError as error:  # too few networks, or a field that an imported zoo lacks
            if only is not None:
                raise
            typer.echo(f"left out: {name}: {error}")
            continue
        _write_results(out, name, results)


def _write_results(out: Path, name: str, results: Sequence[Any]) -> None:
    """Write the findings of a phenomenon, and draw them if matplotlib is installed."""
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
    zoo: Annotated[Path, typer.Argument(help="Folder of a zoo.")],
    out: Annotated[Path, typer.Option(help="JSON file to add results to; those in it are not computed again.")],
    models: Annotated[str | None, typer.Option(help="Names of `asymzoo metanets list`: a,b,…; by default all.")] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Names or TOML files of tasks: a,b,…; instead of the options below.")
    ] = None,
    treatments: Annotated[str | None, typer.Option(help="Treatments of the zoo: a,b,…; by default all.")] = None,
    target: Target = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of trainings of each metanetwork.")] = 3,
    max_train: Annotated[
        str | None, typer.Option(help="Numbers of training networks: 64,128,…; by default all.")
    ] = None,
    test_on: TestOn = None,
    workers: Workers = None,
) -> None:
    """Train metanetworks on every treatment of a zoo, or on tasks, and record how well they predict."""
    from tqdm import tqdm

    from benchmark.metanetworks import EvaluationJob, read_entries, run_jobs
    from metanets.evaluation import REFERENCES
    from metanets.models import MODELS
    from zoo.opening import open_zoo

    opened = open_zoo(zoo)
    asked = _tasks(opened, tasks, treatments, max_train, target=target, test_on=test_on and [test_on])
    names = [*REFERENCES, *MODELS] if models is None else models.split(",")
    readable = []
    for job in (EvaluationJob(opened, task, model, seeds) for model in names for task in asked):
        if reason := job.refusal():
            typer.echo(f"left out: {job.model} on {job.task.name}: {reason}")
        else:
            readable.append(job)
    known = [entry.result for entry in read_entries(out)]
    missing = [job for job in readable if not any(job.is_done_by(result) for result in known)]
    trainings = seeds * sum(job.model in MODELS for job in missing)
    with tqdm(total=trainings, unit=" trainings", delay=1e-3) as bar:
        for entry in run_jobs(missing, out, workers=workers or os.cpu_count() or 1, progress=bar.update):
            bar.set_description(f"{entry.result.model} on {entry.result.task.name}")
    known = [entry.result for entry in read_entries(out)]
    results = [result for job in readable for result in known if job.is_done_by(result)]
    _show_tables(results, "treatment" if tasks is None else "task")
    typer.echo(f"written to {out}")


def _tasks(zoo: Any, tasks: str | None, treatments: str | None, max_train: str | None, **options: Any) -> list[Any]:
    """Return the named tasks, or one task for each treatment and number of training networks."""
    if tasks is not None:
        return [task_of(zoo, t, learn_from=treatments, max_train=max_train, **options) for t in tasks.split(",")]
    sizes = [None] if max_train is None else _numbers("max-train", max_train)
    chosen = zoo.treatments if treatments is None else treatments.split(",")
    return [task_of(zoo, None, learn_from=t, max_train=size, **options) for t in chosen for size in sizes]


def _show_tables(results: Sequence[Any], columns: str) -> None:
    """Print a table of each metric and a table of costs."""
    from benchmark.metanetworks import tabulate, tabulate_costs

    for metric in dict.fromkeys(name for result in results for name in result.metrics if name != "rmse"):
        having = [result for result in results if metric in result.metrics]
        typer.echo(f"\n{metric}\n{tabulate(having, metric, columns=columns)}")
    typer.echo(f"\n{tabulate_costs(results)}\n")


def _numbers(option: str, text: str) -> Sequence[int | None]:
    from zoo.errors import TaskError

    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise TaskError(f"{option}: {text!r} is no list of numbers; write 64,128") from None


def keep_freed_memory() -> None:
    """Let the C library keep freed memory: new pages from the system take longer than most operations on tensors."""
    for variable, option, size in MALLOC:
        if variable not in os.environ:
            os.environ[variable] = str(size)  # for worker processes, which read it when they start
            with suppress(AttributeError, OSError):  # other C libraries have no such function
                ctypes.CDLL(None).mallopt(option, size)


def show_warning(message: Warning | str, *details: object) -> None:
    """Print a warning in one line, without the place in the code, and each only once."""
    _print_once(f"asymzoo: {message}")


@cache
def _print_once(line: str) -> None:
    print(line, file=sys.stderr)


def main() -> None:
    """Run the command line; a mistake of the user is printed as one line on stderr, with exit code 2."""
    # Every process has one thread; libraries that a worker imports must not start more.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    keep_freed_memory()
    fix_rounding()
    _print_once.cache_clear()
    warnings.showwarning = show_warning  # type: ignore[assignment]  # it takes any number of arguments
    try:
        code = app(standalone_mode=False)
    except (AsymZooError, TyperException) as error:
        if "--debug" in sys.argv:
            raise
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        bare = message.startswith("Usage:")  # no command was given, so this is the help
        print(message if bare else f"asymzoo: {message}", file=sys.stderr)
        sys.exit(2)
    if code == INTERRUPTED:
        print("asymzoo: interrupted; the same command goes on from here", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)
