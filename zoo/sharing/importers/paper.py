"""Imports the networks that were published with the paper: 10,000 ResNet8 on CIFAR-10 of each of four kinds.

A file `17.pt` contains `(state_dict, test accuracy in percent)` of the network with the hyperparameters in row 17 of
`hparams.csv`. The constants of a network are buffers in its `state_dict`.

Source: Lim, Putterman, Walters, Maron, Jegelka, *The Empirical Impact of Neural Parameter Symmetries, or Lack
Thereof*, 2024, section 5.3, https://arxiv.org/abs/2405.20231.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import ZooError
from zoo.progress import Progress, ignore
from zoo.recipes.recipe import Recipe
from zoo.sharing.importers.files import (
    OVERHEAD,
    Shapes,
    check_tensors,
    inside,
    numbers,
    read_saved,
    read_table,
    whole_numbers,
)
from zoo.sharing.importers.writing import Arrays, bounds, write_zoo
from zoo.store.held import pack_held
from zoo.store.zoo import Zoo
from zoo.treatments import Treated
from zoo.treatments.base import Held

BASE = "cifar10-resnet8"  # the built-in recipe of such networks
KINDS = ("standard", "narrow", "w_asymmetric", "sigma_asymmetric")
TABLE = "hparams.csv"
IMPORTED = {
    "source": "Lim et al. 2024, section 5.3",
    "mean": [byte / 255 for byte in (125.307, 122.961, 113.8575)],
    "deviation": [byte / 255 for byte in (51.5865, 50.847, 51.255)],
}


@dataclass(frozen=True)
class Published:
    """The published networks of one kind.

    Arguments:
        source: Folder that is imported; all files must be inside it.
        place: Subfolder of the networks, such as `resnet8/`; empty if they are in `source` itself.
        kind: Kind of the networks, one of `KINDS`, recognised from the first network.
        treated: Architecture under the treatment of this kind.
        mask_constant: Factor on `normal_mask`.
    """

    source: Path
    place: str
    kind: str
    treated: Treated
    mask_constant: float

    @property
    def shapes(self) -> Shapes:
        """Shapes of all tensors of a file, by name."""
        shapes = {parameter.name: parameter.shape for parameter in self.treated.layout.parameters}
        if self.kind == "w_asymmetric":
            for weight in self.treated.layout.weights:
                layer = weight.name.removesuffix(".weight")
                shapes |= {f"{layer}.mask": weight.shape, f"{layer}.normal_mask": weight.shape}
        if self.kind == "sigma_asymmetric":
            shapes |= {_f_mat(name): (*F.shape, 1, 1) for name, F in self.treated.held.items()}
        return shapes

    def network(self, i: int) -> tuple[Tensor, Held, float]:
        """Read network `i`: its row `(P,)` as the network uses it, its constants, and its test accuracy, a fraction."""
        path = inside(self.source, f"{self.place}{i}.pt")
        state, accuracy = read_network(path, self.treated)
        tensors = check_tensors(path, state, self.shapes)
        row = self.treated.layout.flatten(tensors)
        if self.kind == "w_asymmetric":
            held = self._fixed(path, tensors)
            # The stored values of fixed entries are not used by the network and may be old.
            return row.where(held["mask"], held["constants"]), held, accuracy
        if self.kind == "sigma_asymmetric":
            return row, {name: tensors[_f_mat(name)][:, :, 0, 0].contiguous() for name in self.treated.held}, accuracy
        return row, {}, accuracy

    def _fixed(self, path: Path, tensors: dict[str, Tensor]) -> Held:
        """Return mask and constants of a W-Asymmetric network."""
        layout = self.treated.layout
        mask, constants = torch.ones(layout.size, dtype=torch.bool), torch.zeros(layout.size)
        for weight in layout.weights:
            layer, where = weight.name.removesuffix(".weight"), layout.slices[weight.name]
            trains, normal = tensors[f"{layer}.mask"].flatten(), tensors[f"{layer}.normal_mask"].flatten()
            if not ((trains == 0) | (trains == 1)).all() or not normal.isfinite().all():
                fact = f"the mask of {layer} is not of 0 and 1, or its constants are not finite"
                raise ZooError(f"{path}: {fact}; download it again")
            mask[where] = trains.bool()
            constants[where] = (1 - trains) * self.mask_constant * normal
        return {"mask": mask, "constants": constants}

    def holds_for_each(self, networks: int) -> bool:
        """Return whether each network has its own constants, judged by the first two networks."""
        if networks < 2 or not (held := self.network(0)[1]):
            return False
        other = self.network(1)[1]
        return not all(torch.equal(other[name], tensor) for name, tensor in held.items())

    def networks(self, run: range, held: Held | None) -> Arrays:
        """Read networks of consecutive numbers.

        Arguments:
            run: Numbers of the networks.
            held: Constants that all networks share; None if each network has its own.

        Returns:
            Columns of a shard, by name.
        """
        weights = np.empty((len(run), self.treated.layout.size), np.float32)
        accuracy, constants = np.empty(len(run), np.float32), []
        for k, i in enumerate(run):
            row, own, accuracy[k] = self.network(i)
            constants.append(own)
            for name, tensor in (held or {}).items():
                if not torch.equal(own[name], tensor):
                    fact = f"the {name} of {i}.pt differ from those of 0.pt, which 1.pt shares"
                    raise ZooError(f"{self.source / self.place}: {fact}; leave the folder out")
            weights[k] = row.numpy()
        if accuracy.max() <= 0.01:
            fact = "accuracies are fractions, but the published ones are in percent"
            raise ZooError(f"{self.source / self.place}: {fact}; download the folder again")
        columns = {"weights": weights, "test_accuracy": accuracy}
        if held is None:
            columns |= pack_held({name: torch.stack([own[name] for own in constants]) for name in constants[0]})
        return columns


def import_paper(
    source: str | Path,
    folder: str | Path,
    *,
    mask_constant: float = 2.0,
    progress: Progress = ignore,
) -> Zoo:
    """Make a zoo of the published networks; networks with the same number are a pair.

    The kind of the networks in a folder is recognised from the buffers and the width of the first network, not from the
    folder's name. If masks or matrices of the first two networks differ, they are stored for each network. A network
    with a weight that is not finite is kept and flagged as diverged.

    Arguments:
        source: One of the published folders, or a folder that contains several. `hparams.csv` is in each of them or
            beside them.
        folder: New or empty folder for the zoo.
        mask_constant: Factor that gives the fixed entries of W-Asymmetric networks, `mask_constant * normal_mask`.
        progress: Called with the number of networks that were just written.

    Raises:
        ZooError: If a file is missing or not valid, the tables differ, or the networks of a folder share their
            constants only in part.
    """
    source = Path(source)
    found = _recognise(source, Recipe.load(BASE), mask_constant)
    hyperparameters = _hyperparameters(found.values())
    first = {kind: found[kind].network(0)[1] for kind in KINDS if kind in found}
    own = {kind for kind in first if found[kind].holds_for_each(len(hyperparameters["epochs"]))}
    shared = {kind: held for kind, held in first.items() if kind not in own}

    def read(kind: str, run: range) -> Arrays:
        known = {name: values[run.start : run.stop] for name, values in hyperparameters.items()}
        return found[kind].networks(run, shared.get(kind)) | known

    treatments = {
        kind: _treatment(found[kind], held) | ({"shared": False} if kind in own else {}) for kind, held in first.items()
    }
    recipe = _recipe(treatments, hyperparameters, source)
    known = hyperparameters | {"test_accuracy": np.empty(0, np.float32)}
    return write_zoo(Path(folder), recipe, known, shared, read, progress)


def _treatment(published: Published, held: Held) -> dict[str, Any]:
    """Return the treatment, as in a recipe, of networks with given constants."""
    if "mask" in held:
        return describe_mask(published, held["mask"])
    base: dict[str, Any] = Recipe.load(BASE).to_json()["treatments"][published.kind]
    return base


def _recipe(treatments: dict[str, dict[str, Any]], hyperparameters: Arrays, source: Path) -> Recipe:
    """Return a recipe that describes the published networks."""
    values = Recipe.load(BASE).to_json()
    changed = {
        "name": "lim2024-resnet8",
        "description": "ResNet8 with varied hyperparameters on CIFAR-10, published with Lim et al. (2024).",
        "pairs": len(hyperparameters["epochs"]),
        "training": values["training"] | bounds(hyperparameters),
        "treatments": treatments,
        "imported": IMPORTED,
    }
    return Recipe.read(values | changed, str(source))


def _recognise(source: Path, base: Recipe, mask_constant: float) -> dict[str, Published]:
    """Return the networks in a folder, or in its subfolders, by kind."""
    try:
        places = [f"{path.name}/" for path in sorted(source.iterdir()) if (path / "0.pt").is_file()]
    except OSError as error:
        raise ZooError(f"{source}: cannot be read ({error.strerror}); give the folder of published networks") from None
    if (source / "0.pt").is_file():
        places = [""]
    if not places:
        raise ZooError(f"{source}: has no 0.pt, nor have its subfolders; unpack the published networks there")
    treated = {kind: base.treat(kind) for kind in KINDS}
    narrow = treated["narrow"].layout["conv1.weight"].shape
    found: dict[str, Published] = {}
    for place in places:
        state, _ = read_network(inside(source, f"{place}0.pt"), treated["standard"])
        names, first = {str(name).rpartition(".")[2] for name in state}, state.get("conv1.weight")
        kind = "narrow" if isinstance(first, Tensor) and first.shape == narrow else "standard"
        kind = "w_asymmetric" if "mask" in names else "sigma_asymmetric" if "F_mat" in names else kind
        if kind in found:
            raise ZooError(f"{source}: {found[kind].place} and {place} both have {kind} networks; leave one out")
        found[kind] = Published(source, place, kind, treated[kind], mask_constant)
    return found


def read_network(path: Path, treated: Treated) -> tuple[dict[Any, Any], float]:
    """Read a published file: its `state_dict`, and the test accuracy as a fraction."""
    most = OVERHEAD + 12 * treated.layout.size  # a weight, a mask and a constant for each entry, in float32
    match read_saved(path, most):
        case (dict() as state, float() | int() as percent) if 0 <= percent <= 100:
            return state, percent / 100
        case (dict(), float() | int() as percent):
            raise ZooError(f"{path}: the accuracy is {percent}, which is not a percentage; download it again")
    raise ZooError(f"{path}: is not (state_dict, accuracy); check that it is a published file")


def _f_mat(name: str) -> str:
    """Return the published name of a matrix that is called, for example, `F/layer1.0.nonlin1` here."""
    return f"{name.removeprefix('F/')}.F_mat"


def describe_mask(published: Published, mask: Tensor) -> dict[str, Any]:
    """Return a treatment, as in a recipe, that draws masks of the same form.

    Arguments:
        published: Networks with this mask.
        mask: Mask `(P,)`, true where entries train.

    Raises:
        ZooError: If rows of one weight have different numbers of fixed entries.
    """
    n_fix, kinds, wholly_fixed = [], [], []
    for weight in published.treated.layout.weights:
        fixed = ~mask[published.treated.layout.slices[weight.name]].view(*weight.shape[:2], -1)
        filters = torch.equal(fixed.any(2), fixed.all(2))
        counts = (fixed.all(2) if filters else fixed.flatten(1)).sum(1)
        if (counts != counts[0]).any():
            raise ZooError(
                f"{published.source / published.place}: rows of {weight.name} have {counts.min()} to {counts.max()} "
                "fixed entries, but published networks have the same number in each row; leave the folder out"
            )
        n_fix.append(int(counts[0]))
        kinds.append("filter_random_subsets" if filters else "random_subsets")
        wholly_fixed += [weight.name.removesuffix(".weight")] if fixed.all() else []
    kappa = published.mask_constant
    return {"kind": "w_asymmetric", "n_fix": n_fix, "kappa": kappa, "mask": kinds, "wholly_fixed": wholly_fixed}


def _hyperparameters(folders: Iterable[Published]) -> dict[str, NDArray[Any]]:
    """Return the hyperparameters of the networks, after a check that the tables of all folders agree."""
    agreed: dict[str, NDArray[Any]] = {}
    for published in folders:
        within = f"{published.place}{TABLE}"
        path = inside(published.source, within if (published.source / within).is_file() else TABLE)
        table = read_table(path, ("lr", "weight_decay", "label_smoothing", "epochs"))
        values = {
            "learning_rate": numbers(table, "lr", path, 0.0),
            "weight_decay": numbers(table, "weight_decay", path, 0.0),
            "label_smoothing": numbers(table, "label_smoothing", path, 0.0, 1.0),
            "epochs": whole_numbers(table, "epochs", path, 1),
        }
        agreed = agreed or values
        if not all(np.array_equal(values[name], agreed[name]) for name in values):
            fact = "differs from the table of another folder, so there are no pairs"
            raise ZooError(f"{path}: {fact}; import the folders separately")
        if (published.source / f"{published.place}{len(table)}.pt").exists():
            raise ZooError(f"{path}: has {len(table):,} rows, but there is a {len(table)}.pt; download the table again")
    return agreed
