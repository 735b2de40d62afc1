"""What a metanetwork is: an `nn.Module` that says what it reads, and gives one number for each network."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from torch import nn

from metanets.inputs import Reader


class Metanetwork(nn.Module):
    """Maps what its reader gives, `(N, features)`, to one prediction for each of N networks.

    Arguments:
        reader: of the networks; layout, marks of fixed entries and number of features are taken from it.

    One that is not trained by gradients has a method `fit(x, y, validation_x, validation_y, seed)`.

    Attributes:
        reads: the input it wants, a key of `metanets.inputs.READERS`.
        learning_rate: that it is trained with unless told otherwise.
        choices: values of the constructor's arguments among which a search chooses, see `metanets.tuning`.
        stacks: whether several seeds train faster together, under `vmap`.
        at_once: networks of a batch that are run at once on a CPU, where that keeps their states in cache.
    """

    reads: ClassVar[Literal["rows", "statistics", "tensors"]]
    learning_rate: ClassVar[float] = 1e-3
    choices: ClassVar[Mapping[str, Sequence[float]]] = {}
    stacks: ClassVar[bool] = False
    at_once: int | None = None

    def __init__(self, reader: Reader | None) -> None:
        super().__init__()
