"""CUDA graphs: a step is recorded once, and then repeated by a single launch.

A step of a stack is some hundred kernels, each of which runs for less time than its launch takes. The step must read
and write tensors at fixed places, and nothing that changes may be a number in Python.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import warnings
from collections.abc import Callable
from functools import partial

import torch

Step = Callable[[], None]
WARM_UP = 3  # calls before the recording, in which libraries choose their kernels and memory is allocated


def repeatable(step: Step, device: torch.device) -> Step:
    """Return a function that takes a step, on a GPU as a CUDA graph from the fourth call on."""
    return _Repeated(step) if device.type == "cuda" else step


class _Repeated:
    def __init__(self, step: Step) -> None:
        self.step, self.calls, self.stream = step, 0, torch.cuda.Stream()
        self.take: Step = partial(run_aside, step, self.stream)  # holds no `self`, whose memory is free at once

    def __call__(self) -> None:
        """Take a step."""
        self.calls += 1
        if self.calls == WARM_UP + 1:
            try:
                self.take = record(self.step, self.stream).replay
            except RuntimeError as error:  # such as an own architecture that reads from the device
                fact = str(error).partition("\n")[0]
                warnings.warn(f"a training step cannot be recorded, which makes it slower: {fact}", stacklevel=2)
        self.take()


def run_aside(step: Step, stream: torch.cuda.Stream) -> None:
    """Take a step in another stream than the current one, as PyTorch wants it before a recording."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)


def record(step: Step, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
    """Return a step as a graph, without taking it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream), torch.cuda.graph(graph, stream=stream):  # the first restores the stream in any case
        step()
    return graph
