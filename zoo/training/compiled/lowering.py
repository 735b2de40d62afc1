"""Lowers an ordinary module to a program.

`torch.fx` traces the module, and each of its operations becomes a record of the program. So there is no second
description of a network; a module with an operation that is not known here is not lowered.
"""

import operator
from dataclasses import dataclass, replace
from typing import Any

import jaxtyping
import numpy as np
import torch
from torch import fx, nn

from zoo.networks.parameters import ParameterLayout
from zoo.training.compiled.lanes import LANES
from zoo.training.compiled.layers import COPY, FIGLU, FIRST, GELU, LINEAR, NORM, RELU, SUM, TANH, padded
from zoo.training.compiled.program import OP, PLACES, Program
from zoo.treatments import Treated
from zoo.treatments.sigma_asymmetric import FiGLU

MODULES: dict[type[nn.Module], int] = {
    nn.Linear: LINEAR,
    nn.LayerNorm: NORM,
    nn.GELU: GELU,
    nn.ReLU: RELU,
    nn.Tanh: TANH,
    FiGLU: FIGLU,
}
FUNCTIONS: dict[Any, int] = {
    nn.functional.gelu: GELU,
    nn.functional.relu: RELU,
    torch.relu: RELU,
    torch.tanh: TANH,
    operator.add: SUM,
    torch.add: SUM,
}
METHODS = {"relu": RELU, "tanh": TANH, "add": SUM}
PLAIN = {"inplace": False, "approximate": "none", "alpha": 1}  # keyword arguments that change nothing


class NotLoweredError(Exception):
    """A module has an operation that is not known here."""


def lower(treated: Treated, shape: tuple[int, ...], batch: int) -> Program | None:
    """Return the program of a network, or None if it has an operation that is not known here.

    Tracing does not see everything, see `zoo.training.compiled.checking`.

    Arguments:
        treated: Architecture and treatment of the network.
        shape: Shape of an example.
        batch: Number of examples in a minibatch.
    """
    graph = _trace(treated.module)
    try:
        return None if graph is None else _Lowering(treated, graph, shape, batch).run()
    except NotLoweredError:
        return None


def _trace(module: nn.Module) -> fx.Graph | None:
    checked = not jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)  # what goes through the module is not a tensor
    try:
        return _Leaves().trace(module)
    except Exception:  # tracing runs code of the module, which may raise anything
        return None
    finally:
        jaxtyping.config.update("jaxtyping_disable", not checked)


class _Leaves(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in MODULES or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True)
class Value:
    """A value in the network.

    Attributes:
        units: Number of units.
        place: Place of its numbers.
        gradient: Place of their gradient; -1 for the input of the network.
        copied: Whether another value has the same place.
    """

    units: int
    place: int
    gradient: int
    copied: bool = False


class _Lowering:
    """Walks once through a traced graph. Every use of a value has a `Value` of its own."""

    def __init__(self, treated: Treated, graph: fx.Graph, shape: tuple[int, ...], batch: int) -> None:
        self.module, self.graph = treated.module, graph
        self.inputs, self.examples = int(np.prod(shape)), _padded(batch)
        self.ops: list[dict[str, Any]] = []
        self.values: dict[fx.Node, list[Value]] = {}
        self.mixed: dict[str, int] = {}
        self.work = self.mixing = 0
        modules = (str(node.target) for node in graph.nodes if node.op == "call_module")
        first = next((name for name in modules if type(self.module.get_submodule(name)) is nn.Linear), "")
        self.weights, self.places, self.size = _place_weights(treated.layout, f"{first}.weight")

    def run(self) -> Program:
        """Return the program."""
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self.give(node, Value(self.inputs, -1, -1))
            elif node.op == "output":
                _require(self.take(node.args[0]).gradient >= 0)
            elif self.keeps_numbers(node):
                self.give(node, self.take(node.args[0]))
            else:
                self.give(node, self.apply(node))
        ops = np.zeros(len(self.ops), OP)
        for record, op in zip(ops, self.ops, strict=True):
            for name, number in (dict.fromkeys(PLACES, -1) | op).items():
                record[name] = number
        return Program(ops, self.places, self.size, self.work, self.mixed)

    def take(self, node: Any) -> Value:
        """Return the value of a node for one of its uses."""
        _require(isinstance(node, fx.Node))
        return self.values[node].pop()

    def give(self, node: fx.Node, value: Value) -> None:
        """Record the value of a node, with a copy for every use; the backward pass adds the gradients of copies."""
        uses = sum(argument is node for user in node.users for argument in user.args)
        _require(uses == 1 or (uses > 1 and value.gradient >= 0))
        values = self.values[node] = []
        while uses > len(values) + 1:
            first = replace(value, copied=True)
            value, whole = replace(first, gradient=self.room(value.units)), value
            self.emit(COPY, whole, first, d_other=value.gradient)
            values.append(first)
        values.append(value)

    def keeps_numbers(self, node: fx.Node) -> bool:
        """Return whether a node only flattens its input, or does nothing."""
        if node.op == "call_module":
            module: Any = self.module.get_submodule(str(node.target))
            flattens = type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
            return flattens or isinstance(module, nn.Identity)
        flattens = node.target in ("flatten", torch.flatten)
        return flattens and (node.args[1:] == (1,) or dict(node.kwargs) == {"start_dim": 1})

    def apply(self, node: fx.Node) -> Value:
        """Add the operation of a node, and return its value."""
        name, module = str(node.target), None
        if node.op == "call_module":
            module = self.module.get_submodule(name)
            _require(not (module._forward_hooks or module._forward_pre_hooks))
            kind = MODULES.get(type(module))
        else:
            kind = METHODS.get(name) if node.op == "call_method" else FUNCTIONS.get(node.target)
        _require(kind is not None and len(node.args) == 1 + (kind == SUM))
        _require(all(PLAIN.get(key) == given for key, given in node.kwargs.items()))
        value = self.take(node.args[0])
        _require(value.gradient >= 0 or kind == LINEAR)
        if kind == LINEAR:
            return self.linear(name, module, value)
        if kind == NORM:
            return self.norm(name, module, value)
        if kind == FIGLU:
            return self.figlu(name, value)
        return self.sum(value, self.take(node.args[1])) if kind == SUM else self.activation(kind, module, value)

    def linear(self, name: str, module: Any, value: Value) -> Value:
        _require(module.in_features == value.units)
        units, saved = module.out_features, self.room(value.units)
        out = Value(units, self.room(units), self.room(units))
        if value.gradient < 0:
            self.emit(FIRST, value, out, saved=saved, transposed=self.room(units), **self.parameters(name))
        else:
            self.emit(LINEAR, value, out, saved=saved, **self.parameters(name))
        return out

    def norm(self, name: str, module: Any, value: Value) -> Value:
        places = self.parameters(name)
        _require(module.normalized_shape == (value.units,) and min(places.values()) >= 0)
        _require(module.eps >= float(np.finfo(np.float32).tiny))  # or zeros that fill up a block would become NaN
        out = replace(value, place=self.room(value.units), copied=False)
        self.emit(NORM, value, out, saved=self.kept(value), scales=self.room(1), epsilon=module.eps, **places)
        return out

    def figlu(self, name: str, value: Value) -> Value:
        out = replace(value, place=self.room(value.units), copied=False)
        if name not in self.mixed:  # a module may be used several times
            self.mixed[name] = self.mixing
            self.mixing += value.units * _padded(value.units)
        self.emit(FIGLU, value, out, saved=self.room(value.units), weight=self.mixed[name])
        return out

    def activation(self, kind: Any, module: Any, value: Value) -> Value:
        _require(getattr(module, "approximate", "none") == "none")
        _require(not (getattr(module, "inplace", False) and value.copied))
        out = replace(value, place=self.room(value.units), copied=False)
        self.emit(kind, value, out, saved=self.kept(value))
        return out

    def sum(self, value: Value, other: Value) -> Value:
        _require(other.units == value.units and other.gradient >= 0)
        out = replace(value, place=self.room(value.units), copied=False)
        self.emit(SUM, value, out, other=other.place, d_other=other.gradient)
        return out

    def emit(self, kind: int, value: Value, out: Value, **places: Any) -> None:
        """Add an operation that turns `value` into `out`."""
        read = {"inputs": value.units, "x": value.place, "dx": value.gradient}
        written = {"outputs": out.units, "y": out.place, "dy": out.gradient}
        self.ops.append({"kind": kind, **read, **written, **places})

    def room(self, units: int) -> int:
        """Return the place of a new array for all examples of a minibatch."""
        place = self.work
        self.work += _padded(units) * self.examples
        return place

    def kept(self, value: Value) -> int:
        """Return the place of what the backward pass needs: that of the input, unless it is used elsewhere."""
        return self.room(value.units) if value.copied else value.place

    def parameters(self, module: str) -> dict[str, int]:
        """Return the places of a module's weight and bias, or -1; no other operation may use them."""
        weight = self.weights.pop(f"{module}.weight", -1)
        _require(weight >= 0)
        return {"weight": weight, "bias": self.weights.pop(f"{module}.bias", -1)}


def _place_weights(layout: ParameterLayout, first: str) -> tuple[dict[str, int], Any, int]:
    """Return the places of parameters by name, those of every entry of a row, and the length of a padded row.

    The weight `first` lies transposed, in panels of 16 units; the rows of others are padded.
    """
    starts, places, size = {}, np.zeros(layout.size, np.int64), 0
    for parameter in layout.parameters:
        _require(len(parameter.shape) in (1, 2))
        rows, columns = (1, *parameter.shape)[-2:]
        row, column = np.divmod(np.arange(parameter.size), columns)
        if parameter.name == first:
            place, room = row // LANES * columns * LANES + column * LANES + row % LANES, _padded(rows) * columns
        else:
            place, room = row * _padded(columns) + column, rows * _padded(columns)
        starts[parameter.name], places[layout.slices[parameter.name]] = size, size + place
        size += room
    return starts, places, size


def _padded(units: int) -> int:
    return int(padded.py_func(units))


def _require(condition: bool) -> None:
    if not condition:
        raise NotLoweredError
