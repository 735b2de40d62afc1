"""Distributions of the numbers that a recipe draws for each pair."""

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from zoo.recipes.rounding import correct_exp, correct_log


class Distribution(BaseModel):
    """Distribution of a number. Exactly one field is given; in TOML, a plain number stands for `constant`.

    Arguments:
        constant: Value that is always the same.
        uniform: Bounds of a uniform distribution.
        log_uniform: Bounds of a distribution whose logarithm is uniform.
        integers: Bounds of a uniform distribution over integers, both included.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    constant: float | None = None
    uniform: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None
    integers: tuple[int, int] | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_number(cls, value: object) -> object:
        return {"constant": value} if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _check(self) -> "Distribution":
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError("give a number or one of uniform, log_uniform, integers")
        if self.low > self.high or not np.isfinite([self.low, self.high]).all():
            raise ValueError(f"the bounds {self.low} and {self.high} must be finite and in increasing order")
        if self.log_uniform and self.low <= 0:
            raise ValueError("the bounds of log_uniform must be above 0")
        return self

    @property
    def bounds(self) -> tuple[int | float, int | float]:
        """Lowest and highest value."""
        (value,) = self.model_dump(exclude_none=True).values()
        return value if isinstance(value, tuple) else (value, value)

    @property
    def low(self) -> int | float:
        """Lowest value."""
        return self.bounds[0]

    @property
    def high(self) -> int | float:
        """Highest value."""
        return self.bounds[1]

    def draw(self, rng: np.random.Generator) -> int | float:
        """Draw a value."""
        if self.log_uniform:
            low, high = self.log_uniform
            return correct_exp(rng.uniform(correct_log(low), correct_log(high)))
        if self.integers:
            return int(rng.integers(*self.integers, endpoint=True))
        return float(rng.uniform(self.low, self.high))
