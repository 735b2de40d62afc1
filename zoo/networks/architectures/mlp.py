"""Multilayer perceptrons."""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from zoo.networks.architectures.base import ACTIVATIONS, Activation, Architecture


class Layer(nn.Module):
    """A linear map, then a norm, then an activation."""

    def __init__(self, inputs: int, outputs: int, norm: str, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.LayerNorm(outputs) if norm == "layer" else nn.Identity()
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, inputs)` to `(B, outputs)`."""
        return self.activation(self.norm(self.linear(x)))


class MLP(Architecture):
    """A multilayer perceptron on flattened inputs.

    Arguments:
        widths: Number of units of every layer, from the inputs to the classes, such as `(64, 32, 32, 10)`.
        norm: Norm before each activation: `layer` is LayerNorm, `none` is no norm.
        activation: Activation after each hidden layer.

    Example:
        >>> sum(p.numel() for p in MLP([784, 512, 512, 512, 10]).parameters())
        935434
    """

    def __init__(
        self,
        widths: Annotated[Sequence[PositiveInt], Field(min_length=2)],
        norm: Literal["layer", "none"] = "layer",
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        *hidden, outputs = widths
        self.hidden = nn.ModuleList(Layer(i, o, norm, activation) for i, o in itertools.pairwise(hidden))
        self.output = nn.Linear(hidden[-1], outputs)

        self.axes = {}
        units = "input"
        for i in range(len(self.hidden)):
            self.axes[f"hidden.{i}.linear.weight"] = (f"hidden{i}", units)
            units = f"hidden{i}"
            self.axes[f"hidden.{i}.linear.bias"] = (units,)
            if norm == "layer":
                self.axes |= {f"hidden.{i}.norm.weight": (units,), f"hidden.{i}.norm.bias": (units,)}
        self.axes |= {"output.weight": ("output", units), "output.bias": ("output",)}
        self.sites = {f"hidden.{i}.activation": f"hidden{i}" for i in range(len(self.hidden))}

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs `(B, ...)` to logits `(B, classes)`."""
        x = x.flatten(1)
        for layer in self.hidden:
            x = layer(x)
        return self.output(x)

    @classmethod
    def narrow(cls, arguments: dict[str, Any], width: float) -> dict[str, Any]:
        """Multiply the units of the hidden layers by `width`, rounded to the nearest integer."""
        first, *hidden, last = arguments["widths"]
        return arguments | {"widths": [first, *(max(1, round(width * units)) for units in hidden), last]}
