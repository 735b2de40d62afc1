"""Networks that others trained: whose they are, and what they read if not the data as we standardise them."""

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator
from torch import Tensor

from zoo.data import Data
from zoo.errors import DataError


class Imported(BaseModel):
    """Where the networks of a zoo come from that no recipe of ours trained.

    Arguments:
        source: whose they are, in a few words.
        grey: they read the mean of all channels.
        mean, deviation: they read `(pixels - mean) / deviation`, of pixels from 0 to 1, one value for each channel
            that they read; left out, the data as we standardise them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str = Field(min_length=1)
    grey: bool = False
    mean: list[float] | None = None
    deviation: list[PositiveFloat] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Imported":
        if len(self.mean or []) != len(self.deviation or []):
            raise ValueError("mean and deviation need a value each for every channel")
        if self.grey and len(self.mean or []) != 1:
            raise ValueError("grey networks need one mean and one deviation")
        return self

    def prepare(self, data: Data) -> Data:
        """Return the data as the networks read them.

        Raises:
            DataError: if it is not known how the data were standardised, or their channels are others.
        """
        if self.mean is None or self.deviation is None:
            return data
        if data.moments is None or len(self.mean) != (1 if self.grey else len(data.moments[0])):
            raise DataError(
                f"imported.mean: {len(self.mean)} values do not fit {data.name}; leave mean and deviation out"
            )
        shape = (-1, *[1] * (len(data.shape) - 1))
        ours = [values.view(shape) for values in data.moments]
        theirs = [torch.tensor(values).view(shape) for values in (self.mean, self.deviation)]

        def convert(x: Tensor) -> Tensor:
            pixels = x * ours[1] + ours[0]
            return ((pixels.mean(1, keepdim=True) if self.grey else pixels) - theirs[0]) / theirs[1]

        return data.map_examples(convert)
