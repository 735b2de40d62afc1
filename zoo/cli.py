"""`asymzoo zoo`: list recipes, generate zoos, look at them, check them."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(help="Make and keep paired model zoos.", no_args_is_help=True)

DataDir = Annotated[Path | None, typer.Option(help="Folder with the data set's files, where the Hub is out of reach.")]


def provide(sources: list[str] | None) -> None:
    """Import the architectures that `--architecture` names."""
    if sources:
        from zoo.networks.architectures import provide as import_architecture

        for source in sources:
            import_architecture(source)


Architecture = Annotated[
    list[str] | None,
    typer.Option(
        "--architecture",
        help="Code of an architecture of your own, FILE.py:CLASS, or NAME=FILE.py:CLASS; may be given again.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the built-in recipes, with parameter and trainable counts under each treatment."""
    from zoo.recipes.recipe import Recipe, built_in_recipes

    rows = []
    for name in built_in_recipes():
        recipe = Recipe.load(name)
        rows.append(
            {
                "name": name,
                "description": recipe.description,
                "data": recipe.data.name,
                "architecture": recipe.architecture.name,
                "pairs": recipe.pairs,
                "treatments": {treatment: count_parameters(recipe, treatment) for treatment in recipe.treatments},
            }
        )
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        typer.echo(f"{row['name']}: {row['description']} {row['pairs']} pairs.")
        for treatment, count in row["treatments"].items():
            typer.echo(f"    {treatment:18}{count['parameters']:>9,} parameters,{count['trainable']:>9,} train")


def count_parameters(recipe: Any, treatment: str) -> dict[str, int]:
    """Count the parameters of a treatment's networks, and those that train."""
    return _counts(recipe.treat(treatment))


def _counts(treated: Any) -> dict[str, int]:
    trainable = treated.trainable.reshape(-1, treated.layout.size)[0]  # of one network, where each has its own mask
    return {"parameters": treated.layout.size, "trainable": int(trainable.sum())}


@app.command()
def generate(
    recipe: Annotated[str, typer.Argument(help="A built-in recipe's name, or a TOML file.")],
    out: Annotated[Path, typer.Option(help="The zoo's folder; an interrupted zoo in it is finished.")],
    pairs: Annotated[int | None, typer.Option(min=1, help="How many pairs, instead of the recipe's number.")] = None,
    treatments: Annotated[str | None, typer.Option(help="Some of the recipe's treatments: a,b,…")] = None,
    engine: Annotated[Literal["processes", "ray"], typer.Option(help="Where the workers run.")] = "processes",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, of one thread each; by default the CPUs, or one on a GPU.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    data_dir: DataDir = None,
    shard_pairs: Annotated[int | None, typer.Option(min=1, help="Pairs in a file.")] = None,
    architecture: Architecture = None,
) -> None:
    """Train a paired zoo. Interrupted, the same command goes on where it stopped."""
    from zoo.recipes.recipe import Recipe

    provide(architecture)
    chosen = Recipe.load(recipe)
    if treatments is not None:
        chosen = chosen.only(treatments.split(","))
    if pairs is not None:
        chosen = chosen.model_copy(update={"pairs": pairs})
    zoo = generate_with_bar(
        chosen, out, engine=engine, workers=workers, device=device, data_dir=data_dir, shard_pairs=shard_pairs
    )
    typer.echo(f"{zoo.folder}: {len(zoo)} pairs of {', '.join(zoo.treatments)}")


def generate_with_bar(
    recipe: Any, out: Path, *, workers: int | None = None, device: str = "cpu", **options: Any
) -> Any:
    """Generate a zoo, showing networks per second and the time left."""
    import os

    from tqdm import tqdm

    from zoo.training.generation import generate

    bar = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if total == 0:  # nothing is missing
            return
        bar = bar or tqdm(desc=recipe.name, total=total, unit=" networks", smoothing=0.05)
        bar.update(done - bar.n)

    try:
        workers = workers or (os.cpu_count() if device == "cpu" else 1) or 1
        return generate(recipe, out, workers=workers, device=device, progress=show, **options)
    finally:
        if bar is not None:
            bar.close()


@app.command()
def info(folder: Path, as_json: Json = False) -> None:
    """Say what is in a zoo."""
    from zoo.opening import open_zoo

    zoo = open_zoo(folder)
    summary: dict[str, Any] = {
        "name": zoo.name,
        "description": zoo.manifest.description,
        "digest": zoo.manifest.digest,
        "created": zoo.manifest.created,
        "pairs": len(zoo),
        "bytes": sum(file.bytes for file in zoo.manifest.files),
        "treatments": {treatment: _describe(zoo, treatment) for treatment in zoo.treatments},
    }
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
        return
    typer.echo(": ".join(filter(None, (summary["name"], summary["description"]))))
    typer.echo(
        f"{summary['pairs']} pairs, {summary['bytes'] / 1e6:.1f} MB, digest {summary['digest']}, {summary['created']}"
    )
    typer.echo(f"{'':20}{'parameters':>11}{'train':>9}{'diverged':>10}   test accuracy: lowest, quartiles, highest")
    for name, row in summary["treatments"].items():
        quartiles = "  ".join(f"{100 * q:5.1f}" for q in row["test_accuracy_quartiles"])
        typer.echo(f"{name:20}{row['parameters']:>11,}{row['trainable']:>9,}{row['diverged']:>10}   {quartiles} %")


def _describe(zoo: Any, treatment: str) -> dict[str, Any]:
    import numpy as np

    accuracy = zoo.field(treatment, "test_accuracy")
    return {
        **_counts(zoo.treated(treatment, [0])),
        "diverged": int((zoo.field(treatment, "status") == "diverged").sum()),
        "test_accuracy_quartiles": [round(float(q), 6) for q in np.nanquantile(accuracy, [0, 0.25, 0.5, 0.75, 1])],
    }


@app.command()
def verify(
    folder: Path,
    retrain: Annotated[int, typer.Option(min=0, help="Train this many networks again and compare.")] = 0,
    sample: Annotated[int, typer.Option(min=1, help="Networks of each treatment to measure again.")] = 32,
    data_dir: DataDir = None,
    architecture: Architecture = None,
) -> None:
    """Check a zoo's files, measure networks again, and train some again."""
    from zoo.opening import open_zoo
    from zoo.training.verification import verify as check

    provide(architecture)
    check(open_zoo(folder), data_dir=data_dir, sample=sample, retrain=retrain, progress=typer.echo)


@app.command()
def reseal(folder: Annotated[Path, typer.Argument(help="Of the zoo whose zoo.json was edited by hand.")]) -> None:
    """Check an edited zoo.json and rewrite it with a new seal, without which the zoo is not opened."""
    from zoo.store.manifest import MANIFEST
    from zoo.store.manifest import reseal as seal

    manifest = seal(folder)
    typer.echo(f"{folder / MANIFEST}: sealed, recipe digest {manifest.digest}")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A zoo's folder.")],
    out: Annotated[Path, typer.Argument(help="A new folder, which is a repository of the Hub as it stands.")],
) -> None:
    """Write a zoo as a data set that `datasets.load_dataset` reads."""
    from tqdm import tqdm

    from zoo.opening import open_zoo
    from zoo.sharing.export import export_zoo

    zoo = open_zoo(folder)
    with tqdm(total=len(zoo) * len(zoo.treatments), unit=" networks", delay=1e-3) as bar:
        export_zoo(zoo, out, progress=bar.update)
    typer.echo(f'{out}: datasets.load_dataset("{out}", "{zoo.treatments[0]}")')


@app.command("import")
def import_(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="What it is: hf, paper, unterthiner or folder.")],
    source: Annotated[Path, typer.Argument(help="Its folder.")],
    out: Annotated[Path, typer.Argument(help="The zoo's folder, a new one.")],
    mask_constant: Annotated[
        float | None, typer.Option(help="paper: the fixed entries of sparse networks are this times normal_mask.")
    ] = None,
    activation: Annotated[str | None, typer.Option(help="unterthiner: of the networks to take, relu or tanh.")] = None,
    architecture: Architecture = None,
) -> None:
    """Make a zoo of what others hold in another form.

    hf: a data set that `export` wrote. paper: the published networks of Lim et al. 2024. unterthiner: the Small CNN
    Zoo. folder: recipe.toml, labels.csv, and a state_dict in a file for each network.
    """
    import inspect

    from tqdm import tqdm

    from zoo.errors import ZooError, nearest
    from zoo.sharing.importers import IMPORTERS

    provide(architecture)
    if form not in IMPORTERS:
        raise ZooError(f"import: no format {form!r}{nearest(form, IMPORTERS)}; there are {', '.join(IMPORTERS)}")
    options = {"mask_constant": mask_constant, "activation": activation}
    given = {name: value for name, value in options.items() if value is not None}
    if wrong := given.keys() - inspect.signature(IMPORTERS[form]).parameters:
        raise ZooError(f"import: {form} has no option --{min(wrong).replace('_', '-')}; leave it out")
    with tqdm(unit=" networks", delay=1e-3) as bar:
        zoo = IMPORTERS[form](source, out, progress=bar.update, **given)
    typer.echo(f"{zoo.folder}: {len(zoo)} pairs of {', '.join(zoo.treatments)}")


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Of a zoo, or what `export` wrote.")],
    repository: Annotated[str, typer.Argument(help="The data set's owner/name on the Hub; made if there is none.")],
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    revision: Annotated[str | None, typer.Option(help="The branch; by default main.")] = None,
) -> None:
    """Upload a zoo to the Hugging Face Hub, with HF_TOKEN or as `hf auth login` has it."""
    from tqdm import tqdm

    from zoo.sharing.hub import push_zoo

    with tqdm(unit=" networks", delay=1e-3) as bar:
        address = push_zoo(folder, repository, private=private, revision=revision, progress=bar.update)
    typer.echo(f'{address}: open_zoo("{address}")')


@app.command()
def pull(
    repository: Annotated[str, typer.Argument(help="The data set's owner/name on the Hub.")],
    out: Annotated[Path, typer.Argument(help="The zoo's folder, a new one.")],
    revision: Annotated[str | None, typer.Option(help="A branch, a tag or a commit; by default main.")] = None,
) -> None:
    """Download a zoo from the Hugging Face Hub and check it. Interrupted, the same command goes on where it stopped."""
    from tqdm import tqdm

    from zoo.sharing.hub import pull_zoo

    with tqdm(unit=" networks", delay=1e-3) as bar:
        zoo = pull_zoo(repository, out, revision, progress=bar.update)
    typer.echo(f"{out}: {len(zoo)} pairs of {', '.join(zoo.treatments)}")
