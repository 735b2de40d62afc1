"""Zoos of others, made into ours. To add a form: a function `(source, folder, *, progress, …)`, and a line here."""

from collections.abc import Callable

from zoo.hub import import_zoo
from zoo.importers.folder import import_folder
from zoo.importers.paper import import_paper
from zoo.importers.unterthiner import import_unterthiner
from zoo.store import Zoo

IMPORTERS: dict[str, Callable[..., Zoo]] = {
    "hf": import_zoo,
    "paper": import_paper,
    "unterthiner": import_unterthiner,
    "folder": import_folder,
}

__all__ = ["IMPORTERS", "import_folder", "import_paper", "import_unterthiner"]
