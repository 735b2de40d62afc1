"""The module of a zoo's networks, built from the architecture and the treatment that its manifest names."""

from pathlib import Path

from pydantic import ValidationError
from torch import nn

from zoo.errors import RecipeError, ZooError
from zoo.networks.architectures import Architecture, sites_of
from zoo.networks.parameters import ParameterLayout
from zoo.store.manifest import Manifest
from zoo.store.shards import CONSTANTS, damaged
from zoo.treatments import TREATMENTS, Treatment
from zoo.treatments.base import F_OF, Held, activate


def build_module(
    manifest: Manifest, folder: Path, treatment: str, held: Held, *, own: bool, data_dir: Path | None
) -> nn.Module:
    """Return the module of a treatment's networks, which is the only use of the architecture's code.

    Arguments:
        manifest, folder, treatment: whose networks.
        held: what they hold constant; if `own`, of each network.
        own: whether they do.
        data_dir: folder of files that the networks themselves read.

    Raises:
        ZooError: if the architecture or the treatment is not known here, or is another one than that of the networks.
    """
    chosen = _treatment(manifest, folder, treatment)
    if "held_F" in manifest.columns_of(treatment) and not own:
        raise ZooError(
            f"{folder}: each of the {treatment} networks has its own activations; name some: stack({treatment!r}, i)"
        )
    name, arguments = _architecture(manifest, folder)
    try:
        module = chosen.build(name, arguments, data_dir)
        layout = ParameterLayout.of(module)
    except (RecipeError, ValueError) as error:
        raise ZooError(f"{folder}: its networks cannot be run: {error}") from None
    known = f"{folder}: the architecture {name!r} that is known here has other"
    remedy = f"than {treatment}'s networks; provide the code that they were made with"
    if layout != ParameterLayout.from_json(manifest.layouts[treatment]):
        raise ZooError(f"{known} parameters {remedy}")
    _check_held(module, chosen, held, layout, folder / treatment / CONSTANTS)
    activate(module, chosen, held, own)
    if sites_of(module) != manifest.sites[treatment]:
        raise ZooError(f"{known} activations {remedy}")
    return module


def _check_held(module: Architecture, chosen: Treatment, held: Held, layout: ParameterLayout, path: Path) -> None:
    """See to it that what is held is what the treatment wants, as large as the axes on which it acts."""
    wanted = chosen.holds(module.sites)
    if chosen.shares and held.keys() != wanted:
        raise damaged(path, f"it holds {', '.join(sorted(held)) or 'nothing'} instead of {', '.join(sorted(wanted))}")
    for site, axis in module.sites.items():
        F, units = held.get(F_OF + site), layout.axes[axis]
        if F is not None and F.shape[-2:] != (units, units):
            raise damaged(path, f"{F_OF + site} is not of shape ({units}, {units})")


def _treatment(manifest: Manifest, folder: Path, treatment: str) -> Treatment:
    values = manifest.recipe["treatments"][treatment]
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in TREATMENTS:
        raise ZooError(f"{folder}: {treatment} is of the kind {kind!r}, which this version of asymzoo does not know")
    try:
        return TREATMENTS[kind].model_validate(values)
    except ValidationError as error:
        fact = error.errors()[0]
        place = ".".join(map(str, fact["loc"]))
        raise ZooError(f"{folder}: treatments.{treatment}.{place}: {fact['msg']}; install a newer asymzoo") from None


def _architecture(manifest: Manifest, folder: Path) -> tuple[str, dict[str, object]]:
    values = manifest.recipe.get("architecture")
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        raise ZooError(f"{folder}: zoo.json names no architecture; restore it from a copy")
    return values["name"], {name: value for name, value in values.items() if name != "name"}
