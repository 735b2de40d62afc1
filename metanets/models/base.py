"""What a metanetwork is: an `nn.Module` that says what it reads and gives one output, or one a class, per network."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from metanets.descent import descend
from metanets.examples import Examples
from metanets.inputs import Reader
from metanets.links import Link
from metanets.settings import Settings
from metanets.tasks import Access


class Metanetwork(nn.Module):
    """Maps what its reader gives, `(N, features)`, to outputs `(N, outputs)`.

        >>> class Mean(Metanetwork):
        ...     reads = "rows"
        ...     def __init__(self, reader, outputs=1):
        ...         super().__init__(reader)
        ...         self.output = nn.Linear(1, outputs)
        ...     def forward(self, x):
        ...         return self.output(x.mean(1, keepdim=True))

    Arguments:
        reader: Reader of the networks; layout, mask and number of features are taken from it.

    Attributes:
        reads: Name of the reader, a key of `metanets.inputs.READERS`.
        access: What it uses of the networks, see `metanets.tasks.Task`.
        settings: Settings that it is trained with by default.
        learning_rate: Learning rate where settings have none.
        choices: Values of the constructor's arguments among which a search chooses, see `metanets.tuning`.
        stacks: Whether several seeds train faster together, under `vmap`.
        takes_steps: Whether it is trained by steps of an optimiser, so that its learning rate can be searched.
        at_once: Number of networks of a batch that are run at once on a CPU, where their states then stay in cache.
    """

    reads: ClassVar[str] = "rows"
    access: ClassVar[Access] = "weights"
    settings: ClassVar[Settings] = Settings()
    learning_rate: ClassVar[float] = 1e-3
    choices: ClassVar[Mapping[str, Sequence[Any]]] = {}
    stacks: ClassVar[bool] = False
    takes_steps: ClassVar[bool] = True
    at_once: int | None = None

    def __init__(self, reader: Reader | None) -> None:
        super().__init__()

    @classmethod
    def link(cls, link: Link) -> Link:
        """Return the link that outputs pass through; by default that of the target."""
        return link

    @classmethod
    def learn(
        cls,
        modules: Sequence[Any],
        train: Examples,
        validation: Examples,
        link: Link,
        settings: Settings,
        seeds: Sequence[int],
    ) -> list[tuple[int, int]]:
        """Train metanetworks of this class, one for each seed, by default by gradient descent.

        Arguments, and the numbers of epochs that are returned, are those of `metanets.descent.descend`.
        """
        rate = settings.learning_rate or cls.learning_rate
        settings = settings.model_copy(update={"learning_rate": rate})
        return descend(modules, train, validation, link, settings, seeds, at_once=modules[0].at_once)
