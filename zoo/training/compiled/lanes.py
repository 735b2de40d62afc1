"""Sixteen float32 numbers as one value in Numba code, and the operations on them.

A value of the type `lanes` is a vector in LLVM, whatever the width of the processor's registers. Operations are exact
or correctly rounded, and are fused only where `fma` is written, so that every processor gives the same bits. A scalar
operand stands for sixteen equal numbers and is rounded to float32.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing import signature
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16
FLOAT, INDEX, BITS, BYTE = ir.FloatType(), ir.IntType(64), ir.IntType(32), ir.IntType(8)
VECTOR, BIT_VECTOR = ir.VectorType(FLOAT, LANES), ir.VectorType(BITS, LANES)


class LanesType(types.Type):
    """Type of sixteen float32 numbers."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = LanesType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: LanesType) -> None:
        super().__init__(manager, kind, VECTOR)


# Building blocks for LLVM's vectors


def address(builder: ir.IRBuilder, data: ir.Value, at: ir.Value, kind: ir.Type = VECTOR) -> ir.Value:
    """Return a pointer to element `at` of float32 numbers."""
    return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())


def data_of(context: Any, builder: ir.IRBuilder, kind: types.Array, array: ir.Value) -> ir.Value:
    """Return the pointer to the first element of an array."""
    return context.make_array(kind)(context, builder, array).data


def splat(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    """Return sixteen times a float32 number."""
    first = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), scalar, BITS(0))
    return shuffle(builder, first, first, [0] * LANES)


def shuffle(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, order: Sequence[int]) -> ir.Value:
    """Return the given elements of two vectors; those of the second one are numbered from the length of the first."""
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(BITS, len(order)), list(order)))


def llvm_function(builder: ir.IRBuilder, name: str, *args: ir.Value) -> ir.Value:
    """Call an LLVM function of vectors."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32"), args)


def emit_prefetch(builder: ir.IRBuilder, place: ir.Value) -> None:
    """Ask the processor to fetch what lies at a pointer from memory; no address is wrong."""
    byte = BYTE.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, BITS, BITS, BITS])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(function, [builder.bitcast(place, byte), BITS(0), BITS(3), BITS(1)])  # to read, to all caches, data


Emit = Callable[..., ir.Value]  # given the builder and vectors, emits instructions and returns a vector


def _accepts(kinds: Sequence[types.Type]) -> bool:
    return all(kind == lanes or isinstance(kind, types.Number) for kind in kinds)


def _vector(context: Any, builder: ir.IRBuilder, value: ir.Value, kind: types.Type) -> ir.Value:
    return value if kind == lanes else splat(builder, context.cast(builder, value, kind, types.float32))


def _generator(emit: Emit) -> Callable[..., ir.Value]:
    """Return a code generator that turns scalar operands into vectors first."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        return emit(
            builder, *(_vector(context, builder, a, kind) for a, kind in zip(args, signature.args, strict=True))
        )

    return generate


def _unary(emit: Emit) -> Any:
    def operation(typingctx: Any, x: types.Type) -> Any:
        return (lanes(x), _generator(emit)) if _accepts((x,)) else None

    return intrinsic(operation)


def _binary(emit: Emit) -> Any:
    def operation(typingctx: Any, x: types.Type, y: types.Type) -> Any:
        return (lanes(x, y), _generator(emit)) if _accepts((x, y)) else None

    return intrinsic(operation)


# Arithmetic

sqrt = _unary(lambda builder, x: llvm_function(builder, "sqrt", x))
absolute = _unary(lambda builder, x: llvm_function(builder, "fabs", x))
negative = _unary(ir.IRBuilder.fneg)


def _define(operation: Callable[[Any, Any], Any], emit: Emit) -> None:
    """Define an operator of Python for `lanes`."""
    numbers = (lanes, types.float32, types.float64, types.int64)
    pairs = [(x, y) for x in numbers for y in numbers if lanes in (x, y)]

    @infer_global(operation)
    class _Template(ConcreteTemplate):
        cases = [signature(lanes, *pair) for pair in pairs]

    for pair in pairs:
        lower_builtin(operation, *pair)(_generator(emit))


_define(operator.add, ir.IRBuilder.fadd)
_define(operator.sub, ir.IRBuilder.fsub)
_define(operator.mul, ir.IRBuilder.fmul)
_define(operator.truediv, ir.IRBuilder.fdiv)


@intrinsic
def fma(typingctx: Any, x: types.Type, y: types.Type, z: types.Type) -> Any:
    """Return `x * y + z`, rounded once."""
    return lanes(x, y, z), _generator(lambda builder, *args: llvm_function(builder, "fma", *args))


def _select(comparison: str) -> Emit:
    def emit(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
        return builder.select(builder.fcmp_ordered(comparison, a, b), x, y)

    return emit


@intrinsic
def where_greater(typingctx: Any, a: types.Type, b: types.Type, x: types.Type, y: types.Type) -> Any:
    """Return `x` where `a > b`, else `y`."""
    return lanes(a, b, x, y), _generator(_select(">"))


@intrinsic
def where_equal(typingctx: Any, a: types.Type, b: types.Type, x: types.Type, y: types.Type) -> Any:
    """Return `x` where `a == b`, else `y`."""
    return lanes(a, b, x, y), _generator(_select("=="))


# Memory and sums


@_unary
def spread(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Return sixteen times a scalar."""
    return x


@intrinsic
def load(typingctx: Any, array: types.Array, at: types.Integer) -> Any:
    """Return the sixteen numbers of an array from element `at`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        data = data_of(context, builder, signature.args[0], args[0])
        return builder.load(address(builder, data, args[1]), align=4)

    return lanes(array, types.int64), generate


@intrinsic
def store(typingctx: Any, array: types.Array, at: types.Integer, x: types.Type) -> Any:
    """Write sixteen numbers into an array from element `at`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        data = data_of(context, builder, signature.args[0], args[0])
        builder.store(_vector(context, builder, args[2], signature.args[2]), address(builder, data, args[1]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, x), generate


@intrinsic
def prefetch(typingctx: Any, array: types.Array, at: types.Integer) -> Any:
    """Ask the processor to fetch element `at` of an array, which may lie outside, from memory."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        emit_prefetch(builder, builder.gep(data_of(context, builder, signature.args[0], args[0]), [args[1]]))
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic
def total(typingctx: Any, x: types.Type) -> Any:
    """Return the sum of sixteen numbers, added by halves."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        value, count = args[0], LANES
        while count > 1:
            count //= 2
            lower, upper = (shuffle(builder, value, value, range(i, i + count)) for i in (0, count))
            value = builder.fadd(lower, upper)
        return builder.extract_element(value, BITS(0))

    return types.float32(x), generate


def polynomial(*coefficients: float) -> Any:
    """Return the polynomial with these coefficients, from the constant one upwards, evaluated by Horner's rule."""

    def emit(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        constants = [ir.Constant(VECTOR, [np.float32(value)] * LANES) for value in reversed(coefficients)]
        return functools.reduce(lambda result, value: llvm_function(builder, "fma", result, x, value), constants)

    return _unary(emit)


# Bits of numbers


@_unary
def power_of_two(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Return 2 to the power of `n`, where `x = n + 1.5 * 2**23` and `n` is a whole number from -126 to 127."""
    exponent = builder.shl(builder.bitcast(x, BIT_VECTOR), _bits(23))  # of `x`, only the bits of `n` remain
    return builder.bitcast(builder.add(exponent, _bits(127 << 23)), VECTOR)


@_unary
def exponent_of(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Return the whole number `n` with `x = m * 2**n` and `m` from 1 to 2, where `x` is positive."""
    exponent = builder.lshr(builder.bitcast(x, BIT_VECTOR), _bits(23))
    return builder.sitofp(builder.sub(exponent, _bits(127)), VECTOR)


@_unary
def mantissa_of(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Return `m` from 1 to 2 with `x = m * 2**n` and a whole number `n`, where `x` is positive."""
    fraction = builder.and_(builder.bitcast(x, BIT_VECTOR), _bits((1 << 23) - 1))
    return builder.bitcast(builder.or_(fraction, _bits(127 << 23)), VECTOR)


def _bits(value: int) -> ir.Constant:
    return ir.Constant(BIT_VECTOR, [value] * LANES)
