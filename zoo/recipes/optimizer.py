"""Training settings that all networks of a recipe share, and the schedule of their learning rate."""

from typing import Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt

from zoo.data.augmentation import Augmentation
from zoo.recipes.rounding import correct_power
from zoo.stored import Stored

Schedule = Literal["constant", "triangular", "warmup", "exponential_warmup"]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Stored):
    """Training settings that all networks of a recipe share.

    Arguments:
        optimizer: Optimiser: `adamw` (Loshchilov & Hutter 2019) or `sgd` with momentum, as in `torch.optim`.
        batch_size: Number of examples in a minibatch. An incomplete minibatch at the end of an epoch is left out.
        schedule: Schedule of the learning rate. `constant`: always the same. `triangular`: rises linearly during the
            warmup, then falls linearly to 0. `warmup`: rises linearly during the warmup, then stays constant.
            `exponential_warmup`: starts at 1/100, is multiplied by the same factor each epoch, then stays constant.
        warmup: Length of the warmup, as a fraction of the training.
        warmup_epochs: Length of the warmup in epochs; if it is given, `warmup` does not count.
        momentum: Momentum of SGD.
        betas, epsilon: Decay rates of the moments, and constant in the denominator, of AdamW.
        augmentation: Augmentation of the training images; by default none.
        curves: Number of epochs from one measurement of the metrics to the next; those of the last epoch always are.
        precision: Precision of the forward and backward pass in training: `float32`, or `bfloat16` by PyTorch's
            autocast. Weights, moments and measurements are float32.
    """

    later: ClassVar[frozenset[str]] = frozenset({"curves", "precision"})

    optimizer: Literal["adamw", "sgd"] = "adamw"
    batch_size: PositiveInt = 64
    schedule: Schedule = "constant"
    warmup: float = Field(0.2, ge=0, le=1)
    warmup_epochs: PositiveInt | None = None
    momentum: float = Field(0.9, ge=0, lt=1)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    epsilon: PositiveFloat = 1e-8
    augmentation: Augmentation | None = None
    curves: PositiveInt = 1
    precision: Literal["float32", "bfloat16"] = "float32"

    def factors(self, epochs: int, steps_per_epoch: int) -> Float[np.ndarray, " steps"]:
        """Return the learning rate at each step, as a fraction of the highest learning rate."""
        steps = epochs * steps_per_epoch
        step = np.arange(steps)
        peak = self.warmup * steps if self.warmup_epochs is None else float(self.warmup_epochs * steps_per_epoch)
        if self.schedule == "constant" or peak == 0:
            rising = np.ones(steps)
        elif self.schedule == "exponential_warmup":
            exponents = np.minimum(np.arange(epochs) * steps_per_epoch / peak - 1, 0)
            rising = np.repeat([correct_power(100.0, exponent) for exponent in exponents], steps_per_epoch)
        else:
            rising = np.minimum((step + 1) / peak, 1)
        if self.schedule == "triangular":
            return np.minimum(rising, (steps - step) / max(steps - peak, 1))
        return rising
