"""Steps of AdamW and of SGD with momentum, as in `torch.optim`, for one network."""

import numpy as np
from numpy.typing import NDArray

from zoo.training.compiled.jit import compiled, keep_apart
from zoo.training.compiled.lanes import LANES, fma, load, negative, spread, sqrt, store, total
from zoo.training.compiled.state import Network, Row, Rule


@compiled
def use(network: Network, theta: Row) -> Row:
    """Return the row of `theta`."""
    keep_apart()
    if len(network.scale) == 0:
        return theta
    for i in range(0, len(theta), LANES):
        constants = load(network.constants, i)
        store(network.row, i, fma(load(network.scale, i), load(theta, i), constants))
    return network.row


@compiled
def update(network: Network, theta: Row, to: Row, rule: Rule, rates: NDArray[np.float32]) -> float:
    """Take a step from `theta`, write the result to `to`, and return the sum of the gradient.

    Arguments:
        network: Network with its gradient and moments.
        theta, to: Parameters before and after the step.
        rule: Optimiser.
        rates: Learning rate; for AdamW, also the rate over the bias correction of the mean, and the inverse root of
            that of the square.
    """
    keep_apart()
    masked, decayed = len(network.scale) > 0, len(network.decay) > 0
    rate, first, second = rates[0], rates[1], rates[2]
    gradient = spread(0.0)
    for i in range(0, len(theta), LANES):
        before, slope, mean = load(theta, i), load(network.gradient, i), load(network.mean, i)
        gradient = gradient + slope
        decay = spread(rule.weight_decay)
        if masked:
            slope = slope * load(network.scale, i)  # chain rule of `row = constants + scale * theta`
        if decayed:
            decay = decay * load(network.decay, i)
        if rule.sgd:
            mean = fma(decay, before, fma(mean, rule.momentum, slope))
            store(to, i, fma(negative(mean), rate, before))
        else:
            mean = fma(slope - mean, 1.0 - rule.beta1, mean)
            square = fma(slope * slope, 1.0 - rule.beta2, load(network.square, i) * rule.beta2)
            store(network.square, i, square)
            shift = mean * first / fma(sqrt(square), second, rule.epsilon)
            store(to, i, fma(before, fma(negative(decay), rate, 1.0), negative(shift)))
        store(network.mean, i, mean)
    return total(gradient)
