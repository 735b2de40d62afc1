"""From a recipe to a zoo: trains what is missing, shard by shard, and can be interrupted at any time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.data import Data, load_data
from zoo.engines import ENGINES, Advance
from zoo.errors import AsymZooError, RecipeError, ZooError
from zoo.manifest import MANIFEST, File, Manifest, Mode, is_occupied, merge
from zoo.recipe import HYPERPARAMETERS, Recipe
from zoo.seeds import rng_for
from zoo.stack import stack_size
from zoo.store import Zoo, open_zoo, write_constants, write_shard
from zoo.training import METRICS, Hyperparameters, Trained, train
from zoo.treatments import Treated

SHARD_BYTES = 32 << 20


@dataclass(frozen=True)
class Shard:
    """What a worker is to make: a treatment's networks for a run of pairs."""

    treatment: str
    pairs: range


@dataclass(frozen=True)
class Job:
    """A shard, and all that a worker needs to know to make it."""

    shard: Shard
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
    if recipe.imported:
        raise RecipeError(f"{recipe.name}: imported: nobody knows how to train networks of others; remove the field")
    folder = Path(folder)
    data_dir = None if data_dir is None else Path(data_dir)
    data = recipe.load_data(data_dir)
    for treatment in recipe.treatments:
        check_fit(recipe, treatment, data)
    manifest = _begin(recipe, folder)
    shards = plan(manifest, shard_pairs)
    jobs = [Job(shard, manifest.recipe, folder, device, data_dir) for shard in shards]
    done, total = 0, sum(len(shard.pairs) for shard in shards)

    def advance(networks: int) -> None:
        nonlocal done
        done += networks
        progress(done, total)

    progress(0, total)
    if jobs:
        for file in ENGINES[engine](jobs, make_shard, workers, advance):
            manifest = manifest.model_copy(update={"files": (*manifest.files, file)})
            manifest.write(folder)
    return open_zoo(folder)


def check_device(device: str) -> None:
    """Raise an `AsymZooError` if there is no such device here."""
    known = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if device.partition(":")[0] not in known:
        raise AsymZooError(f"device: there is no {device!r} here; use {' or '.join(known)}")


def check_fit(recipe: Recipe, treatment: str, data: Data) -> None:
    """Raise a `RecipeError` if a network cannot take the data's examples or tell its classes apart."""
    module = recipe.treat(treatment).module
    try:
        classes = module(data.test_x[:1]).shape[-1]
    except RuntimeError as error:
        fact = str(error).splitlines()[0]
        raise RecipeError(
            f"{recipe.name}: architecture: does not take examples of shape {data.shape} of {data.name} ({fact})"
        ) from None
    if classes != data.classes:
        raise RecipeError(
            f"{recipe.name}: architecture: {classes} outputs for the {data.classes} classes of {data.name}"
        )


def _begin(recipe: Recipe, folder: Path) -> Manifest:
    """Write or extend the manifest, and what treatments hold constant."""
    if not is_occupied(folder):
        manifest = Manifest.begin(recipe)
    elif not (folder / MANIFEST).exists():
        raise ZooError(f"{folder}: is not empty and no zoo; choose another folder")
    else:
        before = Manifest.read(folder)
        manifest = Manifest.begin(merge(before.recipe, recipe, folder))
        files = tuple(file for file in before.files if (folder / file.path).is_file())
        manifest = manifest.model_copy(update={"created": before.created, "files": files})
    manifest.write(folder)  # before anything else: an interrupted beginning is a zoo to go on with
    present = {file.treatment for file in manifest.files if file.pairs is None}
    for treatment in manifest.recipe.treatments:
        if treatment not in present and (held := manifest.recipe.treat(treatment).held):
            file = write_constants(folder, treatment, held)
            manifest = manifest.model_copy(update={"files": (*manifest.files, file)})
    manifest.write(folder)
    return manifest


def plan(manifest: Manifest, shard_pairs: int | None = None) -> list[Shard]:
    """Divide the missing pairs of every treatment into shards."""
    shards = []
    for treatment in manifest.recipe.treatments:
        bytes_per_pair = 8 * sum(np.prod(parameter["shape"]) for parameter in manifest.layouts[treatment])
        for missing in manifest.missing(treatment):
            size = shard_pairs or int(max(1, min(256, SHARD_BYTES // bytes_per_pair, max(32, -(-len(missing) // 3)))))
            shards += [
                Shard(treatment, range(begin, min(begin + size, missing.stop)))
                for begin in range(missing.start, missing.stop, size)
            ]
    return shards


_load_once = lru_cache(maxsize=1)(load_data)  # a worker makes many shards of the same data


def make_shard(job: Job, advance: Advance) -> File:
    """Train the networks of a shard and write them."""
    recipe, shard = job.recipe, job.shard
    data = _load_once(recipe.data.name, data_dir=job.data_dir, train_limit=recipe.data.train_limit)
    arrays = train_pairs(recipe, shard.treatment, shard.pairs, data, device=job.device, progress=advance)
    return write_shard(job.folder, shard.treatment, shard.pairs, arrays, Mode.here(job.device, data.digest))


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
    treated = recipe.treat(treatment)
    drawn = [recipe.draw(pair) for pair in pairs]
    values = {name: np.array([draw[name] for draw in drawn]) for name in HYPERPARAMETERS}
    values["epochs"] = values["epochs"].astype(np.int64)
    starts = start_rows(recipe, treatment, treated, pairs)
    longest = int(values["epochs"].max())
    trained: list[tuple[NDArray[np.int64], Trained]] = []
    by_length = values["epochs"].argsort(kind="stable")
    size = stack_size(treated.module, treated.layout, device)
    for index in np.split(by_length, range(size, len(pairs), size)):
        result = train(
            treated,
            starts[index].to(device),
            Hyperparameters(**{name: torch.from_numpy(value[index]) for name, value in values.items()}),
            data,
            recipe.training,
            seed=recipe.seed,
            pairs=[pairs[i] for i in index],
            progress=progress,
        )
        trained.append((index, result))

    order = np.concatenate([index for index, _ in trained]).argsort()

    def gather(part: Callable[[Trained], torch.Tensor]) -> NDArray[Any]:
        return torch.cat([part(result) for _, result in trained])[order].numpy()

    def metric(name: str, result: Trained) -> torch.Tensor:
        return result.metrics[name]

    def curve(name: str, result: Trained) -> torch.Tensor:
        known = result.curves[name]
        return torch.nn.functional.pad(known, (0, longest - known.shape[1]), value=torch.nan)

    return {
        "weights": gather(lambda result: result.rows),
        "initial_weights": treated.rows(treated.thetas(starts)).numpy(),
        "pair": np.array(pairs, np.int64),
        "split": np.array([recipe.split_of(pair) for pair in pairs]),
        "status": np.where(gather(lambda result: result.diverged), "diverged", "trained"),
        "seconds": gather(lambda result: result.seconds),
        **{f"hyperparameters/{name}": value for name, value in values.items()},
        **{f"metrics/{name}": gather(partial(metric, name)) for name in METRICS},
        **{f"curves/{name}": gather(partial(curve, name)) for name in METRICS},
    }


def start_rows(recipe: Recipe, treatment: str, treated: Treated, pairs: Sequence[int]) -> torch.Tensor:
    """Draw the initial numbers of pairs, which all treatments share, and let the treatment change them, `(K, P)`."""
    chosen = recipe.treatments[treatment]
    rows = [treated.layout.draw_initial(rng_for(recipe.seed, "initial", pair)) for pair in pairs]
    return torch.stack(
        [chosen.start(row, treated.layout, recipe.seed, pair) for row, pair in zip(rows, pairs, strict=True)]
    )
