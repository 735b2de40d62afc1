"""What a metanetwork is: an `nn.Module` that says what it reads."""

from typing import ClassVar, Literal

from torch import nn


class Metanetwork(nn.Module):
    """Maps `(N, features)` to one prediction for each of N networks; constructed with the number of features.

    Attributes:
        reads: the input it wants, a key of `metanets.inputs.READERS`.
        learning_rate: that it is trained with unless told otherwise.
    """

    reads: ClassVar[Literal["rows", "statistics"]]
    learning_rate: ClassVar[float] = 1e-3
