"""Posteriors that are known, or written down plainly, one network at a time."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from tests.scenarios import Network, some_data, treat
from zoo.data import Data
from zoo.treatments import Treated

INPUTS, OUTPUTS, SIGMA = 3, 2, 0.5
EVERY_SETTING = [
    "standard",
    {"kind": "w_asymmetric", "n_fix": 1},
    {"kind": "syre", "std": 0.5},
]
TINY = {
    "mlp": Network("mlp", {"widths": [8, 5, 4]}, (8,)),
    "cnn": Network("cnn", {"channels": [1, 3, 4], "classes": 4}, (1, 8, 8)),
}


@dataclass
class Regression:
    """Linear regression: a Gaussian posterior in closed form, over what trains of `P` columns.

    Labels are the places of the examples, by which the loss finds their targets.
    """

    treated: Treated
    data: Data
    loss: Any
    precision: Tensor
    mean: Tensor
    covariance: Tensor


def regression(setting="standard", orthogonal=False, examples=24) -> Regression:
    treated = treat(setting, Network("mlp", {"widths": [INPUTS, OUTPUTS]}, (INPUTS,)), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(examples, INPUTS, generator=generator, dtype=torch.float64)
    if orthogonal:  # with the ones that stand for the bias
        x = torch.linalg.qr(torch.cat([torch.ones(examples, 1), x], 1))[0][:, 1:] * torch.tensor([5.0, 2.0, 1.0])
    targets = torch.randn(examples, OUTPUTS, generator=generator, dtype=torch.float64)
    precision = 0.5 + torch.rand(treated.layout.size, generator=generator, dtype=torch.float64)
    constants = torch.zeros_like(precision) if treated.constants is None else treated.constants

    eye = torch.eye(OUTPUTS, dtype=torch.float64)
    weights = torch.einsum("co,ni->ncoi", eye, x).reshape(examples * OUTPUTS, -1)
    design = torch.cat([weights, eye.repeat(examples, 1)], 1)
    free = treated.mask
    own = design[:, free]
    covariance = torch.linalg.inv(own.T @ own / SIGMA**2 + precision[free].diag())
    rest = targets.flatten() - design[:, ~free] @ constants[~free]
    mean = covariance @ (own.T @ rest / SIGMA**2 + precision[free] * constants[free])

    def loss(outputs, y):
        return (outputs - targets[y]).square().sum(-1).mean(-1) / (2 * SIGMA**2)

    places = torch.arange(examples)
    return Regression(treated, Data("line", x, places, x, places, examples), loss, precision, mean, covariance)


def gaussian_root(outputs):
    """Whose square is the Hessian of the regression's loss by its outputs."""
    return torch.eye(OUTPUTS, dtype=torch.float64) / SIGMA


def some_labels(network, examples=40) -> Data:
    """Labelled examples for a network of `TINY`, in float64."""
    return some_data(TINY[network].shape, train=examples).to("cpu", torch.float64)


def whole_row(treated, theta) -> Tensor:
    """The row of which `theta` is what trains."""
    if treated.constants is None:
        return theta
    row = treated.constants.clone()
    row[treated.mask] = row[treated.mask] + theta
    return row


def log_posterior(treated, data, precision):
    """The log posterior of what trains of one network, estimated by a batch, in the form that `posteriors` wants."""

    def value(theta, batch):
        x, y = batch
        logits = functional_call(treated.module, treated.layout.unflatten(whole_row(treated, theta)), (x,))
        likelihood = -len(data.train_y) * functional.cross_entropy(logits, y)
        return likelihood - precision / 2 * theta.square().sum(), torch.empty(0)

    return value
