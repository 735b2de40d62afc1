"""Runs jobs side by side: in processes of this machine, or on a Ray cluster. One thread each, always.

An engine takes jobs and a function `work(job, advance)`, where `advance(n)` reports that n networks are done (in
processes, `advance` reports anything), and yields results as they come. With two threads a step took up to a thousand
times longer while another process ran.
"""

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_any
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar

from zoo.errors import AsymZooError

Job = TypeVar("Job")
Result = TypeVar("Result")
Advance = Callable[[Any], object]
Work = Callable[[Job, Advance], Result]

_reports: "SimpleQueue[Any] | None" = None  # of a worker process, to its parent


def fix_rounding() -> None:
    """Let MKL round alike wherever in memory a network lies; for the whole process, until its end.

    Without it MKL's products of odd widths depend, in the last bit, on where a network of a stack lies. It costs no
    time. MKL reads it at its first product, so call it before anything is computed, as commands and workers do.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO")


def run_in_processes(jobs: Sequence[Job], work: Work[Job, Result], workers: int, advance: Advance) -> Iterator[Result]:
    """Run jobs in `workers` processes, or in this one if that is 1."""
    if workers == 1:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield from (work(job, advance) for job in jobs)
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("spawn")
    reports: SimpleQueue[Any] = context.SimpleQueue()
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _begin_worker, (reports,)) as pool:
        pending = {pool.submit(_work_in_process, job, work) for job in jobs}
        try:
            while pending:
                done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                while not reports.empty():
                    advance(reports.get())
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise AsymZooError(
                "workers: a worker process ended before its work was done; if memory is short, use fewer workers; "
                'a script has to call this under `if __name__ == "__main__":`'
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(reports: "SimpleQueue[Any]") -> None:
    import torch

    global _reports
    _reports = reports
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave no worker behind when the parent is killed, which ends without a word to its pool."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_any([parent.sentinel])
    os._exit(1)


def _work_in_process(job: Job, work: Work[Job, Result]) -> Result:
    assert _reports is not None
    return work(job, _reports.put)


def run_on_ray(jobs: Sequence[Job], work: Work[Job, Result], workers: int, advance: Advance) -> Iterator[Result]:
    """Run jobs on the Ray cluster at hand, or a local one of `workers` CPUs; progress comes by whole jobs.

    The folder of the zoo has to be the same for all nodes, and so have those of modules that are not installed.
    """
    try:
        import ray
    except ImportError:
        raise AsymZooError("engine: ray is not installed; pip install 'asymzoo[ray]', or use processes") from None
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        ray.init(
            address=address, num_cpus=None if address else workers, log_to_driver=False, logging_level=logging.ERROR
        )

    @ray.remote(num_cpus=1)
    def remote(job: bytes, path: Sequence[str]) -> tuple[Result, int]:
        import torch

        torch.set_num_threads(1)
        sys.path.extend(folder for folder in path if folder not in sys.path)  # before what is in them is imported
        counts: list[int] = []
        return work(ray.cloudpickle.loads(job), counts.append), sum(counts)

    pending: list[Any] = [remote.remote(ray.cloudpickle.dumps(job), sys.path) for job in jobs]
    while pending:
        (done,), pending = ray.wait(pending)
        result, networks = ray.get(done)
        advance(networks)
        yield result


ENGINES = {"processes": run_in_processes, "ray": run_on_ray}
