"""What an architecture adds to an ordinary `nn.Module`: the names of its axes and of its activations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import nn

from zoo.networks.parameters import Axes

Activation = Literal["gelu", "relu", "tanh"]
Sites = dict[str, tuple[str, str]]  # axis and module, by the name of the submodule
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}


class Architecture(nn.Module):
    """A network as anyone would write it, plus two tables.

    Units are dimension 1 of every activation: `(B, units)` or `(B, units, height, width)`.

    Attributes:
        axes: for each parameter, an axis name for each dimension. `input` and `output` keep their identity;
            units of all other axes may be permuted.
        sites: for each activation, as a submodule's name, the axis that it acts on.
        whole: whether one forward pass computes every example (a whole graph), so that batches save nothing.
        data_dir: folder of files that the network itself reads, such as a graph; set before it runs.
        later: arguments of the constructor that came after it was first published, which recipes store only where
            they are not at their default.
    """

    axes: dict[str, Axes]
    sites: dict[str, str]
    whole: ClassVar[bool] = False
    data_dir: Path | None = None
    later: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def narrow(cls, arguments: dict[str, Any], width: float) -> dict[str, Any]:
        """Return constructor arguments for hidden layers `width` times as wide."""
        raise TypeError(f"{cls.__name__} has no method `narrow`; add it, or leave out the treatment of that kind")


def sites_of(module: nn.Module) -> Sites:
    """Return for each activation site its axis, and the name of the module that acts there, such as `ReLU`.

    Raises:
        ValueError: if a site is no submodule.
    """
    sites: dict[str, str] = getattr(module, "sites", None) or {}
    try:
        return {site: (axis, type(module.get_submodule(site)).__name__) for site, axis in sites.items()}
    except AttributeError as error:
        raise ValueError(f"sites: {error}") from None
