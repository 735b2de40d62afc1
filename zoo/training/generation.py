"""Generates a zoo from a recipe: trains the missing networks shard by shard, and can be interrupted at any time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from zoo.data import Data, load_data
from zoo.devices import use_device
from zoo.errors import RecipeError, ZooError
from zoo.files import is_occupied
from zoo.networks.architectures import architecture_of, is_importable
from zoo.networks.parameters import ParameterLayout
from zoo.networks.roles import BATCH_NORMS
from zoo.progress import Progress, ignore
from zoo.recipes.recipe import HYPERPARAMETERS, Recipe
from zoo.seeds import rng_for
from zoo.store.held import pack_held
from zoo.store.manifest import MANIFEST, File, Manifest
from zoo.store.shards import write_constants, write_shard
from zoo.store.zoo import Zoo
from zoo.training.engines import Engine, engine_for
from zoo.training.modes import mode_here
from zoo.training.planning import Shard, begin, merge, plan
from zoo.training.results import MEASURED, Draws, Trained
from zoo.training.workers import fix_rounding, run_in_processes, run_on_ray
from zoo.treatments import Treated


@dataclass(frozen=True)
class ShardJob:
    """A shard, and all that a worker needs to make it."""

    shard: Shard
    manifest: Manifest
    recipe: Recipe
    folder: Path
    device: str
    data_dir: Path | None


def generate(
    recipe: Recipe,
    folder: str | Path,
    *,
    workers: int | Literal["ray"] = 1,
    device: str = "cpu",
    data_dir: str | Path | None = None,
    shard_pairs: int | None = None,
    progress: Progress = ignore,
) -> Zoo:
    """Make a zoo, or complete one that is there.

    A zoo of the same recipe in the folder grows by the pairs and treatments that it lacks. Its files stay unchanged.

    Arguments:
        recipe: Recipe of the zoo.
        folder: Folder of the zoo.
        workers: Number of processes of one thread each, or `ray` to run on a Ray cluster.
        device: Device that trains, `cpu` or `cuda`.
        data_dir: Folder with the data set's files; without it they come from the Hub.
        shard_pairs: Number of pairs in a file; the networks do not depend on it.
        progress: Called with the number of networks that were just trained.

    Raises:
        AsymZooError: If the recipe or the data are not valid, or the folder holds something else. Nothing is
            overwritten.
    """
    use_device(device)
    check_workers(recipe, workers, device)
    if recipe.imported:
        raise RecipeError(f"{recipe.name}: imported: networks of others cannot be trained; remove the field")
    fix_rounding()
    folder, data_dir = Path(folder), None if data_dir is None else Path(data_dir)
    data = recipe.load_data(data_dir)
    for treatment in recipe.treatments:
        check_fit(recipe, treatment, data)
    manifest, recipe = _begin(recipe, folder)
    shards = plan(manifest, shard_pairs, device)
    jobs = [ShardJob(shard, manifest, recipe, folder, device, data_dir) for shard in shards]
    if jobs and workers != 1 and device == "cpu":
        _compile_ahead(recipe, data)
    for file in _make(jobs, workers, progress) if jobs else ():
        manifest = manifest.model_copy(update={"files": (*manifest.files, file)})
        manifest.write(folder)
    return Zoo(folder, data_dir)


def _compile_ahead(recipe: Recipe, data: Data) -> None:
    """Compile the engine in this process, if one is compiled, so that no two workers do."""
    for treatment in recipe.treatments:  # the choice compiles, because it compares gradients
        if engine_for(recipe.treat(treatment), data, recipe.training).name == "compiled":
            return


def _make(jobs: Sequence[ShardJob], workers: int | Literal["ray"], progress: Progress) -> Iterator[File]:
    """Make shards in worker processes or on Ray, and yield their files as they are finished."""
    if workers == "ray":
        return run_on_ray(jobs, make_shard, progress)
    return run_in_processes(jobs, make_shard, workers, progress)


def check_workers(recipe: Recipe, workers: int | Literal["ray"], device: str) -> None:
    """Raise a `RecipeError` if worker processes would share a GPU, or cannot import the recipe's architecture."""
    name = recipe.architecture.name
    if workers in (1, "ray"):
        return
    if not device.startswith("cpu"):
        raise RecipeError(f"{recipe.name}: workers: {workers} would share the memory of one GPU; use 1")
    if not is_importable(architecture_of(name)):
        raise RecipeError(
            f"{recipe.name}: architecture: worker processes cannot import {name!r} from a notebook, standard input or "
            "a function; put the class in its own file, or use one worker"
        )


def check_fit(recipe: Recipe, treatment: str, data: Data) -> None:
    """Check that networks under a treatment fit the data.

    Raises:
        RecipeError: If they cannot read the examples, do not have one output for each class, or compute something else
            in training than in evaluation.
    """
    treated, place = recipe.treat(treatment, data_dir=data.folder), f"{recipe.name}: architecture:"
    if treated.layout.statistics and recipe.training.batch_size == 1:
        raise RecipeError(
            f"{recipe.name}: training: batch_size: batch norm cannot normalise one example; take 2 or more"
        )
    try:
        outputs = [_run(treated.module, data.test_x[:4], training=training) for training in (False, True)]
    except (RuntimeError, ValueError) as error:
        fact = str(error).splitlines()[0]
        raise RecipeError(
            f"{place} cannot read examples of {data.name}, whose shape is {data.shape} ({fact}); change its arguments"
        ) from None
    if outputs[0].shape[-1] != data.classes:
        fact = f"has {outputs[0].shape[-1]} outputs, but {data.name} has {data.classes} classes"
        raise RecipeError(f"{place} {fact}; change its arguments")
    if not torch.equal(*outputs):
        raise RecipeError(
            f"{place} {recipe.architecture.name} has other outputs in training than in evaluation, and not by batch "
            "norm; leave out what behaves so, such as dropout"
        )


@torch.no_grad()
def _run(module: nn.Module, x: torch.Tensor, *, training: bool) -> torch.Tensor:
    """Run a module in training or in evaluation mode, its batch norms always in evaluation mode."""
    module.train(training)
    for norm in (part for part in module.modules() if isinstance(part, BATCH_NORMS)):
        norm.eval()
    with torch.random.fork_rng(devices=[]):
        outputs = module(x)
    module.eval()
    return outputs


def _begin(recipe: Recipe, folder: Path) -> tuple[Manifest, Recipe]:
    """Write or extend the manifest and the constants of treatments; return the manifest and the recipe of the zoo."""
    if not is_occupied(folder):
        manifest = begin(recipe)
    elif not (folder / MANIFEST).exists():
        raise ZooError(f"{folder}: is not empty and is not a zoo; choose another folder")
    else:
        before = Manifest.read(folder)
        recipe = merge(Recipe.read(before.recipe, str(folder)), recipe, folder)
        files = tuple(file for file in before.files if (folder / file.path).is_file())
        manifest = _grown(before, begin(recipe), folder).model_copy(update={"files": files})
    manifest.write(folder)  # before any other file, so that generation can continue after an interruption
    present = {file.treatment for file in manifest.files if file.pairs is None}
    for treatment in manifest.treatments:
        treated = recipe.treat(treatment)
        if treatment not in present and treated.held and not treated.own:
            file = write_constants(folder, treatment, treated.held)
            manifest = manifest.model_copy(update={"files": (*manifest.files, file)})
    manifest.write(folder)
    return manifest, recipe


def _grown(before: Manifest, now: Manifest, folder: Path) -> Manifest:
    """Return the manifest of a growing zoo, which keeps fields and files that only `before` has."""
    had = {column.name: column for column in before.columns}
    if added := had.keys() - {column.name for column in now.columns}:
        raise ZooError(f"{folder}: has a column {min(added)!r} that `generate` cannot fill; choose another folder")
    for treatment in before.treatments:
        layouts = [ParameterLayout.from_json(manifest.layouts[treatment]) for manifest in (before, now)]
        if layouts[0] != layouts[1] or before.sites[treatment] != now.sites[treatment]:
            raise ZooError(
                f"{folder}: the architecture {now.recipe['architecture']['name']!r} known here has other parameters or "
                f"activations than the {treatment} networks; give the code that made them, or choose another folder"
            )
    replaced = {name: getattr(now, name) for name in now.model_fields_set - {"created", "versions", "files"}}
    columns = tuple(had.get(column.name, column).model_copy(update=dict(column)) for column in now.columns)
    return before.model_copy(update=replaced | {"columns": columns})


_load_once = lru_cache(maxsize=1)(load_data)  # a worker makes many shards from the same data


def make_shard(job: ShardJob, progress: Progress) -> File:
    """Train the networks of a shard and write them."""
    fix_rounding()
    use_device(job.device)
    recipe, shard, device = job.recipe, job.shard, job.device
    data = _load_once(recipe.data.name, data_dir=job.data_dir, train_limit=recipe.data.train_limit)
    engine = engine_for(recipe.treat(shard.treatment), data, recipe.training, device)
    arrays = train_pairs(recipe, shard.treatment, shard.pairs, data, engine=engine, progress=progress)
    mode = mode_here(engine, data.digest, recipe.training.precision)
    return write_shard(job.folder, job.manifest, shard.treatment, shard.pairs, arrays, mode)


def train_pairs(
    recipe: Recipe,
    treatment: str,
    pairs: Sequence[int],
    data: Data,
    *,
    engine: Engine | None = None,
    progress: Progress = ignore,
) -> dict[str, NDArray[Any]]:
    """Train the networks of some pairs under a treatment.

    In stacks, networks with similar numbers of epochs train together; the results do not depend on the stacks.

    Arguments:
        recipe: Recipe of the networks.
        treatment: Name of the treatment.
        pairs: Numbers of the pairs.
        data: Data that the networks learn.
        engine: Engine that trains, by default the fastest that can on the CPU.
        progress: Called with the number of networks that were just trained.

    Returns:
        Columns of a shard by name, each `(pairs, ...)` in the order of `pairs`.
    """
    treated = recipe.treat(treatment, pairs=pairs, data_dir=data.folder)
    hyperparameters = _draw_hyperparameters(recipe, pairs)
    starts = start_rows(recipe, treatment, treated, pairs)
    trained: list[tuple[NDArray[np.int64], Trained]] = []
    by_length = hyperparameters["epochs"].argsort(kind="stable")
    engine = engine or engine_for(treated, data, recipe.training)
    size = engine.stack or len(pairs)
    for index in np.split(by_length, range(size, len(pairs), size)):
        drawn = {name: torch.from_numpy(values[index]) for name, values in hyperparameters.items()}
        draws, start = Draws(torch.tensor([pairs[i] for i in index]), **drawn), starts[index].to(engine.device)
        networks, options = treated.take(torch.from_numpy(index)), {"seed": recipe.seed, "progress": progress}
        trained.append((index, engine.train(networks, start, draws, data, recipe.training, **options)))
    return {
        "initial_weights": treated.to_rows(treated.keep_trainable(starts)).numpy(),
        "pair": np.array(pairs, np.int64),
        "split": np.array([recipe.split_of(pair) for pair in pairs]),
        **hyperparameters,
        **_in_order(trained, int(recipe.training.epochs.high)),
        **(pack_held(treated.held) if treated.own else {}),
    }


def _draw_hyperparameters(recipe: Recipe, pairs: Sequence[int]) -> dict[str, NDArray[Any]]:
    """Return the hyperparameters of pairs by name, each `(pairs,)`."""
    draws = [recipe.draw(pair) for pair in pairs]
    columns = {name: np.array([draw[name] for draw in draws]) for name in HYPERPARAMETERS}
    columns["epochs"] = columns["epochs"].astype(np.int64)
    return columns


def _in_order(trained: Sequence[tuple[NDArray[np.int64], Trained]], epochs: int) -> dict[str, NDArray[Any]]:
    """Join the results of several stacks, in the order of the pairs.

    Arguments:
        trained: Positions of the networks of each stack, and what training returned.
        epochs: Width of the curves; shorter ones are filled up with NaN.
    """
    order = np.concatenate([index for index, _ in trained]).argsort()

    def gather(column: Callable[[Trained], torch.Tensor]) -> NDArray[Any]:
        return torch.cat([column(result) for _, result in trained])[order].numpy()

    def metric(name: str, result: Trained) -> torch.Tensor:
        return result.metrics[name]

    def curve(name: str, result: Trained) -> torch.Tensor:
        values = result.curves[name]
        return nn.functional.pad(values, (0, epochs - values.shape[1]), value=torch.nan)

    return {
        "weights": gather(lambda result: result.rows),
        "status": np.where(gather(lambda result: result.diverged), "diverged", "trained"),
        "seconds": gather(lambda result: result.seconds),
        **{name: gather(partial(metric, name)) for name in MEASURED},
        **{f"curve_{name}": gather(partial(curve, name)) for name in MEASURED},
    }


def start_rows(recipe: Recipe, treatment: str, treated: Treated, pairs: Sequence[int]) -> torch.Tensor:
    """Return the initial `theta` of pairs, `(K, P)`.

    All treatments with the same layout start from the same draw, which a treatment may then change.
    """
    chosen = recipe.treatments[treatment]
    rows = [treated.layout.draw_initial(rng_for(recipe.seed, "initial", pair)) for pair in pairs]
    return torch.stack(
        [chosen.start(row, treated.layout, recipe.seed, pair) for row, pair in zip(rows, pairs, strict=True)]
    )
