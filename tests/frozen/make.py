"""Make the frozen files of the present version: a zoo, its export, a checkpoint, and what is read from them."""

import json
import sys
from pathlib import Path

import torch

from metanets import Settings, Task, train
from zoo import Recipe, Zoo, generate, load_data
from zoo.sharing.export import export_zoo
from zoo.store.columns import WEIGHTS

RECIPE = {
    "name": "frozen",
    "description": "A zoo of the smallest networks, kept to be read by later versions.",
    "pairs": 12,
    "data": {"name": "digits", "train_limit": 256},
    "architecture": {"name": "mlp", "widths": [64, 6, 10]},
    "training": {"learning_rate": {"log_uniform": [1e-3, 1e-1]}, "epochs": {"integers": [1, 2]}},
    "treatments": {
        "standard": {"kind": "standard"},
        "w_asymmetric": {"kind": "w_asymmetric", "n_fix": [4, 2]},
        "w_own": {"kind": "w_asymmetric", "n_fix": [4, 2], "shared": False},
        "sigma_asymmetric": {"kind": "sigma_asymmetric"},
        "sigma_own": {"kind": "sigma_asymmetric", "shared": False},
        "syre": {"kind": "syre"},
    },
}


def facts(zoo: Zoo) -> dict[str, dict[str, list[float]]]:
    """Return what is to be read from a zoo by every later version: sums of its columns, and what its networks give."""
    x = load_data("digits").test_x[:8]
    found = {}
    for treatment in zoo.treatments:
        networks = zoo.networks(treatment, diverged=True)
        numbers = [name for name in networks.columns if networks[name].dtype.kind in "iuf"]
        sums = {name: [float(torch.from_numpy(networks[name]).double().nansum())] for name in numbers}
        sums |= {name: torch.from_numpy(networks[name]).double().sum(1).tolist() for name in WEIGHTS}
        found[treatment] = sums | {"logits": networks.stack().logits(x).double().sum((1, 2)).tolist()}
    return found


def main(folder: Path) -> None:
    """Write all files into a new folder."""
    zoo = generate(Recipe.read(RECIPE), folder / "zoo", shard_pairs=8)
    export_zoo(zoo, folder / "export")
    task, settings = Task(recipe=zoo.name, learn_from=("standard",)), Settings(epochs=2, options={"hidden": 4})
    (metanet,) = train(task, zoo, "statnn", settings=settings)
    metanet.save(folder / "statnn.safetensors")
    known = {"zoo": facts(zoo), "statnn": metanet.predict(zoo["standard"].weights[:]).tolist()}
    (folder / "facts.json").write_text(json.dumps(known, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
