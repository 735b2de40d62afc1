"""A device `pretend`, whose tensors lie on the CPU, as a stand-in for a GPU.

As on a GPU, operations refuse tensors of two devices. `READS` lists what makes the host wait for the device, `COPIES`
what is copied to it. All code but that for CUDA itself can run on it. It uses an experimental part of PyTorch.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
READS: list[str] = []
COPIES: list[str] = []
WAITING = {
    aten._local_scalar_dense.default,
    aten.is_nonzero.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
    aten.equal.default,
}
MASKING = {aten.index.Tensor, aten.index_put_.default}  # with a mask, they look how many entries it selects
ANY_DEVICE = {aten._to_copy.default, aten.copy_.default, aten.index.Tensor, aten.index_put_.default}


def available() -> bool:
    """Prepare the device; return whether this version of PyTorch can."""
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
    except ImportError:
        return False
    if torch._C._get_privateuse1_backend_name() != "pretend":
        _setup_privateuseone_for_python_backend("pretend")
        library.impl("empty_strided", _empty_strided, "PrivateUse1")  # `torch.tensor` needs these, for no mode sees it
        library.impl("_copy_from", _copy_from, "PrivateUse1")
    return True


library = torch.library.Library("aten", "IMPL")


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **others: Any) -> "There":
    return There(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: torch.Tensor, to: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    _inner(to).copy_(_inner(source))
    return to


class There(torch.Tensor):
    """A tensor on the device."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "There":
        """Return a tensor on the device with the numbers of one on the CPU."""
        there = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device("pretend:0"),
        )
        there.inner = inner
        return there

    @property
    def data(self) -> torch.Tensor:
        """Its numbers, apart from any gradient."""
        return self.detach()

    @data.setter
    def data(self, values: "There") -> None:
        self.inner = values.inner

    def __repr__(self) -> str:
        """Return it as one of the CPU."""
        return f"There({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        return _run(function, args, kwargs or {})


class Pretend(TorchDispatchMode):
    """While it is entered, there is a device `pretend`."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, There)]
    if ours and function not in ANY_DEVICE and any(t.ndim for t in tensors if not isinstance(t, There)):
        raise RuntimeError(f"{function}: tensors of two devices")
    device = kwargs.get("device")
    there = bool(ours) if device is None else torch.device(device).type == "pretend"
    if function is aten.copy_.default:
        there = isinstance(args[0], There)
    masked = function in MASKING and any(isinstance(i, There) and i.dtype == torch.bool for i in args[1])
    if ours and (masked or function in WAITING or (function is aten._to_copy.default and not there)):
        READS.append(str(function))
    if function is aten._to_copy.default and there and not ours:
        COPIES.append(str(function))
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu") if there else device}
    result = function(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    known = {id(tensor.inner): tensor for tensor in ours}
    return tree_map(lambda value: _outer(value, known, there), result)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, There) else value


def _outer(value: Any, known: dict[int, There], there: bool) -> Any:
    if not isinstance(value, torch.Tensor) or not there:
        return value
    return known[id(value)] if id(value) in known else There(value)
