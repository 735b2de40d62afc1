"""Products of matrices and transposes, on blocks of sixteen columns.

A matrix `(rows, 16)` lies row by row, so that each of its rows is one value of `lanes`. Every entry of a product is
summed over the inner dimension from its first to its last index, with one fused multiply-add each. So the number of
rows that are computed at once changes the speed and no bit.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from zoo.training.compiled.jit import compiled, keep_apart
from zoo.training.compiled.lanes import (
    INDEX,
    LANES,
    VECTOR,
    address,
    data_of,
    emit_prefetch,
    llvm_function,
    shuffle,
    splat,
)
from zoo.training.compiled.state import Row

# Rows of a product that are computed at once: as many as registers hold. AVX-512 has 32 registers of 16 numbers, other
# x86-64 processors have 16 registers of 8 numbers or 4.
_FEATURES = config.CPU_FEATURES or get_host_cpu_features()
MOST_ROWS = 12 if "+avx512f" in _FEATURES else 6
# Length of the inner dimension that is worked on at once; 16 columns of it stay in the second cache. At 784 inputs,
# 256 is 3 to 7 % slower.
INNER = 1024


class Left(NamedTuple):
    """A matrix `(rows, outer * inner)`; entry `(m, o * inner + i)` is `data[at + m * row + o * out + i * step]`."""

    data: Row
    rows: int
    at: int
    row: int
    out: int
    step: int
    outer: int
    inner: int


class Right(NamedTuple):
    """Matrices `B (panels, outer * inner, 16)`; each begins `panel` elements after the one before."""

    data: Row
    panels: int
    at: int
    panel: int


class Product(NamedTuple):
    """Where products `(panels, rows, 16)` go, with steps between rows and panels, and whether they are added there."""

    data: Row
    at: int
    row: int
    panel: int
    added: bool


@compiled
def multiply(a: Left, b: Right, c: Product) -> None:
    """Compute the products of one matrix with each of several."""
    keep_apart()
    tiles = (a.rows + MOST_ROWS - 1) // MOST_ROWS
    fewest, more = a.rows // tiles, a.rows % tiles  # tiles of almost equal size
    outers, inners = max(1, INNER // a.inner), min(a.inner, INNER)
    for o in range(0, a.outer, outers):
        for i in range(0, a.inner, inners):
            outer, inner = min(outers, a.outer - o), min(inners, a.inner - i)
            added = c.added or o > 0 or i > 0
            for panel in range(b.panels):
                b_at, row = b.at + panel * b.panel + (o * a.inner + i) * LANES, 0
                for tile in range(tiles):
                    count = fewest + (tile < more)
                    a_at, c_at = a.at + row * a.row + o * a.out + i * a.step, c.at + row * c.row + panel * c.panel
                    a_steps = (a_at, a.row, a.out, a.step, outer, inner)
                    _multiply_tile(count, a.data, a_steps, b.data, b_at, c.data, (c_at, c.row, added))
                    row += count


@intrinsic
def _multiply_tile(typingctx: Any, rows: Any, a: Any, a_steps: Any, b: Any, b_at: Any, c: Any, c_steps: Any) -> Any:
    """Compute up to `MOST_ROWS` rows of a product.

    Arguments:
        rows: Number of rows.
        a, a_steps: Data of A; `at`, `row`, `out`, `step`, `outer` and `inner` as in `Left`.
        b, b_at: Data of B, and its first element.
        c, c_steps: Data of C; `at`, `row` and `added` as in `Product`.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        a, b, c = (data_of(context, builder, signature.args[i], args[i]) for i in (1, 3, 5))
        a_steps, c_steps = (cgutils.unpack_tuple(builder, args[i]) for i in (2, 6))
        after = builder.append_basic_block("after")
        switch = builder.switch(args[0], after)
        for rows in range(1, MOST_ROWS + 1):
            case = builder.append_basic_block(f"rows{rows}")
            switch.add_case(INDEX(rows), case)
            with builder.goto_block(case):
                _emit_tile(builder, rows, (a, *a_steps), (b, args[4]), (c, *c_steps))
                builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    six, three = types.UniTuple(types.int64, 6), types.Tuple((types.int64, types.int64, types.boolean))
    return types.void(types.int64, a, six, b, types.int64, c, three), generate


def _emit_tile(builder: ir.IRBuilder, rows: int, a: Any, b: Any, c: Any) -> None:
    """Emit the product of a number of rows, whose sums stay in registers."""
    (a, a_at, row, out, step, outer, inner), (b, b_at), (c, c_at, c_row, added) = a, b, c
    places = [address(builder, c, builder.add(c_at, builder.mul(c_row, INDEX(m)))) for m in range(rows)]
    sums = [cgutils.alloca_once_value(builder, ir.Constant(VECTOR, [0.0] * LANES)) for _ in places]
    with builder.if_then(added):
        for place, total in zip(places, sums, strict=True):
            builder.store(builder.load(place, align=4), total)
    # Two pointers run along the inner dimension; the rows of A are at fixed distances from the first. A third one runs
    # over the rows of the next tile, which often come from memory: all of them, if they lie one after the other.
    distances = [builder.mul(row, INDEX(m)) for m in range(rows)]
    from_a, from_b = cgutils.alloca_once(builder, a.type), cgutils.alloca_once_value(builder, builder.gep(b, [b_at]))
    later = cgutils.alloca_once_value(builder, builder.gep(a, [builder.add(a_at, builder.mul(row, INDEX(rows)))]))
    with cgutils.for_range(builder, outer) as o:
        builder.store(builder.gep(a, [builder.add(a_at, builder.mul(o.index, out))]), from_a)
        with cgutils.for_range(builder, inner):
            weight, inputs, ahead = builder.load(from_a), builder.load(from_b), builder.load(later)
            emit_prefetch(builder, ahead)
            x = builder.load(address(builder, inputs, INDEX(0)), align=4)
            for total, distance in zip(sums, distances, strict=True):
                factor = splat(builder, builder.load(builder.gep(weight, [distance])))
                builder.store(llvm_function(builder, "fma", factor, x, builder.load(total)), total)
            builder.store(builder.gep(weight, [step]), from_a)
            builder.store(builder.gep(inputs, [INDEX(LANES)]), from_b)
            builder.store(builder.gep(ahead, [INDEX(rows)]), later)
    for place, total in zip(places, sums, strict=True):
        builder.store(builder.load(total), place, align=4)


@intrinsic
def transpose(typingctx: Any, x: types.Array, at: Any, step: Any, y: types.Array, to: Any) -> Any:
    """Write the transpose of 16 rows of `x`, from element `at` and `step` elements apart, to `y` from element `to`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        source, target = (data_of(context, builder, signature.args[i], args[i]) for i in (0, 3))
        at, step, to = args[1], args[2], args[4]
        rows = [
            builder.load(address(builder, source, builder.add(at, builder.mul(step, INDEX(i)))), align=4)
            for i in range(LANES)
        ]
        size = 1
        while size < LANES:  # swap the off-diagonal blocks of this size
            lower = [LANES + j - size if j & size else j for j in range(LANES)]
            upper = [LANES + j if j & size else j + size for j in range(LANES)]
            for i in range(LANES):
                if not i & size:
                    first, second = rows[i], rows[i + size]
                    rows[i] = shuffle(builder, first, second, lower)
                    rows[i + size] = shuffle(builder, first, second, upper)
            size *= 2
        for i, row in enumerate(rows):
            builder.store(row, address(builder, target, builder.add(to, INDEX(i * LANES))), align=4)
        return context.get_dummy_value()

    return types.void(x, types.int64, types.int64, y, types.int64), generate
