"""The origin of networks that this package did not train, and how they standardise the data."""

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator
from torch import Tensor

from zoo.data import Data
from zoo.errors import DataError


class Imported(BaseModel):
    """The origin of the networks of an imported zoo, and how these networks standardise the data.

    Arguments:
        source: Authors of the networks, in a few words.
        grey: Whether the networks read the mean of all channels.
        mean, deviation: Values for each channel by which the networks standardise pixels from 0 to 1, as
            `(pixels - mean) / deviation`. If they are left out, the data are standardised as in `zoo.data.load_data`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str = Field(min_length=1)
    grey: bool = False
    mean: list[float] | None = None
    deviation: list[PositiveFloat] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Imported":
        if len(self.mean or []) != len(self.deviation or []):
            raise ValueError("mean and deviation both need one value for every channel")
        if self.grey and len(self.mean or []) != 1:
            raise ValueError("grey networks need one mean and one deviation")
        return self

    def prepare(self, data: Data) -> Data:
        """Return the data, standardised as the networks read them.

        Raises:
            DataError: If the data are not standardised by channel, or their number of channels differs.
        """
        if self.mean is None or self.deviation is None:
            return data
        if data.moments is None or len(self.mean) != (1 if self.grey else len(data.moments[0])):
            raise DataError(
                f"imported.mean: {len(self.mean)} values do not fit {data.name}; leave mean and deviation out"
            )
        shape = (-1, *[1] * (len(data.shape) - 1))
        old_mean, old_deviation = (values.view(shape) for values in data.moments)
        mean, deviation = (torch.tensor(values).view(shape) for values in (self.mean, self.deviation))

        def convert(x: Tensor) -> Tensor:
            pixels = x * old_deviation + old_mean
            return ((pixels.mean(1, keepdim=True) if self.grey else pixels) - mean) / deviation

        return data.map_examples(convert)
