"""How functions of this package are compiled."""

import inspect
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from numba import njit, types
from numba.extending import intrinsic

Lanes = Any  # in annotations: a value of `zoo.training.compiled.lanes.lanes`


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function. Divisions by zero give infinities, and sums keep the order in which they are written."""
    # Tests wrap functions, to check the shapes of tensors; Numba needs the function itself.
    return njit(error_model="numpy", forceinline=False)(inspect.unwrap(function))


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function as a part of those that call it."""
    return njit(error_model="numpy", forceinline=True)(inspect.unwrap(function))


def cached(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, and keep the result on disk: beside the source or in the user's cache."""
    try:
        return njit(error_model="numpy", cache=True)(inspect.unwrap(function))
    except RuntimeError:  # no folder can be written
        return compiled(function)


def digest_of_sources() -> int:
    """Return the digest of the files of this package, not 0."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return 1 + int.from_bytes(blake2b(b"".join(file.read_bytes() for file in files), digest_size=6).digest())


@intrinsic
def keep_apart(typingctx: Any) -> Any:
    """Compile the calling function once, and not as a part of those that call it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate
