"""What a treatment is: the identity, of which each treatment overrides what differs.

What trains is `theta`; what the network uses is `row = constants + scale * theta`, with an activation for each
site of the architecture and a decay for each parameter. Rows, in memory and on disk, are always what the network uses.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from zoo.architectures import ARCHITECTURES, Architecture
from zoo.parameters import ParameterLayout

Held = dict[str, Tensor]


class Treatment(BaseModel):
    """A symmetry treatment; its fields are the arguments that a recipe gives it.

    Arguments:
        kind: the treatment's name in `zoo.treatments.TREATMENTS`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: str

    def architecture(self, name: str, arguments: dict[str, Any]) -> Architecture:
        """Construct the network that is treated."""
        return ARCHITECTURES[name](**arguments)

    def hold(self, layout: ParameterLayout, sites: Mapping[str, str], seed: int) -> Held:
        """Return all that the treatment holds constant in a zoo, by name.

        `mask` (P,), false at fixed entries; `constants` (P,), added to `theta`; `decay` (P,), factors on the
        weight decay; and whatever `activations` wants. What is left out is the identity.
        """
        return {}

    def activations(self, held: Held) -> dict[str, nn.Module]:
        """Return the modules that replace activations, by site."""
        return {}

    def start(
        self, initial: Float[Tensor, " parameters"], layout: ParameterLayout, seed: int, pair: int
    ) -> Float[Tensor, " parameters"]:
        """Return the initial `theta` of a pair, from the numbers that all treatments of the pair share."""
        return initial


@dataclass(frozen=True)
class Treated:
    """An architecture under a treatment: all that is needed to train, run and store its networks.

    Attributes:
        module: the network, its activations replaced; the values of its own parameters do not matter.
        layout: of its rows.
        held: what the treatment holds constant, see `Treatment.hold`.
        constants, scale: `(P,)`, of `row = constants + scale * theta`; both None for the identity.
        decay: factors on the weight decay, `(P,)` or `(1,)`.
    """

    module: nn.Module
    layout: ParameterLayout
    held: Held
    constants: Tensor | None
    scale: Tensor | None
    decay: Tensor

    @classmethod
    def of(
        cls, treatment: Treatment, name: str, arguments: dict[str, Any], *, seed: int = 0, held: Held | None = None
    ) -> "Treated":
        """Treat the architecture called `name`, drawing what is held from `seed`, or with what a zoo `held`."""
        module = treatment.architecture(name, arguments).eval()
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        layout = ParameterLayout.of(module)
        held = treatment.hold(layout, module.sites, seed) if held is None else held
        for site, activation in treatment.activations(held).items():
            module.set_submodule(site, activation)
        constants, scale = held.get("constants"), held.get("mask")
        if constants is not None or scale is not None:
            constants = torch.zeros(layout.size) if constants is None else constants
            scale = torch.ones(layout.size) if scale is None else scale.to(constants.dtype)
        return cls(module, layout, held, constants, scale, held.get("decay", torch.ones(1)))

    @property
    def trainable(self) -> Bool[Tensor, " parameters"]:
        """Which columns train."""
        return torch.ones(self.layout.size, dtype=torch.bool) if self.scale is None else self.scale.cpu() != 0

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

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, dtype)

        return replace(
            self,
            module=copy.deepcopy(self.module).to(device, dtype),
            constants=move(self.constants),
            scale=move(self.scale),
            decay=self.decay.to(device, dtype),
        )
