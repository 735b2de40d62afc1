"""Small networks, treatments and data that tests share.

The suites in `tests/contracts` run over `NETWORKS` and `SETTINGS`: a new architecture or treatment needs a line here.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.unusual import Flat, Normed, Skip, Unusual
from zoo.data import Data
from zoo.networks.architectures import ARCHITECTURES, register
from zoo.recipes.recipe import Recipe
from zoo.seeds import rng_for
from zoo.treatments import TREATMENTS, Treated

CLASSES = 4
register(Flat, "flat")
register(Unusual, "unusual")
register(Skip, "skip")
register(Normed, "normed")


@dataclass(frozen=True)
class Network:
    """An architecture's name, its arguments, and the shape of one example."""

    name: str
    arguments: dict[str, Any]
    shape: tuple[int, ...]

    def build(self):
        return ARCHITECTURES[self.name](**self.arguments)

    def examples(self, batch=6, seed=0):
        if self.name == "gnn":  # the numbers of nodes
            return torch.from_numpy(np.random.default_rng(seed).permutation(1000)[:batch, None].astype(float))
        x = np.random.default_rng(seed).standard_normal((batch, *self.shape))
        return torch.from_numpy(x)


NETWORKS = {
    "mlp": Network("mlp", {"widths": [8, 16, 8, CLASSES]}, (8,)),
    "mlp_plain": Network("mlp", {"widths": [8, 16, 8, CLASSES], "norm": "none"}, (2, 4)),
    "cnn": Network("cnn", {"channels": [2, 4, 5], "classes": CLASSES}, (2, 8, 8)),
    "cnn_norm": Network(
        "cnn",
        {"channels": [1, 4, 5], "classes": CLASSES, "norm": "group", "activation": "tanh", "padding": 1, "stride": 1},
        (1, 5, 5),
    ),
    "resnet8": Network("resnet", {"blocks": 1, "width": 0.375, "classes": CLASSES}, (3, 8, 8)),
    "gnn": Network("gnn", {"classes": CLASSES, "hidden": 12}, (1,)),
    "resnet_batch": Network("resnet", {"width": 0.375, "channels": 1, "classes": CLASSES, "norm": "batch"}, (1, 8, 8)),
    "gnn_batch": Network("gnn", {"classes": CLASSES, "hidden": 12, "norm": "batch"}, (1,)),
    "vit": Network(
        "vit",
        {"size": 4, "patch": 2, "channels": 2, "width": 8, "heads": 2, "blocks": 1, "classes": CLASSES},
        (2, 4, 4),
    ),
    "flat": Network("flat", {"classes": CLASSES}, (2, 6, 6)),
    "flat_last": Network("flat", {"classes": CLASSES, "channels_last": True}, (2, 6, 6)),
    "skip": Network("skip", {"classes": CLASSES}, (2, 6, 6)),
    "normed": Network("normed", {"classes": CLASSES}, (8, 8)),
    "unusual": Network("unusual", {"classes": CLASSES}, (8,)),
    "resnet14": Network("resnet", {"blocks": 2, "width": 0.375, "channels": 1, "classes": CLASSES}, (1, 6, 6)),
}

SETTINGS = {
    "standard": {"kind": "standard"},
    "narrow": {"kind": "narrow", "width": 0.75},
    "w_asymmetric": {"kind": "w_asymmetric", "n_fix": 2},
    "w_masked": {"kind": "w_asymmetric", "n_fix": 2, "kappa": 0},
    "w_initialised": {"kind": "w_initialised", "n_fix": 2},
    "w_rescaled": {"kind": "w_initialised", "n_fix": 2, "shared": False},
    "sigma_asymmetric": {"kind": "sigma_asymmetric"},
    "sigma_scaled": {"kind": "sigma_asymmetric", "variance": "inverse_width"},
    "syre": {"kind": "syre", "std": 0.1, "anisotropy": 0.5},
}


def treatment_of(setting):
    """The treatment of a key of `SETTINGS`, or of a dict of arguments."""
    arguments = SETTINGS[setting] if isinstance(setting, str) else setting
    return TREATMENTS[arguments["kind"]](**arguments)


def treat(setting, network="mlp", seed=0, dtype=torch.float32):
    """A treated network, in a precision."""
    network = NETWORKS[network] if isinstance(network, str) else network
    treated = Treated.of(treatment_of(setting), network.name, network.arguments, seed=seed)
    return treated.to("cpu", dtype)


def some_thetas(treated, networks=3, seed=0, dtype=torch.float64) -> Tensor:
    """Networks in general position: norms, too, are no identities."""
    rng = np.random.default_rng(seed)
    rows = [treated.layout.draw_initial(rng).to(dtype) for _ in range(networks)]
    noise = torch.from_numpy(rng.normal(0, 0.2, (networks, treated.layout.size)))
    return treated.keep_trainable(torch.stack(rows) + noise.to(dtype))


def rolled(layout, axis):
    """Permutations that move each unit of an axis by one, those in blocks within their block."""
    order = torch.arange(layout.axes[axis])
    if axis in layout.blocks:
        return {axis: order.view(layout.axes[layout.blocks[axis]], -1).roll(1, 1).flatten()}
    moved = {axis: order.roll(1)}
    for inner in (inner for inner, outer in layout.blocks.items() if outer == axis):
        moved[inner] = torch.arange(layout.axes[inner]).view(layout.axes[axis], -1).roll(1, 0).flatten()
    return moved


def some_data(shape=(8,), train=43, test=20, seed=0) -> Data:
    """Blobs, one for each class, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CLASSES, *shape))

    def split(examples):
        y = rng.integers(0, CLASSES, examples)
        x = centres[y] + 0.7 * rng.standard_normal((examples, *shape))
        return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)

    return Data("blobs", *split(train), *split(test), CLASSES)


def small_recipe(pairs=6, **changes) -> Recipe:
    """A recipe of one or two seconds, of every treatment."""
    return Recipe.read(
        {
            "name": "small",
            "seed": 5,
            "pairs": pairs,
            "data": {"name": "digits", "train_limit": 200},
            "architecture": {"name": "mlp", "widths": [64, 16, 16, 10]},
            "training": {
                "batch_size": 32,
                "schedule": "triangular",
                "learning_rate": {"log_uniform": [1e-3, 1e-1]},
                "weight_decay": {"log_uniform": [1e-4, 1e-1]},
                "label_smoothing": {"uniform": [0.0, 0.2]},
                "epochs": {"integers": [1, 4]},
            },
            "treatments": SETTINGS,
            **changes,
        }
    )


def digest_of_draws(setting, network) -> str:
    """Identify all that is drawn for a treated network: what is held, and the start of a pair."""
    treated = treat(setting, network, seed=3)
    initial = treated.layout.draw_initial(rng_for(3, "initial", 1))
    drawn = treated.held | {"start": treatment_of(setting).start(initial, treated.layout, 3, 1)}
    total = blake2b(digest_size=16)
    for name in sorted(drawn):
        total.update(name.encode())
        total.update(drawn[name].numpy().tobytes())
    return total.hexdigest()


def move_slowly(image, flip, shift, centre, cutout):
    """Flip, shift with zeros moving in, and cut a square out of one image `(C, H, W)`, pixel by pixel."""
    height, width = image.shape[1:]
    moved = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            from_y, from_x = y - shift[0], x - shift[1]
            if 0 <= from_y < height and 0 <= from_x < width:
                moved[:, y, x] = image[:, from_y, width - 1 - from_x if flip else from_x]
    top, left = centre[0] - cutout // 2, centre[1] - cutout // 2
    for y in range(max(0, top), min(height, top + cutout)):
        for x in range(max(0, left), min(width, left + cutout)):
            moved[:, y, x] = 0
    return moved


def augment_slowly(augmentation, images, moves):
    """Move each of `(B, C, H, W)` by `moves` of leading shape `(B,)`."""
    each = zip(images, moves.flip.tolist(), moves.shift.tolist(), moves.centre.tolist(), strict=True)
    return torch.stack([move_slowly(*one, augmentation.cutout) for one in each])
