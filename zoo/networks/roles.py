"""The role of each tensor of a network: how it starts, and how it acts on units.

Layers and norms of PyTorch say it by their class. For parameters of other modules, the architecture declares it in a
table `roles`.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

Role = Literal[
    "weight", "bias", "embedding", "scale", "shift", "norm_scale", "norm_shift", "norm_mean", "norm_variance"
]
LAYERS = (nn.Linear, nn.Bilinear, _ConvNd)  # with a weight (outputs, inputs, ...) and a bias
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, *BATCH_NORMS)
STATISTICS: dict[str, Role] = {"running_mean": "norm_mean", "running_var": "norm_variance"}  # of batch norm
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
MODE_DEPENDENT = (nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)  # other outputs in training


def named_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a module that a row holds, by name, in the order of the `state_dict`.

    These are its parameters and the running statistics of batch norm. A tensor with several names has the first.
    """
    parameters = dict(network.named_parameters())  # without further names of the same tensor
    norms = {name for name, module in network.named_modules() if isinstance(module, BATCH_NORMS)}
    tensors = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        owner, _, kind = name.rpartition(".")
        if name in parameters or (owner in norms and kind in STATISTICS):
            tensors[name] = tensor
    return tensors


def first_names(network: nn.Module) -> dict[str, str]:
    """Return the first name of the tensor that each name of a parameter or buffer stands for.

    They differ for tied weights, and for modules that are used under two names.
    """
    first: dict[int, str] = {}
    every = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    return {name: first.setdefault(id(tensor), name) for name, tensor in every}


def row_tensors(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return a `state_dict` without what a row does not hold: further names of tied weights, counters of batch norm.

    Raises:
        ValueError: If two names of one tensor have different values.
    """
    counters = {f"{n}.num_batches_tracked" for n, m in network.named_modules() if isinstance(m, BATCH_NORMS)}
    first = first_names(network)
    for name, own in first.items():
        if name != own and name in state and own in state and state[name].tolist() != state[own].tolist():
            raise ValueError(f"{name} and {own} differ, but are one tensor in the architecture")
    return {n: t for n, t in state.items() if n not in counters and first.get(n, n) == n}


def check_modules(network: nn.Module) -> None:
    """Check that a row determines what each submodule computes, in evaluation and in training.

    Raises:
        ValueError: If a submodule works differently in training, other than by statistics that a row holds, has
            parameters that do not train, or is not supported.
    """
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            raise ValueError(f"{name}: is a parameter that requires no gradient; make it a buffer")
    for name, module in network.named_modules():
        if fact := _refusal(module):
            raise ValueError(f"{name}: {type(module).__name__} {fact}" if name else f"{type(module).__name__} {fact}")


def _refusal(module: nn.Module) -> str | None:
    """Return why a module is not supported, and what to do."""
    dropout = module.p if isinstance(module, DROPOUTS) else getattr(module, "dropout", 0)
    if isinstance(dropout, int | float) and dropout > 0:
        return "drops units in training only; set its dropout to 0, or leave it out"
    if isinstance(module, nn.SyncBatchNorm):
        return "works across processes; use BatchNorm"
    if isinstance(module, MODE_DEPENDENT) or (isinstance(module, INSTANCE_NORMS) and module.track_running_stats):
        return "works differently in training and in evaluation; leave it out"
    if isinstance(module, BATCH_NORMS) and (not module.track_running_stats or module.momentum is None):
        return "has no running statistics with a momentum; set both, as PyTorch does by default"
    if isinstance(module, _ConvTransposeNd):
        return "has inputs before outputs in its weight, which is not supported; use upsampling and a convolution"
    if isinstance(module, _ConvNd) and 1 < module.groups < module.in_channels:
        return "has groups of several inputs, which is not supported; use one group, or one for each input"
    if isinstance(module, EMBEDDINGS) and module.padding_idx is not None:
        return "has a row that does not train; leave out padding_idx"
    return None


def groups_of(module: nn.Module) -> tuple[int, int]:
    """Return the number of groups in which a module treats its units, and the number of these; one group by default."""
    if isinstance(module, nn.GroupNorm):
        return module.num_groups, module.num_channels
    return (module.groups, module.out_channels) if isinstance(module, _ConvNd) else (1, 1)


def role_of(network: nn.Module, name: str) -> Role:
    """Return the role of a tensor: the declared one, or that of its place in a layer or norm of PyTorch.

    Arguments:
        network: Network, which may have a table `roles`.
        name: Name of the tensor.

    Raises:
        ValueError: If the role is neither declared nor known.
    """
    owner, _, kind = name.rpartition(".")
    module, declared = network.get_submodule(owner), getattr(network, "roles", {})
    if name in declared:
        if declared[name] not in get_args(Role):
            raise ValueError(f"{name}: there is no role {declared[name]!r}; use one of {', '.join(get_args(Role))}")
        return declared[name]
    if isinstance(module, BATCH_NORMS) and kind in STATISTICS:
        return STATISTICS[kind]
    known: dict[str, Role] = {}
    if isinstance(module, NORMS):
        known = {"weight": "norm_scale", "bias": "norm_shift"}
    elif isinstance(module, EMBEDDINGS):
        known = {"weight": "embedding"}
    elif isinstance(module, LAYERS):
        known = {"weight": "weight", "bias": "bias"}
    if kind not in known:
        raise ValueError(
            f"{name}: no layer or norm of PyTorch says what this parameter of {type(module).__name__} does; name its "
            "role in `roles`, such as scale (multiplies units, starts at 1) or shift (is added to units, starts at 0)"
        )
    return known[kind]
