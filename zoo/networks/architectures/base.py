"""The base class of architectures: an ordinary `nn.Module` that also names its axes and its activations."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from torch import nn

from zoo.networks.parameter import Axes
from zoo.networks.roles import Role, named_tensors

Activation = Literal["gelu", "relu", "tanh"]
Sites = dict[str, tuple[str, str]]  # by submodule: the axis it acts on, and the name of its class
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}


def norm_axes(norm: nn.Module, name: str, axis: str) -> dict[str, Axes]:
    """Return the axes of a norm's parameters, and of the running statistics of batch norm."""
    return {f"{name}.{tensor}": (axis,) for tensor in named_tensors(norm)}


class Architecture(nn.Module):
    """An ordinary network with two tables: `axes` and `sites`.

    Two conventions hold for every architecture:

    - Units are dimension 1 of every activation: `(B, units)` or `(B, units, height, width)`.
    - `input` and `output` are the axis names whose units are never permuted. The units of all other axes may be.

    Attributes:
        axes: Axes of the dimensions of each parameter, by the parameter's name, see `zoo.networks.parameter`.
        roles: Roles of parameters that belong to no layer or norm of PyTorch, by name, see `Parameter`.
        sites: Axis that each activation acts on, by the name of the activation's submodule.
        whole: Whether one forward pass computes every example (a full graph), so that batching does not help.
        data_dir: Folder of files that the network itself reads, such as a graph. It is set before the network runs.
        later: Names of constructor arguments that were added after the architecture was published. Recipes store them
            only if they are not at their default.
    """

    axes: dict[str, Axes]
    roles: Mapping[str, Role] = MappingProxyType({})
    sites: dict[str, str]
    whole: ClassVar[bool] = False
    data_dir: Path | None = None
    later: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def narrow(cls, arguments: dict[str, Any], width: float) -> dict[str, Any]:
        """Return the constructor arguments of a network whose hidden layers are `width` times as wide."""
        raise TypeError(f"{cls.__name__} has no method `narrow`; add it, or leave out treatments of the kind narrow")


def sites_of(module: nn.Module) -> Sites:
    """Return the axis and the class name, such as `ReLU`, of each activation of a module.

    Raises:
        ValueError: If a name in `sites` is not that of a submodule.
    """
    sites: dict[str, str] = getattr(module, "sites", None) or {}
    try:
        return {site: (axis, type(module.get_submodule(site)).__name__) for site, axis in sites.items()}
    except AttributeError as error:
        raise ValueError(f"sites: {error}") from None
