import os
import select
import subprocess
import sys
import threading

import pytest

from zoo.errors import AsymZooError
from zoo.training.workers import Report, run_in_processes

PATIENCE = 60  # seconds until a worker that goes on is one too many


def never_end(pipe: str, report: Report) -> None:
    """Report that work has begun, and keep the pipe open as long as the process lives."""
    os.write(os.open(pipe, os.O_WRONLY), b"begun\n")
    threading.Event().wait()


def end_at_once(job: int, report: Report) -> None:
    os._exit(job)


def run_for_ever(pipe: str) -> None:
    list(run_in_processes([pipe, pipe], never_end, 2, lambda networks: None))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = f"from tests.zoo.training.test_workers import run_for_ever; run_for_ever({str(pipe)!r})"
    with subprocess.Popen([sys.executable, "-c", f"if __name__ == '__main__':\n    {code}"]) as parent:
        with pipe.open("rb", buffering=0) as end:
            assert end.read(6) == b"begun\n"
            parent.kill()
            while select.select([end], [], [], PATIENCE)[0]:
                if not end.read(64):  # the last worker has closed it
                    return
        pytest.fail("a worker goes on")


@pytest.mark.slow
def test_a_worker_that_ends_early_is_an_error_in_one_line():
    with pytest.raises(AsymZooError, match="a worker process ended before its work was done; if memory is short, use"):
        list(run_in_processes([3, 3], end_at_once, 2, lambda networks: None))
