"""Importers, which make zoos from networks in other formats.

To add one, write a function `(source, folder, *, progress, …)` in a file here and add a line to `IMPORTERS`.
"""

from collections.abc import Callable

from zoo.sharing.importers.folder import import_folder
from zoo.sharing.importers.hf import import_zoo
from zoo.sharing.importers.paper import import_paper
from zoo.sharing.importers.unterthiner import import_unterthiner
from zoo.store.zoo import Zoo

IMPORTERS: dict[str, Callable[..., Zoo]] = {
    "hf": import_zoo,
    "paper": import_paper,
    "unterthiner": import_unterthiner,
    "folder": import_folder,
}

__all__ = ["IMPORTERS", "import_folder", "import_paper", "import_unterthiner"]
