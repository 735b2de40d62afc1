"""The operations of a network, forward and backward, on blocks of sixteen examples.

Activations `(blocks, units, 16)` lie in one array of numbers, `work`, at the places that the program gives. The units
of every value are padded with zeros to a multiple of 16, and so are the columns of weights. The first operation reads
examples as rows, which need no transpose: there, sixteen units are one vector.
"""

from typing import Any

from zoo.training.compiled.functions import gelu, sigmoid, tanh
from zoo.training.compiled.jit import Lanes, compiled, inlined, keep_apart
from zoo.training.compiled.lanes import LANES, fma, load, negative, spread, sqrt, store, total, where_greater
from zoo.training.compiled.products import Left, Product, Right, multiply, transpose
from zoo.training.compiled.state import Network, Row

FIRST, LINEAR, NORM, GELU, RELU, TANH, FIGLU, SUM, COPY = range(9)


@inlined
def padded(units: int) -> int:
    """Return the next multiple of 16."""
    return (units + LANES - 1) // LANES * LANES


@compiled
def forward(ops: Any, network: Network, row: Row, x: Row, at: int, blocks: int, keep: bool) -> None:
    """Compute all values of a network.

    Arguments:
        ops: Operations, see `zoo.training.compiled.program.OP`.
        network: Network.
        row: Weights of the network.
        x, at: Array of examples, one after the other, and place of the first one.
        blocks: Number of blocks of 16 examples.
        keep: Whether to keep what the backward pass needs.
    """
    keep_apart()
    work = network.work
    for o in range(len(ops)):
        op = ops[o]
        if op.kind == FIRST:
            _first(op, row, x, at, work, blocks)
        elif op.kind == LINEAR:
            _linear(op, row, work, blocks)
            if keep:
                _transpose(work, op.x, padded(op.inputs), blocks, op.saved)
        elif op.kind == NORM:
            _norm(op, row, work, blocks)
        elif op.kind == FIGLU:
            _figlu(op, network.mixing, work, blocks)
        elif op.kind == SUM:
            _add(work, op.x, op.other, op.y, blocks * padded(op.outputs) * LANES)
        elif op.kind != COPY:  # both copies lie at the place of the original
            _activate(op, work, blocks, keep)


@compiled
def backward(ops: Any, network: Network, row: Row, blocks: int) -> None:
    """Compute the gradient of the row from that of the logits, which is in its place; arguments as in `forward`."""
    keep_apart()
    work, gradient = network.work, network.gradient
    for o in range(len(ops) - 1, -1, -1):
        op = ops[o]
        size = blocks * padded(op.inputs) * LANES
        if op.kind == FIRST:
            _first_backward(op, work, gradient, blocks)
        elif op.kind == LINEAR:
            _linear_backward(op, row, work, gradient, blocks)
        elif op.kind == NORM:
            _norm_backward(op, row, work, gradient, blocks)
        elif op.kind == FIGLU:
            _figlu_backward(op, network.mixing, work, blocks)
        elif op.kind == SUM:  # the gradient of the first summand lies at the place of the sum's
            _copy(work, op.dy, op.d_other, size)
        elif op.kind == COPY:
            _add(work, op.dy, op.d_other, op.dx, size)
        else:
            _multiply(work, op.dy, op.saved, op.dx, size)


@inlined
def _first(op: Any, row: Row, x: Row, at: int, work: Row, blocks: int) -> None:
    """`y = W x + b` of examples as rows. W lies transposed in panels of 16 units, `(outputs / 16, inputs, 16)`."""
    columns, rows, examples = padded(op.inputs), padded(op.outputs), blocks * LANES
    for panel in range(rows // LANES):
        bias = load(row, op.bias + panel * LANES) if op.bias >= 0 else spread(0.0)
        for i in range(panel * examples, (panel + 1) * examples):
            store(work, op.transposed + i * LANES, bias)
    inputs = Left(x, examples, at, columns, 0, 1, 1, op.inputs)
    weights = Right(row, rows // LANES, op.weight, op.inputs * LANES)
    multiply(inputs, weights, Product(work, op.transposed, LANES, examples * LANES, True))
    for block in range(blocks):
        for panel in range(rows // LANES):
            y = op.y + (block * rows + panel * LANES) * LANES
            transpose(work, op.transposed + (panel * blocks + block) * LANES * LANES, LANES, work, y)


@inlined
def _first_backward(op: Any, work: Row, gradient: Row, blocks: int) -> None:
    """`dW^T = x^T dy`, `db = dy 1`, with x and dy as rows."""
    columns, rows, examples = padded(op.inputs), padded(op.outputs), blocks * LANES
    _transpose(work, op.dy, rows, blocks, op.transposed)
    inputs = Left(work, op.inputs, op.saved, 1, 0, columns, 1, examples)
    slopes = Right(work, rows // LANES, op.transposed, examples * LANES)
    multiply(inputs, slopes, Product(gradient, op.weight, LANES, op.inputs * LANES, False))
    _bias_backward(op, work, gradient, blocks)


@inlined
def _transpose(work: Row, x: int, units: int, blocks: int, to: int) -> None:
    """Write the transpose of values `(blocks, units, 16)` as `(units / 16, examples, 16)`."""
    for block in range(blocks):
        for panel in range(units // LANES):
            at = x + (block * units + panel * LANES) * LANES
            transpose(work, at, LANES, work, to + (panel * blocks + block) * LANES * LANES)


@inlined
def _linear(op: Any, row: Row, work: Row, blocks: int) -> None:
    """`y = W x + b`."""
    columns, rows = padded(op.inputs), padded(op.outputs)
    for block in range(blocks):
        for u in range(op.outputs):
            store(work, op.y + (block * rows + u) * LANES, row[op.bias + u] if op.bias >= 0 else 0.0)
    weights = Left(row, op.outputs, op.weight, columns, 0, 1, 1, op.inputs)
    multiply(weights, Right(work, blocks, op.x, columns * LANES), Product(work, op.y, LANES, rows * LANES, True))


@inlined
def _linear_backward(op: Any, row: Row, work: Row, gradient: Row, blocks: int) -> None:
    """`dW = dy x^T`, `db = dy 1`, `dx = W^T dy`."""
    columns, rows = padded(op.inputs), padded(op.outputs)
    slopes = Left(work, op.outputs, op.dy, LANES, rows * LANES, 1, blocks, LANES)
    inputs = Right(work, columns // LANES, op.saved, blocks * LANES * LANES)
    multiply(slopes, inputs, Product(gradient, op.weight, columns, LANES, False))
    _bias_backward(op, work, gradient, blocks)
    weights = Left(row, op.inputs, op.weight, 1, 0, columns, 1, op.outputs)
    slopes_of = Right(work, blocks, op.dy, rows * LANES)
    multiply(weights, slopes_of, Product(work, op.dx, LANES, columns * LANES, False))


@inlined
def _bias_backward(op: Any, work: Row, gradient: Row, blocks: int) -> None:
    if op.bias >= 0:
        for u in range(op.outputs):
            gradient[op.bias + u] = total(_over_blocks(work, op.dy + u * LANES, padded(op.outputs) * LANES, blocks))


@inlined
def _add(work: Row, x: int, y: int, to: int, size: int) -> None:
    for i in range(0, size, LANES):
        store(work, to + i, load(work, x + i) + load(work, y + i))


@inlined
def _multiply(work: Row, x: int, y: int, to: int, size: int) -> None:
    for i in range(0, size, LANES):
        store(work, to + i, load(work, x + i) * load(work, y + i))


@inlined
def _copy(work: Row, x: int, to: int, size: int) -> None:
    for i in range(0, size, LANES):
        store(work, to + i, load(work, x + i))


@inlined
def _over_blocks(work: Row, at: int, step: int, blocks: int) -> Lanes:
    """Return the sum of the same unit's numbers over all blocks, `step` elements apart."""
    result = load(work, at)
    for block in range(1, blocks):
        result = result + load(work, at + block * step)
    return result


@inlined
def _norm(op: Any, row: Row, work: Row, blocks: int) -> None:
    """`y = gain * h + shift` with `h = (x - mean) / sqrt(variance + epsilon)`, which is kept in `saved`."""
    step, units = padded(op.inputs) * LANES, op.inputs
    for block in range(blocks):
        x, h, y = op.x + block * step, op.saved + block * step, op.y + block * step
        mean = _sum(work, x, units, spread(0.0), 1) / units
        scale = 1.0 / sqrt(_sum(work, x, units, mean, 2) / units + op.epsilon)
        store(work, op.scales + block * LANES, scale)
        for u in range(units):
            normed = (load(work, x + u * LANES) - mean) * scale
            store(work, h + u * LANES, normed)
            store(work, y + u * LANES, fma(normed, row[op.weight + u], row[op.bias + u]))


@inlined
def _sum(work: Row, at: int, units: int, centre: Lanes, power: int) -> Lanes:
    """Return the sum over units of the first or second power of `x - centre`, in four parts that do not wait."""
    a, b, c, d = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
    for u in range(0, units // 4 * 4, 4):
        x = at + u * LANES
        a = _add_power(a, load(work, x) - centre, power)
        b = _add_power(b, load(work, x + LANES) - centre, power)
        c = _add_power(c, load(work, x + 2 * LANES) - centre, power)
        d = _add_power(d, load(work, x + 3 * LANES) - centre, power)
    for u in range(units // 4 * 4, units):
        a = _add_power(a, load(work, at + u * LANES) - centre, power)
    return (a + b) + (c + d)


@inlined
def _add_power(total: Lanes, x: Lanes, power: int) -> Lanes:
    return total + x if power == 1 else fma(x, x, total)


@inlined
def _norm_backward(op: Any, row: Row, work: Row, gradient: Row, blocks: int) -> None:
    """`dx = scale * (d - mean(d) - h * mean(d * h))` with `d = gain * dy`."""
    step, units = padded(op.inputs) * LANES, op.inputs
    for u in range(units):
        gain, shift = spread(0.0), spread(0.0)
        for block in range(blocks):
            at = block * step + u * LANES
            dy = load(work, op.dy + at)
            shift = shift + dy
            gain = fma(dy, load(work, op.saved + at), gain)
        gradient[op.weight + u], gradient[op.bias + u] = total(gain), total(shift)
    for block in range(blocks):
        h, dy, dx = op.saved + block * step, op.dy + block * step, op.dx + block * step
        mean, along = spread(0.0), spread(0.0)
        for u in range(units):
            d = load(work, dy + u * LANES) * row[op.weight + u]
            mean = mean + d
            along = fma(d, load(work, h + u * LANES), along)
        mean, along, scale = mean / units, along / units, load(work, op.scales + block * LANES)
        for u in range(units):
            d = fma(load(work, dy + u * LANES), row[op.weight + u], negative(mean))
            store(work, dx + u * LANES, scale * fma(negative(load(work, h + u * LANES)), along, d))


@inlined
def _activate(op: Any, work: Row, blocks: int, keep: bool) -> None:
    """Apply an activation to each number, and keep its derivative in `saved`."""
    kind, at, to, saved = op.kind, op.x, op.y, op.saved
    for i in range(0, blocks * padded(op.inputs) * LANES, LANES):
        x = load(work, at + i)
        if kind == GELU:
            y, slope = gelu(x)
        elif kind == TANH:
            y = tanh(x)
            slope = fma(negative(y), y, 1.0)
        else:
            y, slope = where_greater(0.0, x, 0.0, x), where_greater(x, 0.0, 1.0, 0.0)
        store(work, to + i, y)
        if keep:
            store(work, saved + i, slope)


@inlined
def _figlu(op: Any, mixing: Row, work: Row, blocks: int) -> None:
    """`y = x * sigmoid(F x)`; the sigmoid is kept in `saved`."""
    rows = padded(op.inputs)
    size = blocks * rows * LANES
    matrix = Left(mixing, op.inputs, op.weight, rows, 0, 1, 1, op.inputs)
    multiply(matrix, Right(work, blocks, op.x, rows * LANES), Product(work, op.saved, LANES, rows * LANES, False))
    x, saved, y = op.x, op.saved, op.y
    for i in range(0, size, LANES):
        gate = sigmoid(load(work, saved + i))
        store(work, saved + i, gate)
        store(work, y + i, load(work, x + i) * gate)


@inlined
def _figlu_backward(op: Any, mixing: Row, work: Row, blocks: int) -> None:
    """`dx = dy * g + F^T (dy * x * g * (1 - g))` with the sigmoid `g`."""
    rows = padded(op.inputs)
    at, saved, slopes, dx = op.x, op.saved, op.dy, op.dx
    for i in range(0, blocks * rows * LANES, LANES):
        x, gate, dy = load(work, at + i), load(work, saved + i), load(work, slopes + i)
        store(work, saved + i, dy * x * gate * (1.0 - gate))
        store(work, dx + i, dy * gate)
    matrix = Left(mixing, op.inputs, op.weight, 1, 0, rows, 1, op.inputs)
    multiply(matrix, Right(work, blocks, op.saved, rows * LANES), Product(work, op.dx, LANES, rows * LANES, True))
