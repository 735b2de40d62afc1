import sys

import pytest
import torch

from benchmark.cli import main

torch.set_num_threads(1)  # tests run side by side


@pytest.fixture
def asymzoo(monkeypatch, capsys):
    """A function that runs the program and returns exit code, output and errors."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["asymzoo", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        output = capsys.readouterr()
        return exit_.value.code, output.out, output.err

    return run
