"""From a recipe to a zoo: trains what is missing, shard by shard, and can be interrupted at any time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from zoo.data import Data, load_data
from zoo.errors import AsymZooError, RecipeError, ZooError
from zoo.files import is_occupied
from zoo.networks.architectures import architecture_of, is_importable
from zoo.networks.parameters import ParameterLayout
from zoo.networks.stack import stack_size
from zoo.recipes.recipe import HYPERPARAMETERS, Recipe
from zoo.seeds import rng_for
from zoo.store.held import pack_held
from zoo.store.manifest import MANIFEST, File, Manifest
from zoo.store.shards import write_constants, write_shard
from zoo.store.zoo import Zoo
from zoo.training.engines import ENGINES, Advance, fix_rounding
from zoo.training.modes import mode_here
from zoo.training.planning import Shard, begin, merge, plan
from zoo.training.training import METRICS, Hyperparameters, Trained, train
from zoo.treatments import Treated


@dataclass(frozen=True)
class Job:
    """A shard, and all that a worker needs to know to make it."""

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
    engine: Literal["processes", "ray"] = "processes",
    workers: int = 1,
    device: str = "cpu",
    data_dir: str | Path | None = None,
    shard_pairs: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Zoo:
    """Make a zoo, or what is still missing of it.

    A folder that holds a zoo of the same recipe grows: by more pairs, by further treatments.

    Arguments:
        recipe: what to make.
        folder: where.
        engine, workers: how many processes, of one thread each, and where they run.
        device: `cpu` or `cuda`.
        data_dir: a folder with the data set's files, where the Hub is out of reach.
        shard_pairs: pairs in a file; the networks do not depend on it.
        progress: called with the networks done and the networks to do.

    Raises:
        AsymZooError: if the recipe, the data or the folder will not do; nothing is overwritten.
    """
    check_device(device)
    check_workers(recipe, engine, workers)
    if recipe.imported:
        raise RecipeError(f"{recipe.name}: imported: nobody knows how to train networks of others; remove the field")
    fix_rounding()
    folder, data_dir = Path(folder), None if data_dir is None else Path(data_dir)
    data = recipe.load_data(data_dir)
    for treatment in recipe.treatments:
        check_fit(recipe, treatment, data)
    manifest, recipe = _begin(recipe, folder)
    jobs = [Job(shard, manifest, recipe, folder, device, data_dir) for shard in plan(manifest, shard_pairs)]
    done, total = 0, sum(len(job.shard.pairs) for job in jobs)

    def advance(networks: int) -> None:
        nonlocal done
        done += networks
        progress(done, total)

    progress(0, total)
    for file in ENGINES[engine](jobs, make_shard, workers, advance) if jobs else ():
        manifest = manifest.model_copy(update={"files": (*manifest.files, file)})
        manifest.write(folder)
    return Zoo(folder, data_dir)


def check_device(device: str) -> None:
    """Raise an `AsymZooError` if there is no such device here."""
    known = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if device.partition(":")[0] not in known:
        raise AsymZooError(f"device: there is no {device!r} here; use {' or '.join(known)}")


def check_workers(recipe: Recipe, engine: str, workers: int) -> None:
    """Raise a `RecipeError` if worker processes cannot import a recipe's architecture."""
    name = recipe.architecture.name
    if engine == "processes" and workers > 1 and not is_importable(architecture_of(name)):
        raise RecipeError(
            f"{recipe.name}: architecture: worker processes cannot import {name!r} from a notebook, standard input or "
            "a function; put the class in a file of its own, or use one worker"
        )


def check_fit(recipe: Recipe, treatment: str, data: Data) -> None:
    """Raise a `RecipeError` if a network cannot take the data's examples, tell its classes apart, or be trained."""
    module, place = recipe.treat(treatment, data_dir=data.folder).module, f"{recipe.name}: architecture:"
    try:
        outputs = [_run(module, data.test_x[:4], training=training) for training in (False, True)]
    except (RuntimeError, ValueError) as error:
        fact = str(error).splitlines()[0]
        raise RecipeError(f"{place} does not take examples of shape {data.shape} of {data.name} ({fact})") from None
    if outputs[0].shape[-1] != data.classes:
        raise RecipeError(f"{place} {outputs[0].shape[-1]} outputs for the {data.classes} classes of {data.name}")
    if not torch.equal(*outputs):
        raise RecipeError(
            f"{place} {recipe.architecture.name} gives other outputs in training than in evaluation, which is not "
            "supported; leave out what does so, such as dropout"
        )


@torch.no_grad()
def _run(module: nn.Module, x: torch.Tensor, *, training: bool) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]):
        return module.train(training)(x)


def _begin(recipe: Recipe, folder: Path) -> tuple[Manifest, Recipe]:
    """Write or extend the manifest, and what treatments hold constant; return it, and the whole recipe."""
    if not is_occupied(folder):
        manifest = begin(recipe)
    elif not (folder / MANIFEST).exists():
        raise ZooError(f"{folder}: is not empty and no zoo; choose another folder")
    else:
        before = Manifest.read(folder)
        recipe = merge(Recipe.read(before.recipe, str(folder)), recipe, folder)
        files = tuple(file for file in before.files if (folder / file.path).is_file())
        manifest = _grown(before, begin(recipe), folder).model_copy(update={"files": files})
    manifest.write(folder)  # before anything else: an interrupted beginning is a zoo to go on with
    present = {file.treatment for file in manifest.files if file.pairs is None}
    for treatment in manifest.treatments:
        treated = recipe.treat(treatment)
        if treatment not in present and treated.held and not treated.own:
            file = write_constants(folder, treatment, treated.held)
            manifest = manifest.model_copy(update={"files": (*manifest.files, file)})
    manifest.write(folder)
    return manifest, recipe


def _grown(before: Manifest, now: Manifest, folder: Path) -> Manifest:
    """Return the manifest of a zoo that grows, with all that it had."""
    had = {column.name: column for column in before.columns}
    if added := had.keys() - {column.name for column in now.columns}:
        raise ZooError(f"{folder}: has a column {min(added)!r} that generating cannot fill; choose another folder")
    for treatment in before.treatments:
        layouts = [ParameterLayout.from_json(each.layouts[treatment]) for each in (before, now)]
        if layouts[0] != layouts[1] or before.sites[treatment] != now.sites[treatment]:
            raise ZooError(
                f"{folder}: the architecture {now.recipe['architecture']['name']!r} known here has other parameters or "
                f"activations than {treatment}'s networks; provide the code that made them, or choose another folder"
            )
    replaced = {name: getattr(now, name) for name in now.model_fields_set - {"created", "versions", "files"}}
    columns = tuple(had.get(column.name, column).model_copy(update=dict(column)) for column in now.columns)
    return before.model_copy(update=replaced | {"columns": columns})


_load_once = lru_cache(maxsize=1)(load_data)  # a worker makes many shards of the same data


def make_shard(job: Job, advance: Advance) -> File:
    """Train the networks of a shard and write them."""
    fix_rounding()
    recipe, shard = job.recipe, job.shard
    data = _load_once(recipe.data.name, data_dir=job.data_dir, train_limit=recipe.data.train_limit)
    arrays = train_pairs(recipe, shard.treatment, shard.pairs, data, device=job.device, progress=advance)
    mode = mode_here(job.device, data.digest)
    return write_shard(job.folder, job.manifest, shard.treatment, shard.pairs, arrays, mode)


def train_pairs(
    recipe: Recipe,
    treatment: str,
    pairs: Sequence[int],
    data: Data,
    *,
    device: str = "cpu",
    progress: Advance = lambda networks: None,
) -> dict[str, NDArray[Any]]:
    """Train the networks of some pairs; return all that a zoo keeps of them, each `(pairs, ...)`.

    Networks of like length train together, as many as is quick; the result does not depend on it.
    """
    treated = recipe.treat(treatment, pairs=pairs, data_dir=data.folder)
    drawn = [recipe.draw(pair) for pair in pairs]
    values = {name: np.array([draw[name] for draw in drawn]) for name in HYPERPARAMETERS}
    values["epochs"] = values["epochs"].astype(np.int64)
    starts = start_rows(recipe, treatment, treated, pairs)
    trained: list[tuple[NDArray[np.int64], Trained]] = []
    by_length = values["epochs"].argsort(kind="stable")
    size = stack_size(treated.module, treated.layout, device)
    for index in np.split(by_length, range(size, len(pairs), size)):
        result = train(
            treated.take(torch.from_numpy(index)),
            starts[index].to(device),
            Hyperparameters(**{name: torch.from_numpy(value[index]) for name, value in values.items()}),
            data,
            recipe.training,
            seed=recipe.seed,
            pairs=[pairs[i] for i in index],
            progress=progress,
        )
        trained.append((index, result))
    return {
        "initial_weights": treated.rows(treated.thetas(starts)).numpy(),
        "pair": np.array(pairs, np.int64),
        "split": np.array([recipe.split_of(pair) for pair in pairs]),
        **values,
        **_in_order(trained, int(recipe.training.epochs.high)),
        **(pack_held(treated.held) if treated.own else {}),
    }


def _in_order(trained: Sequence[tuple[NDArray[np.int64], Trained]], epochs: int) -> dict[str, NDArray[Any]]:
    """Return what training has left of all networks, in their order, curves as wide as the longest may be."""
    order = np.concatenate([index for index, _ in trained]).argsort()

    def gather(part: Callable[[Trained], torch.Tensor]) -> NDArray[Any]:
        return torch.cat([part(result) for _, result in trained])[order].numpy()

    def metric(name: str, result: Trained) -> torch.Tensor:
        return result.metrics[name]

    def curve(name: str, result: Trained) -> torch.Tensor:
        known = result.curves[name]
        return nn.functional.pad(known, (0, epochs - known.shape[1]), value=torch.nan)

    return {
        "weights": gather(lambda result: result.rows),
        "status": np.where(gather(lambda result: result.diverged), "diverged", "trained"),
        "seconds": gather(lambda result: result.seconds),
        **{name: gather(partial(metric, name)) for name in METRICS},
        **{f"curve_{name}": gather(partial(curve, name)) for name in METRICS},
    }


def start_rows(recipe: Recipe, treatment: str, treated: Treated, pairs: Sequence[int]) -> torch.Tensor:
    """Draw the initial numbers of pairs, which all treatments share, and let the treatment change them, `(K, P)`."""
    chosen = recipe.treatments[treatment]
    rows = [treated.layout.draw_initial(rng_for(recipe.seed, "initial", pair)) for pair in pairs]
    return torch.stack(
        [chosen.start(row, treated.layout, recipe.seed, pair) for row, pair in zip(rows, pairs, strict=True)]
    )
