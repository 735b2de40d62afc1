"""Builds the module of a zoo's networks from the architecture and the treatment that the manifest names."""

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
    """Return the module of the networks under a treatment. Only this function needs the architecture's code.

    Arguments:
        manifest: Manifest of the zoo.
        folder: Folder of the zoo.
        treatment: Name of the treatment.
        held: What the treatment holds constant; if `own`, the first dimension of each tensor is the networks.
        own: Whether `held` has constants for each network.
        data_dir: Folder of files that the networks themselves read, such as a graph.

    Raises:
        ZooError: If the architecture or the treatment is not known here, or differs from that of the networks.
    """
    chosen = _treatment(manifest, folder, treatment)
    if "held_F" in manifest.columns_of(treatment) and not own:
        raise ZooError(f"{folder}: the {treatment} networks have their own activations; use zoo[{treatment!r}].stack()")
    name, arguments = _architecture(manifest, folder)
    try:
        module = chosen.build(name, arguments, data_dir)
        layout = ParameterLayout.of(module)
    except (RecipeError, ValueError) as error:
        raise ZooError(f"{folder}: the networks cannot run: {error}") from None
    fact = f"{folder}: the architecture {name!r} known here has other"
    remedy = f"than the {treatment} networks; give the code that made them"
    if layout != ParameterLayout.from_json(manifest.layouts[treatment]):
        raise ZooError(f"{fact} parameters {remedy}")
    _check_held(module, chosen, held, layout, folder / treatment / CONSTANTS)
    activate(module, chosen, held, own)
    if sites_of(module) != manifest.sites[treatment]:
        raise ZooError(f"{fact} activations {remedy}")
    return module


def _check_held(module: Architecture, chosen: Treatment, held: Held, layout: ParameterLayout, path: Path) -> None:
    """Check that the constants are those of the treatment, and that matrices fit the axes on which they act."""
    wanted = chosen.holds(module.sites)
    if chosen.shares and held.keys() != wanted:
        raise damaged(path, f"it has {', '.join(sorted(held)) or 'nothing'} instead of {', '.join(sorted(wanted))}")
    for site, axis in module.sites.items():
        F, units = held.get(F_OF + site), layout.axes[axis]
        if F is not None and F.shape[-2:] != (units, units):
            raise damaged(path, f"{F_OF + site} does not have the shape ({units}, {units})")


def _treatment(manifest: Manifest, folder: Path, treatment: str) -> Treatment:
    values = manifest.recipe["treatments"][treatment]
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in TREATMENTS:
        raise ZooError(f"{folder}: {treatment} has the unknown kind {kind!r}; install a newer asymzoo")
    try:
        return TREATMENTS[kind].model_validate(values)
    except ValidationError as error:
        fact = error.errors()[0]
        place = ".".join(map(str, fact["loc"]))
        raise ZooError(f"{folder}: treatments.{treatment}.{place}: {fact['msg']}; install a newer asymzoo") from None


def _architecture(manifest: Manifest, folder: Path) -> tuple[str, dict[str, object]]:
    values = manifest.recipe.get("architecture")
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        raise ZooError(f"{folder}: zoo.json does not name an architecture; restore it from a copy")
    return values["name"], {name: value for name, value in values.items() if name != "name"}
