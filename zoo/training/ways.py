"""Ways to compute the gradients of a stack, by name; on a GPU, the fastest one for convolutions is measured."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from zoo.networks.convolutions import stream_gradient, unfold_convolutions
from zoo.networks.stack import Stack, stack_gradient

Gradient = Callable[[Stack, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def unfolded_gradient(module: nn.Module) -> Gradient:
    """Return `stack_gradient` with unfolded convolutions."""
    unfolded = unfold_convolutions(module)

    def gradient(stack: Stack, x: Tensor, y: Tensor, smoothing: Tensor) -> tuple[Tensor, Tensor]:
        unfolded.train(stack.module.training)
        return stack_gradient(replace(stack, module=unfolded), x, y, smoothing)

    return gradient


# By the names in `Treated.way`. Given the module, each returns a function with the arguments of `stack_gradient`.
WAYS: dict[str, Callable[[nn.Module], Gradient]] = {
    "torch": lambda module: stack_gradient,
    "torch unfolded": unfolded_gradient,
    "torch streams": lambda module: stream_gradient,
}
