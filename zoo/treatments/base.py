"""The base class of treatments, and an architecture under a treatment (`Treated`).

Training changes `theta`. The network uses `row = constants + scale * theta`, with an activation at each site of the
architecture and a factor on the weight decay of each entry. The base class changes nothing; a subclass overrides what
it changes. Rows, in memory and on disk, always hold what the network uses.
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
from zoo.networks.stack import Stack, kernel_format
from zoo.stored import Stored

Held = dict[str, Tensor]  # what a treatment holds constant, by name; see `Treatment.hold`
F_OF = "F/"  # prefix of the name of an activation's matrix, before the name of its site


class Treatment(Stored):
    """A way to train networks that keeps or removes parameter symmetry; its fields are arguments in a recipe.

        >>> recipe = Recipe.load("digits-mlp")
        >>> recipe.treatments["w_asymmetric"].kind
        'w_asymmetric'
        >>> treated = recipe.treat("w_asymmetric")
        >>> int(treated.mask.sum()), treated.layout.size  # entries that train, entries
        (2746, 3594)

    Arguments:
        kind: Name of the treatment in `zoo.treatments.TREATMENTS`.
    """

    kind: str

    @property
    def shares(self) -> bool:
        """Whether all networks of a zoo have the same constants; otherwise these are drawn for each pair."""
        return True

    def architecture(self, name: str, arguments: dict[str, Any]) -> Architecture:
        """Construct the architecture `name`, before activations are replaced."""
        return architecture_of(name)(**arguments)

    def hold(self, layout: ParameterLayout, sites: Mapping[str, str], seed: int, *pair: int) -> Held:
        """Draw what the treatment holds constant, in all networks of a zoo or in those of one pair.

        Arguments:
            layout: Layout of the networks.
            sites: Axis of each activation site.
            seed: Seed of the recipe.
            pair: Number of the pair, if constants are drawn for each pair.

        Returns:
            Tensors by name: `mask` `(P,)`, true where entries train; `constants` `(P,)`, added to `theta`; `decay`
            `(P,)`, factors on the weight decay; and what `activations` needs. Without one of these, all entries train,
            nothing is added, or the factors are 1.
        """
        return {}

    def holds(self, sites: Mapping[str, str]) -> set[str]:
        """Return the names of the tensors that `hold` returns."""
        return set()

    def activations(self, held: Held) -> dict[str, nn.Module]:
        """Return the modules that replace activations, by site, given what `hold` returned."""
        return {}

    def start(
        self, initial: Float[Tensor, " parameters"], layout: ParameterLayout, seed: int, pair: int
    ) -> Float[Tensor, " parameters"]:
        """Return the initial `theta` of a pair.

        Arguments:
            initial: Initial values that all treatments of the pair share.
            layout: Layout of the network.
            seed: Seed of the recipe.
            pair: Number of the pair.
        """
        return initial

    def build(self, name: str, arguments: dict[str, Any], data_dir: Path | None = None) -> Architecture:
        """Construct the architecture `name` in evaluation mode, with the activations of the architecture.

        Raises:
            RecipeError: If the architecture is unknown, or its constructor refuses the arguments.
        """
        try:
            module = self.architecture(name, arguments).eval()
        except (TypeError, ValueError, RuntimeError) as error:  # raised by the constructor for wrong arguments
            raise RecipeError(f"architecture: {name}: {str(error).partition(chr(10))[0]}; correct it") from error
        module.data_dir = data_dir
        module.to(memory_format=kernel_format(module))  # type: ignore[call-overload]
        return module


@dataclass(frozen=True)
class Treated:
    """An architecture under a treatment: what is needed to train, run and store its networks.

    Attributes:
        layout: Layout of the rows.
        sites: Axis and class of each activation, see `zoo.networks.architectures.sites_of`.
        held: What the treatment holds constant, see `Treatment.hold`. If `own` is true, the first dimension of each
            tensor is the networks.
        build: Function that constructs the module; see `module`.
        own: Whether each of K networks has its own constants.
        way: How gradients of a stack are computed, see `zoo.training.ways`.
    """

    layout: ParameterLayout
    sites: Sites
    held: Held
    build: Callable[[], nn.Module]
    own: bool = False
    way: str = "torch"

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
        """Return an architecture under a treatment.

        Arguments:
            treatment: Treatment to apply.
            name: Name of the architecture.
            arguments: Arguments of its constructor.
            seed: Seed from which constants are drawn.
            held: Constants that were drawn before, such as those stored in a zoo; by default they are drawn.
            pairs: Numbers of the pairs, if the treatment draws constants for each pair.
            data_dir: Folder of files that the network itself reads, such as a graph.

        Raises:
            RecipeError: If the treatment does not fit the architecture.
        """
        module = treatment.build(name, arguments, data_dir)
        try:
            layout, sites = ParameterLayout.of(module), sites_of(module)
            if unknown := [site for site, (axis, _) in sites.items() if axis not in layout.axes]:
                fact = f"{unknown[0]} acts on {module.sites[unknown[0]]!r}, which is not an axis of any parameter"
                raise ValueError(f"sites: {fact}; correct its name")
        except ValueError as error:
            raise RecipeError(f"architecture: {name}: {error}") from None
        own = not treatment.shares
        if held is None and own:
            by_pair = [treatment.hold(layout, module.sites, seed, pair) for pair in pairs]
            held = {key: torch.stack([constants[key] for constants in by_pair]) for key in by_pair[0]}
        elif held is None:
            held = treatment.hold(layout, module.sites, seed)
        activate(module, treatment, held, own)
        return cls(layout, sites_of(module), held, lambda: module, own)

    @cached_property
    def module(self) -> nn.Module:
        """Module of the network, with the activations of the treatment. The values of its parameters do not matter.

        It is built when it is first used, so that a zoo can be read without the code of its architecture.
        """
        return self.build()

    @property
    def activations(self) -> dict[str, str]:
        """Class of the activation, such as `ReLU`, by the axis that it acts on."""
        return dict(self.sites.values())

    @cached_property
    def scale(self) -> Tensor | None:
        """Scale in `row = constants + scale * theta`, `(P,)` or `(K, P)`.

        It is None, and so are `constants`, if a row is `theta` itself.
        """
        mask, constants = self.held.get("mask"), self.held.get("constants")
        if mask is None:
            return None if constants is None else torch.ones_like(constants)
        return mask.to(torch.float32 if constants is None else constants.dtype)

    @cached_property
    def constants(self) -> Tensor | None:
        """Constants in `row = constants + scale * theta`, `(P,)` or `(K, P)`; None if a row is `theta` itself."""
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
    def mask(self) -> Bool[Tensor, "*networks parameters"]:
        """Mask of the entries of a row, `(P,)` or `(K, P)`: true unless they are held constant."""
        return torch.ones(self.layout.size, dtype=torch.bool) if self.scale is None else self.scale.cpu() != 0

    @property
    def trainable(self) -> Bool[Tensor, "*networks parameters"]:
        """Mask of the entries that gradients train: those of `mask` without the running statistics of batch norm."""
        return self.mask & self.layout.learned

    def stack(self, rows: Float[Tensor, "networks parameters"]) -> Stack:
        """Return a stack of networks, ready to run, from their rows."""
        return Stack(rows, self.module, self.layout, self.buffers)

    def take(self, which: Bool[Tensor, " networks"] | Int[Tensor, " some"]) -> "Treated":
        """Return the treated architecture of only some of the K networks, selected by a mask `(K,)` or positions."""
        return replace(self, held={key: held[which] for key, held in self.held.items()}) if self.own else self

    def to_rows(self, theta: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks parameters"]:
        """Return `constants + scale * theta`, which the networks use; fixed entries equal the constants exactly."""
        if self.constants is None or self.scale is None:
            return theta
        return torch.addcmul(self.constants, self.scale, theta)

    def keep_trainable(self, values: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks parameters"]:
        """Return values with zeros at fixed entries, so that these neither train nor decay.

        The values may be a `theta`, or the gradient of rows: multiplied by `scale`, that is the gradient of `theta`.
        """
        return values if self.scale is None else values * self.scale

    def from_rows(self, rows: Float[Tensor, "networks parameters"]) -> Float[Tensor, "networks parameters"]:
        """Return the `theta` of rows, with zeros at fixed entries: the inverse of `to_rows`."""
        return self.keep_trainable(rows if self.constants is None else rows - self.constants)

    def to(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "Treated":
        """Return a copy on a device and in a precision."""
        held = {key: t.to(device, dtype if t.is_floating_point() else None) for key, t in self.held.items()}
        return replace(self, held=held, build=lambda: copy.deepcopy(self.module).to(device, dtype))


def activate(module: nn.Module, treatment: Treatment, held: Held, own: bool) -> None:
    """Replace the activations of a module by those of a treatment.

    If each network has its own constants (`own`), the module gets those of the first network, or zeros if there is no
    network. A `Stack` then puts in those of each network.
    """
    if own:
        held = {key: tensor[0] if len(tensor) else tensor.new_zeros(tensor.shape[1:]) for key, tensor in held.items()}
    for site, activation in treatment.activations(held).items():
        module.set_submodule(site, activation)
