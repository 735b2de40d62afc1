"""Products of matrices and transposes, on blocks of sixteen columns.

A matrix `(rows, 16)` lies row by row, so that each of its rows is one value of `lanes`. Every entry of a product is
summed over the inner dimension from its first to its last index, with one fused multiply-add each. So the number of
rows that are computed at once changes the speed and no bit.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from zoo.training.compiled.jit import compiled, keep_apart
from zoo.training.compiled.lanes import (
    INDEX,
    LANES,
    address,
    data_of,
    llvm_function,
    shuffle,
    splat,
)
from zoo.training.compiled.state import Row

# Rows of a product that are computed at once: as many as registers hold. AVX-512 has 32 registers of 16 numbers, other
# x86-64 processors have 16 registers of 8 numbers or 4.
_FEATURES = config.CPU_FEATURES or get_host_cpu_features()
MOST_ROWS = 12 if "+avx512f" in _FEATURES else 6
# Length of the inner dimension that is worked on at once, so that 16 columns of it stay in the fastest cache.
INNER = 256


def _tile(builder: ir.IRBuilder, rows: int, a: Any, b: Any, c: Any) -> None:
    """Emit `C += A B` for some rows of C, which stay in registers; arguments are data and places of `add_product`."""
    (a_data, a_at, a_row, a_outer, a_inner, outer, inner), (b_data, b_at), (c_data, c_at, c_row) = a, b, c
    places = [address(builder, c_data, builder.add(c_at, builder.mul(c_row, INDEX(m)))) for m in range(rows)]
    sums = [cgutils.alloca_once_value(builder, builder.load(place, align=4)) for place in places]
    # Two pointers run along the inner dimension; the rows of A are at fixed distances from the first.
    steps = [builder.mul(a_row, INDEX(m)) for m in range(rows)]
    from_a = cgutils.alloca_once(builder, a_data.type)
    from_b = cgutils.alloca_once_value(builder, builder.gep(b_data, [b_at]))
    with cgutils.for_range(builder, outer) as o:
        start = builder.add(a_at, builder.mul(o.index, a_outer))
        builder.store(builder.gep(a_data, [start]), from_a)
        with cgutils.for_range(builder, inner):
            weight, inputs = builder.load(from_a), builder.load(from_b)
            x = builder.load(address(builder, inputs, INDEX(0)), align=4)
            for total, step in zip(sums, steps, strict=True):
                factor = splat(builder, builder.load(builder.gep(weight, [step])))
                builder.store(llvm_function(builder, "fma", factor, x, builder.load(total)), total)
            builder.store(builder.gep(weight, [a_inner]), from_a)
            builder.store(builder.gep(inputs, [INDEX(LANES)]), from_b)
    for place, total in zip(places, sums, strict=True):
        builder.store(builder.load(total), place, align=4)


@intrinsic
def add_product(typingctx: Any, rows: Any, a: Any, a_places: Any, b: Any, b_at: Any, c: Any, c_places: Any) -> Any:
    """Add to `C (rows, 16)` the product of `A (rows, outer * inner)` and `B (outer * inner, 16)`.

    Arguments:
        rows: Number of rows, from 1 to `MOST_ROWS`.
        a, a_places: Array of A; place of its first entry, steps between rows, between outer and between inner indices,
            and the numbers of outer and inner indices.
        b, b_at: Array of B, and place of its first entry.
        c, c_places: Array of C; place of its first entry, and step between rows.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        count, _, a_places, _, b_at, _, c_places = args
        a_data, b_data, c_data = (data_of(context, builder, signature.args[i], args[i]) for i in (1, 3, 5))
        after = builder.append_basic_block("after")
        switch = builder.switch(count, after)
        for rows in range(1, MOST_ROWS + 1):
            case = builder.append_basic_block(f"rows{rows}")
            switch.add_case(INDEX(rows), case)
            with builder.goto_block(case):
                _tile(
                    builder,
                    rows,
                    (a_data, *cgutils.unpack_tuple(builder, a_places)),
                    (b_data, b_at),
                    (c_data, *cgutils.unpack_tuple(builder, c_places)),
                )
                builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    sixes, pair = types.UniTuple(types.int64, 6), types.UniTuple(types.int64, 2)
    return types.void(types.int64, a, sixes, b, types.int64, c, pair), generate


@compiled
def multiply(a: Row, a_places: Any, b: Row, b_places: Any, c: Row, c_places: Any) -> None:
    """Add to `C (panels, rows, 16)` the products of `A (rows, outer * inner)` and `B (panels, outer * inner, 16)`.

    Arguments:
        a, a_places: Array of A; number of rows, and what `add_product` takes.
        b, b_places: Array of B; number of panels, place of the first entry, and step between panels.
        c, c_places: Array of C; place of its first entry, and steps between rows and between panels.
    """
    keep_apart()
    rows, a_at, a_row, a_outer, a_inner, outer, inner = a_places
    (panels, b_at, b_panel), (c_at, c_row, c_panel) = b_places, c_places
    tiles = (rows + MOST_ROWS - 1) // MOST_ROWS
    fewest, more = rows // tiles, rows % tiles  # tiles of almost equal size
    outers, inners = max(1, INNER // inner), min(inner, INNER)
    for o in range(0, outer, outers):
        for i in range(0, inner, inners):
            shape = min(outers, outer - o), min(inners, inner - i)
            for panel in range(panels):
                b_here = b_at + panel * b_panel + (o * inner + i) * LANES
                row = 0
                for tile in range(tiles):
                    count = fewest + (tile < more)
                    a_here = a_at + row * a_row + o * a_outer + i * a_inner
                    c_here = c_at + row * c_row + panel * c_panel
                    places = (a_here, a_row, a_outer, a_inner, shape[0], shape[1])
                    add_product(count, a, places, b, b_here, c, (c_here, c_row))
                    row += count


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
