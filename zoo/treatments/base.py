"""What a treatment is: the identity, of which each treatment overrides what differs.

What trains is `theta`; what the network uses is `row = constants + scale * theta`, with an activation for each
site of the architecture and a decay for each parameter. Rows, in memory and on disk, are always what the network uses.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zoo.errors import RecipeError
from zoo.networks.architectures import Architecture, architecture_of, sites_of
from zoo.networks.architectures.base import Sites
from zoo.networks.parameters import ParameterLayout
from zoo.networks.stack import Stack
from zoo.stored import Stored

Held = dict[str, Tensor]
F_OF = "F/"  # before the name of an activation site, in what is held


class Treatment(Stored):
    """A symmetry treatment; its fields are the arguments that a recipe gives it.

    Arguments:
        kind: the treatment's name in `zoo.treatments.TREATMENTS`.
    """

    kind: str

    @property
    def shares(self) -> bool:
        """Whether what it holds constant is the same in all networks of a zoo, not drawn for each pair."""
        return True

    def architecture(self, name: str, arguments: dict[str, Any]) -> Architecture:
        """Construct the network that is treated."""
        return architecture_of(name)(**arguments)

    def hold(self, layout: ParameterLayout, sites: Mapping[str, str], seed: int, *pair: int) -> Held:
        """Return all that the treatment holds constant in a zoo, or in the networks of one pair, by name.

        `mask` (P,), true where entries train; `constants` (P,), added to `theta`; `decay` (P,), factors on the
        weight decay; and whatever `activations` wants. What is left out is the identity.
        """
        return {}

    def holds(self, sites: Mapping[str, str]) -> set[str]:
        """Return the names of what `hold` returns."""
        return set()

    def activations(self, held: Held) -> dict[str, nn.Module]:
        """Return the modules that replace activations, by site."""
        return {}

    def start(
        self, initial: Float[Tensor, " parameters"], layout: ParameterLayout, seed: int, pair: int
    ) -> Float[Tensor, " parameters"]:
        """Return the initial `theta` of a pair, from the numbers that all treatments of the pair share."""
        return initial

    def build(self, name: str, arguments: dict[str, Any], data_dir: Path | None = None) -> Architecture:
        """Construct the network that is treated, ready to run, with its own activations.

        Raises:
            RecipeError: if the architecture is unknown or does not take the arguments.
        """
        try:
            module = self.architecture(name, arguments).eval()
        except (TypeError, ValueError, RuntimeError) as error:  # what a constructor makes of arguments
            raise RecipeError(f"architecture: {name}: {str(error).partition(chr(10))[0]}; correct it") from error
        module.data_dir = data_dir
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module


@dataclass(frozen=True)
class Treated:
    """An architecture under a treatment: all that is needed to train, run and store its networks.

    Attributes:
        layout: of its rows.
        sites: axis and module of each activation, see `zoo.networks.architectures.sites_of`.
        held: what the treatment holds constant, see `Treatment.hold`; if `own`, each tensor has the networks as its
            first dimension.
        build: returns the module; see `module`.
        own: whether what is held differs between the K networks that this is about.
    """

    layout: ParameterLayout
    sites: Sites
    held: Held
    build: Callable[[], nn.Module]
    own: bool = False

    @classmethod
    def of(
        cls,
        treatment: Treatment,
        name: str,
        arguments: dict[str, Any],
        *,
        seed: int = 0,
        held: Held | None = None,
        pairs: tuple[int, ...] = (0,),
        data_dir: Path | None = None,
    ) -> "Treated":
        """Treat the architecture called `name`.

        Arguments:
            treatment, name, arguments: what is treated, and how.
            seed: from which what is held is drawn.
            held: what a zoo holds, instead.
            pairs: whose networks these are; it matters only to treatments that hold something for each pair.
            data_dir: folder of files that the network itself reads, such as a graph.

        Raises:
            RecipeError: if the treatment does not fit the architecture.
        """
        module = treatment.build(name, arguments, data_dir)
        try:
            layout, sites = ParameterLayout.of(module), sites_of(module)
            if unknown := [site for site, (axis, _) in sites.items() if axis not in layout.axes]:
                raise ValueError(f"sites: {unknown[0]} acts on {module.sites[unknown[0]]!r}, an axis of no parameter")
        except ValueError as error:
            raise RecipeError(f"architecture: {name}: {error}") from None
        own = not treatment.shares
        if held is None and own:
            each = [treatment.hold(layout, module.sites, seed, pair) for pair in pairs]
            held = {key: torch.stack([one[key] for one in each]) for key in each[0]}
        elif held is None:
            held = treatment.hold(layout, module.sites, seed)
        activate(module, treatment, held, own)
        return cls(layout, sites_of(module), held, lambda: module, own)

    @cached_property
    def module(self) -> nn.Module:
        """The network, its activations replaced; the values of its own parameters do not matter.

        It is built when it is first needed: a zoo can be read without the architecture's code.
        """
        return self.build()

    @property
    def activations(self) -> dict[str, str]:
        """By axis, the name of the module that acts on it, such as `ReLU`."""
        return dict(self.sites.values())

    @cached_property
    def scale(self) -> Tensor | None:
        """Of `row = constants + scale * theta`, `(P,)` or `(K, P)`; None, as are `constants`, for the identity."""
        mask, constants = self.held.get("mask"), self.held.get("constants")
        if mask is None:
            return None if constants is None else torch.ones_like(constants)
        return mask.to(torch.float32 if constants is None else constants.dtype)

    @cached_property
    def constants(self) -> Tensor | None:
        """Of `row = constants + scale * theta`, `(P,)` or `(K, P)`."""
        constants = self.held.get("constants")
        return torch.zeros_like(self.scale) if constants is None and self.scale is not None else constants

    @property
    def decay(self) -> Tensor:
        """Factors on the weight decay, `(P,)`, `(K, P)` or `(1,)`."""
        return self.held.get("decay", torch.ones(1))

    @property
    def buffers(self) -> dict[str, Tensor]:
        """Buffers of the module that differ between the K networks, `(K, *shape)` by name; see `Stack`."""
        if not self.own:
            return {}
        return {f"{key.removeprefix(F_OF)}.F": F for key, F in self.held.items() if key.startswith(F_OF)}

    @property
    def trainable(self) -> Bool[Tensor, "*networks parameters"]:
        """Which columns train, `(P,)` or `(K, P)`."""
        return torch.ones(self.layout.size, dtype=torch.bool) if self.scale is None else self.scale.cpu() != 0

    def stack(self, rows: Float[Tensor, "networks parameters"]) -> Stack:
        """Return networks, ready to run, of their rows."""
        return Stack(rows, self.module, self.layout, self.buffers)

    def take(self, which: Bool[Tensor, " networks"] | Int[Tensor, " some"]) -> "Treated":
        """Return it for some of its networks, by a mask `(K,)` or their numbers."""
        return replace(self, held={key: held[which] for key, held in self.held.items()}) if self.own else self

    def rows(self, theta: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks parameters"]:
        """Return what the networks use, `constants + scale * theta`; fixed entries are exactly the constants."""
        if self.constants is None or self.scale is None:
            return theta
        return torch.addcmul(self.constants, self.scale, theta)

    def thetas(self, start: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks parameters"]:
        """Return `start` with zeros at fixed entries, where nothing trains and nothing decays."""
        return start if self.scale is None else start * self.scale

    def thetas_of(self, rows: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks parameters"]:
        """Return what trains of networks, the inverse of `rows`."""
        return self.thetas(rows if self.constants is None else rows - self.constants)

    def to(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "Treated":
        """Return a copy on a device, in a precision."""
        held = {key: t.to(device, dtype if t.is_floating_point() else None) for key, t in self.held.items()}
        return replace(self, held=held, build=lambda: copy.deepcopy(self.module).to(device, dtype))


def activate(module: nn.Module, treatment: Treatment, held: Held, own: bool) -> None:
    """Replace a module's activations by the treatment's; if `own`, by those of the first network."""
    first = {key: tensor[0] for key, tensor in held.items()} if own else held
    for site, activation in treatment.activations(first).items():
        module.set_submodule(site, activation)
