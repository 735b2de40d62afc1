"""Runs jobs in parallel: in processes on this machine, or on a Ray cluster.

Both take jobs and a function `work(job, report)`, and yield results as they are finished. Within `work`, `report(n)`
reports that n more networks are complete. Every process has one thread: with two threads, a training step
took 6 to 1,000 times longer while another process ran on the same two cores.
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
Report = Callable[[Any], object]  # receives numbers of networks, or what else the work reports
Work = Callable[[Job, Report], Result]

_reports: "SimpleQueue[Any] | None" = None  # in a worker process: the queue of reports to its parent


def fix_rounding() -> None:
    """Make matrix products of MKL independent of where in memory a network is, until the process ends.

    Without this, products of odd widths depend in the last bit on the position of a network in its stack. It costs no
    time. MKL reads the setting at its first product, so this must be called before any computation.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO")


def run_in_processes(jobs: Sequence[Job], work: Work[Job, Result], workers: int, report: Report) -> Iterator[Result]:
    """Run jobs in worker processes, or in this process if `workers` is 1."""
    if workers == 1:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield from (work(job, report) for job in jobs)
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
                    report(reports.get())
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise AsymZooError(
                "workers: a worker process ended before its work was done; if memory is short, use fewer workers; "
                'in a script, call this under `if __name__ == "__main__":`'
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
    """End this worker when its parent ends: a parent that is killed cannot shut down its pool."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_any([parent.sentinel])
    os._exit(1)


def _work_in_process(job: Job, work: Work[Job, Result]) -> Result:
    assert _reports is not None
    return work(job, _reports.put)


def run_on_ray(jobs: Sequence[Job], work: Work[Job, Result], report: Report) -> Iterator[Result]:
    """Run jobs on the Ray cluster at `RAY_ADDRESS`, or on a local one; progress is reported when a job is complete.

    All nodes must share the folder of the zoo, and the folders of modules that are not installed.
    """
    try:
        import ray
    except ImportError:
        raise AsymZooError("workers: ray is not installed; pip install 'asymzoo[ray]', or use processes") from None
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)

    @ray.remote(num_cpus=1)
    def remote(job: bytes, path: Sequence[str]) -> tuple[Result, int]:
        import torch

        torch.set_num_threads(1)
        # The job is unpickled in the next line, and may need modules from these folders.
        sys.path.extend(folder for folder in path if folder not in sys.path)
        counts: list[int] = []
        return work(ray.cloudpickle.loads(job), counts.append), sum(counts)

    pending: list[Any] = [remote.remote(ray.cloudpickle.dumps(job), sys.path) for job in jobs]
    while pending:
        (done,), pending = ray.wait(pending)
        result, networks = ray.get(done)
        report(networks)
        yield result
