"""The commands of `asymzoo zoo`: list recipes; generate, inspect, verify, export, import, push and pull zoos."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(help="Make, check and share paired model zoos.", no_args_is_help=True)

DataDir = Annotated[
    Path | None, typer.Option(help="Folder with the data set's files; without it they come from the Hub.")
]


def provide(sources: list[str] | None) -> None:
    """Import and register the architectures given by `--architecture`."""
    if sources:
        from zoo.networks.architectures import provide as import_architecture

        for source in sources:
            import_architecture(source)


Architecture = Annotated[
    list[str] | None,
    typer.Option(
        "--architecture",
        help="Your own architecture, as FILE.py:CLASS or NAME=FILE.py:CLASS; can be repeated.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the built-in recipes, with the numbers of parameters and of trainable entries under each treatment."""
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
    """Return the number of parameters of a network under a treatment, and how many of them train."""
    return _counts(recipe.treat(treatment))


def _counts(treated: Any) -> dict[str, int]:
    trainable = treated.trainable.reshape(-1, treated.layout.size)[0]  # of the first network, if each has its own mask
    return {"parameters": treated.layout.size, "trainable": int(trainable.sum())}


@app.command()
def generate(
    recipe: Annotated[str, typer.Argument(help="Name of a built-in recipe, or path of a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the zoo; an incomplete zoo in it is completed.")],
    pairs: Annotated[int | None, typer.Option(min=1, help="Number of pairs; by default that of the recipe.")] = None,
    treatments: Annotated[str | None, typer.Option(help="Treatments to train, as a,b,…; by default all.")] = None,
    workers: Annotated[
        str | None,
        typer.Option(help="Number of worker processes, or ray; by default one for each CPU, and one on a GPU."),
    ] = None,
    device: Annotated[str, typer.Option(help="Device that trains: cpu or cuda.")] = "cpu",
    data_dir: DataDir = None,
    shard_pairs: Annotated[int | None, typer.Option(min=1, help="Number of pairs in each file.")] = None,
    architecture: Architecture = None,
) -> None:
    """Train a paired zoo. After an interruption, the same command continues where it stopped."""
    from zoo.recipes.recipe import Recipe

    provide(architecture)
    chosen = Recipe.load(recipe)
    if treatments is not None:
        chosen = chosen.only(treatments.split(","))
    if pairs is not None:
        chosen = chosen.model_copy(update={"pairs": pairs})
    running: Any = workers if workers in (None, "ray") else _count(workers)
    zoo = generate_with_bar(chosen, out, workers=running, device=device, data_dir=data_dir, shard_pairs=shard_pairs)
    typer.echo(f"{zoo.folder}: {len(zoo)} pairs of {', '.join(zoo.treatments)}")


def _count(workers: str) -> int:
    from zoo.errors import RecipeError

    if not workers.isdigit() or int(workers) < 1:
        raise RecipeError(f"workers: {workers!r} is not a number of processes; write a number above 0, or ray")
    return int(workers)


def generate_with_bar(
    recipe: Any, out: Path, *, workers: int | Literal["ray"] | None = None, device: str = "cpu", **options: Any
) -> Any:
    """Generate a zoo and show a progress bar."""
    import os

    from tqdm import tqdm

    from zoo.training.generation import generate
    from zoo.training.planning import count_missing

    workers = workers or (os.cpu_count() if device == "cpu" else 1) or 1
    missing = count_missing(recipe, out)
    with tqdm(desc=recipe.name, total=missing, unit=" networks", smoothing=0.05, delay=1e-3) as bar:
        return generate(recipe, out, workers=workers, device=device, progress=bar.update, **options)


@app.command()
def info(folder: Annotated[Path, typer.Argument(help="Folder of the zoo.")], as_json: Json = False) -> None:
    """Print what a zoo contains."""
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

    every = zoo.networks(treatment, diverged=True)
    return {
        **_counts(every[:1].treated),
        "diverged": int((every["status"] == "diverged").sum()),
        "test_accuracy_quartiles": [
            round(float(q), 6) for q in np.nanquantile(every["test_accuracy"], [0, 0.25, 0.5, 0.75, 1])
        ],
    }


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of the zoo.")],
    retrain: Annotated[int, typer.Option(min=0, help="Number of networks to train again and compare.")] = 0,
    sample: Annotated[int, typer.Option(min=1, help="Number of networks of each treatment to measure again.")] = 32,
    data_dir: DataDir = None,
    architecture: Architecture = None,
) -> None:
    """Check the files of a zoo, measure networks again, and train some again."""
    from zoo.opening import open_zoo
    from zoo.training.verification import verify as check

    provide(architecture)
    check(open_zoo(folder), data_dir=data_dir, sample=sample, retrain=retrain, log=typer.echo)


@app.command()
def reseal(folder: Annotated[Path, typer.Argument(help="Folder of a zoo whose zoo.json you edited.")]) -> None:
    """Check an edited zoo.json and write its new checksum, without which the zoo cannot be opened."""
    from zoo.store.manifest import MANIFEST
    from zoo.store.manifest import reseal as seal

    manifest = seal(folder)
    typer.echo(f"{folder / MANIFEST}: sealed, recipe digest {manifest.digest}")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder of the zoo.")],
    out: Annotated[Path, typer.Argument(help="New folder, which can be uploaded to the Hub unchanged.")],
) -> None:
    """Write a zoo as Parquet files that `datasets.load_dataset` reads."""
    from tqdm import tqdm

    from zoo.opening import open_zoo
    from zoo.sharing.export import export_zoo

    zoo = open_zoo(folder)
    with tqdm(total=len(zoo) * len(zoo.treatments), unit=" networks", delay=1e-3) as bar:
        export_zoo(zoo, out, progress=bar.update)
    typer.echo(f'{out}: datasets.load_dataset("{out}", "{zoo.treatments[0]}")')


@app.command("import")
def import_(
    form: Annotated[
        str, typer.Argument(metavar="FORMAT", help="Format of the source: hf, paper, unterthiner, folder.")
    ],
    source: Annotated[Path, typer.Argument(help="Folder to import.")],
    out: Annotated[Path, typer.Argument(help="New folder for the zoo.")],
    mask_constant: Annotated[
        float | None, typer.Option(help="paper: factor on normal_mask that gives the fixed entries; by default 2.")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="unterthiner: activation of the networks to import, relu or tanh.")
    ] = None,
    architecture: Architecture = None,
) -> None:
    """Make a zoo from networks in another format.

    hf: a data set that `export` wrote. paper: the published networks of Lim et al. 2024. unterthiner: the Small CNN
    Zoo. folder: your own networks, as recipe.toml, labels.csv, and one file with a state_dict for each network.
    """
    import inspect

    from tqdm import tqdm

    from zoo.errors import ZooError, nearest
    from zoo.sharing.importers import IMPORTERS

    provide(architecture)
    if form not in IMPORTERS:
        raise ZooError(f"import: unknown format {form!r}{nearest(form, IMPORTERS)}; use one of {', '.join(IMPORTERS)}")
    options = {"mask_constant": mask_constant, "activation": activation}
    given = {name: value for name, value in options.items() if value is not None}
    if wrong := given.keys() - inspect.signature(IMPORTERS[form]).parameters:
        raise ZooError(f"import: {form} has no option --{min(wrong).replace('_', '-')}; leave it out")
    with tqdm(unit=" networks", delay=1e-3) as bar:
        zoo = IMPORTERS[form](source, out, progress=bar.update, **given)
    typer.echo(f"{zoo.folder}: {len(zoo)} pairs of {', '.join(zoo.treatments)}")


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a zoo, or of what `export` wrote.")],
    repository: Annotated[str, typer.Argument(help="Repository owner/name on the Hub; created if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to write; by default main.")] = None,
) -> None:
    """Upload a zoo to the Hugging Face Hub, with the token in HF_TOKEN or that of `hf auth login`."""
    from tqdm import tqdm

    from zoo.sharing.hub import push_zoo

    with tqdm(unit=" networks", delay=1e-3) as bar:
        address = push_zoo(folder, repository, private=private, revision=revision, progress=bar.update)
    typer.echo(f'{address}: open_zoo("{address}")')


@app.command()
def pull(
    repository: Annotated[str, typer.Argument(help="Repository owner/name on the Hub.")],
    out: Annotated[Path, typer.Argument(help="New folder for the zoo.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit to read; by default main.")] = None,
) -> None:
    """Download a zoo from the Hugging Face Hub and check it. After an interruption, run the same command again."""
    from tqdm import tqdm

    from zoo.sharing.hub import pull_zoo

    with tqdm(unit=" networks", delay=1e-3) as bar:
        zoo = pull_zoo(repository, out, revision, progress=bar.update)
    typer.echo(f"{out}: {len(zoo)} pairs of {', '.join(zoo.treatments)}")
