"""The whole project in one run on the embedded digits: two zoos, metanetworks, mode connectivity, a report."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from benchmark.evidence import evidence
from benchmark.findings import to_json
from benchmark.phenomena.mode_connectivity import ModeConnectivity, measure_variant
from benchmark.report import write_report
from metanets.evaluation import Result, evaluate
from metanets.tasks import Task
from zoo.files import write_whole
from zoo.progress import Progress, ignore
from zoo.recipes.recipe import Recipe
from zoo.store.zoo import Zoo
from zoo.training.workers import run_in_processes

TREATMENTS = ("standard", "w_asymmetric", "sigma_asymmetric", "w_masked", "w_initialised")
MODELS = ("mean", "linear", "mlp", "statnn")
SEEDS = 3
Track = Callable[[Iterable[Any], int, str], Iterable[Any]]


def quickstart(
    folder: Path,
    make: Callable[[Recipe, Path], Zoo],
    *,
    pairs: int = 384,
    replicas: int = 32,
    workers: int = 1,
    track: Track,
) -> Path:
    """Make two zoos and measure them; return the path of the report.

    Arguments:
        folder: Folder for zoos, results and report; networks that are already there are used.
        make: Function that generates the zoo of a recipe in a folder.
        pairs: Number of pairs with varied hyperparameters, which metanetworks read.
        replicas: Number of pairs that differ only in their seeds, between which connectivity is measured.
        workers: Number of processes for the metanetworks.
        track: Function that wraps an iterable, given its length and a title, to show progress.
    """
    varied = make(_recipe("digits-mlp", pairs), folder / "digits-mlp")
    alike = make(_recipe("digits-mlp-replicas", replicas), folder / "digits-mlp-replicas")
    torch.set_num_threads(1)
    jobs = [(varied, treatment, model) for treatment in TREATMENTS for model in MODELS]
    results = run_in_processes(jobs, _predict, workers, ignore)
    predictions: list[Result] = sorted(
        track(results, len(jobs), "metanetworks"), key=lambda r: jobs.index((varied, r.treatment, r.model))
    )
    data = Recipe.of(alike).load_data()
    measured = (measure_variant(networks, data) for networks in alike.paired(*TREATMENTS))
    connectivity: list[ModeConnectivity] = list(track(measured, len(TREATMENTS), "mode connectivity"))
    made = evidence()
    values = {
        "made": made,
        "metanetworks": [result.to_json() for result in predictions],
        "mode_connectivity": to_json(connectivity),
    }
    write_whole(folder / "results.json", json.dumps(values).encode())
    return write_report(folder / "report" / "index.html", varied, alike, predictions, connectivity, made)


def _predict(job: tuple[Zoo, str, str], progress: Progress) -> Result:
    zoo, treatment, model = job
    return evaluate(Task(recipe=zoo.name, learn_from=(treatment,)), zoo, model, seeds=SEEDS)


def _recipe(name: str, pairs: int) -> Recipe:
    return Recipe.load(name).only(TREATMENTS).model_copy(update={"pairs": pairs})
