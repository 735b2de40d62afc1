"""What an architecture adds to an ordinary `nn.Module`: the names of its axes and of its activations."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from torch import nn

from zoo.parameters import Axes

Activation = Literal["gelu", "relu", "tanh"]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}


class Architecture(nn.Module):
    """A network as anyone would write it, plus two tables.

    Attributes:
        axes: for each parameter, an axis name for each dimension. `input` and `output` keep their identity;
            units of all other axes may be permuted.
        sites: for each activation, as a submodule's name, the axis that it acts on.
        whole: whether all examples are worked out together, so that batches save nothing.
    """

    axes: dict[str, Axes]
    sites: dict[str, str]
    whole: ClassVar[bool] = False

    @classmethod
    def narrow(cls, arguments: dict[str, Any], width: float) -> dict[str, Any]:
        """Return constructor arguments for hidden layers `width` times as wide."""
        raise TypeError(f"{cls.__name__} does not say how it is narrowed")
