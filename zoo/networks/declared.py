"""The parameters of a module, from what it declares: `axes`, and `roles` where its layers do not say them."""

from torch import nn

from zoo.networks.parameter import IDENTIFIED, Parameter, as_tuples
from zoo.networks.roles import check_modules, first_names, groups_of, named_tensors, role_of


def parameters_of(network: nn.Module) -> tuple[Parameter, ...]:
    """Return the parameters of a module that declares `axes`, in the order of its `state_dict`.

    Tied weights, one tensor under several names, are one parameter, under the first.

    Raises:
        ValueError: If a row of parameters does not determine what the module computes: a submodule computes something
            else in training than in evaluation or is not supported, `axes` does not name the module's parameters or
            names an axis that no parameter writes, or the role of a parameter is not known.
    """
    check_modules(network)
    axes, tensors, first = dict(network.axes), named_tensors(network), first_names(network)  # type: ignore[arg-type]
    for name in axes.keys() & first.keys():
        if first[name] != name:
            raise ValueError(f"{name}: is the same tensor as {first[name]}; give its axes under that name alone")
    if tensors.keys() != axes.keys():
        raise ValueError(f"axes and parameters differ in {sorted(tensors.keys() ^ axes.keys())}; correct `axes`")
    if unknown := getattr(network, "roles", {}).keys() - tensors.keys():
        raise ValueError(f"roles: {sorted(unknown)} are no parameters; correct `roles`")
    parameters = {}
    for name, tensor in tensors.items():
        role, weight = role_of(network, name), f"{name.rpartition('.')[0]}.weight"
        if role == "bias" and weight not in first:
            raise ValueError(f"{name}: is the bias of no layer with a weight; its role is shift")
        tied = first[weight] if role == "bias" and first[weight] != weight else None
        parameters[name] = Parameter(name, tuple(tensor.shape), as_tuples(name, axes[name]), role, tied)
    _check_written(tuple(parameters.values()))
    _check_groups(network, parameters)
    return tuple(parameters.values())


def _check_written(parameters: tuple[Parameter, ...]) -> None:
    """Raise a `ValueError` if units of an axis are only read, so that permuting them would change the function."""
    parts = [(parameter, part) for parameter in parameters for part in parameter.parts]
    written = {axis for parameter in parameters for axis in parameter.written}
    written |= {part.blocks[0] for _, part in parts if part.blocks}
    for parameter, part in parts:
        if part.axis not in {None, *IDENTIFIED, *written}:
            raise ValueError(
                f"{parameter.name}: no parameter writes the units of {part.axis}; if these are those of another axis "
                "at several positions, write a product, such as (('channels', 6), (None, 9)), in `axes`"
            )


def _check_groups(network: nn.Module, parameters: dict[str, Parameter]) -> None:
    """Raise a `ValueError` if a norm or a convolution treats units by group, and their axis has no such blocks."""
    for name, module in network.named_modules():
        groups, units = groups_of(module)
        weight = parameters.get(f"{name}.weight".removeprefix("."))
        blocks = weight.parts[0].blocks if weight is not None else None
        if 1 < groups < units and (blocks is None or blocks[1] != groups):
            fact = f"{type(module).__name__} treats its {units} units in {groups} groups"
            product = f"(('group', {groups}), ('unit', {units // groups}))"
            raise ValueError(f"{name}: {fact}; name them as blocks in the axes of its weight, such as {product}")
