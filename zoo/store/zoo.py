"""The `Zoo`: paired networks on disk."""

from functools import reduce

import numpy as np

from zoo.errors import ZooError
from zoo.store.networks import Networks, networks_of
from zoo.store.reading import Store


class Zoo(Store):
    """Paired networks on disk. `zoo[treatment]` returns the networks of a treatment.

        >>> zoo = open_zoo("zoos/digits-mlp")
        >>> zoo
        Zoo('digits-mlp', 24 pairs, treatments=['standard', 'w_asymmetric'])
        >>> standard, asymmetric = zoo.paired("standard", "w_asymmetric")
        >>> difference = asymmetric["test_accuracy"] - standard["test_accuracy"]

    A pair is one draw of hyperparameters, initial weights and order of minibatches, which every treatment trains. A zoo
    can be pickled and used in data-loader workers. Arguments, attributes and errors are those of `Store`.
    """

    def __repr__(self) -> str:
        """Show the name, the number of pairs and the treatments."""
        return f"Zoo({self.name!r}, {len(self)} pairs, treatments={list(self.treatments)})"

    def __getitem__(self, treatment: str) -> Networks:
        """Return the networks of a treatment, without those that diverged; `networks` can include them.

        Raises:
            ZooError: If there is no such treatment.
        """
        return self.networks(treatment)

    def networks(self, treatment: str, *, diverged: bool = False) -> Networks:
        """Return the networks of a treatment.

        Arguments:
            treatment: Name of the treatment.
            diverged: Whether to include networks that diverged.

        Raises:
            ZooError: If there is no such treatment.
        """
        return networks_of(self, treatment, diverged=diverged)

    def paired(self, *treatments: str) -> tuple[Networks, ...]:
        """Return the networks of several treatments, only of pairs that diverged under none of them.

        Position `i` is the same pair under each treatment, so a difference between them is due to the treatment.

        Raises:
            ZooError: If there is no such treatment.
        """
        if not treatments:
            raise ZooError(f"{self.folder}: paired: name two or more of {', '.join(self.treatments)}")
        pairs = reduce(np.intersect1d, [self[treatment].pairs for treatment in treatments])
        return tuple(Networks(self, treatment, pairs) for treatment in treatments)
