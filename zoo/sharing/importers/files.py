"""Files of strangers: checked before they are read, and read without running what they hold.

What is wrong with one is a `ZooError` of one line, which names the file.
"""

import re
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import ZooError, nearest

OVERHEAD = 1 << 20  # bytes of names and shapes beside a network's numbers
GREATEST = sys.float_info.max
Shapes = Mapping[str, tuple[int, ...]]


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder, which neither its name nor a link in its path may lead out of.

    Raises:
        ZooError: if there is no such file, or it lies elsewhere.
    """
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ZooError(f"{path}: leads out of {folder}; put the file itself there")
        if path.is_file():
            return path
    except (OSError, ValueError) as error:  # a name too long, or with a zero byte
        raise ZooError(f"{folder}: {name[:80]!r} names no file ({error})") from None
    raise ZooError(f"{path}: missing; fetch it, or leave it out of the table that lists it")


def read_table(path: Path, columns: Iterable[str], rows: int | None = None) -> pd.DataFrame:
    """Read a CSV file, plain or .gz, as text; blanks are missing values.

    Arguments:
        path: of the file; its first line names the columns.
        columns: that it must have.
        rows: that it must have.

    Raises:
        ZooError: if it cannot be read, or lacks a column or rows.
    """
    try:
        table = pd.read_csv(path, dtype=str, skipinitialspace=True, nrows=None if rows is None else rows + 1)
    except (OSError, EOFError, ValueError) as error:
        raise ZooError(f"{path}: is no CSV file ({' '.join(str(error).split())}); fetch it again") from None
    table.columns = table.columns.str.strip()
    for name in columns:
        if name not in table:
            raise ZooError(f"{path}: has no column {name!r}{nearest(name, table.columns)}; its first line names them")
    if table.columns.has_duplicates or table.empty or len(table) != (rows or len(table)):
        wanted = "some" if rows is None else f"{rows:,}"
        raise ZooError(f"{path}: needs {wanted} rows, and columns of different names; fetch it again")
    return table


def numbers(
    table: pd.DataFrame,
    name: str,
    path: Path,
    low: float = -GREATEST,
    high: float = GREATEST,
    *,
    missing: bool = False,
) -> NDArray[np.float64]:
    """Return a column as numbers; where values may be `missing`, these are NaN.

    Raises:
        ZooError: if one is missing, no number, or not from `low` to `high`.
    """
    values = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
    wrong = ~((values >= low) & (values <= high))
    if missing:
        wrong &= table[name].notna().to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        bounds = "" if (low, high) == (-GREATEST, GREATEST) else f" from {low:g} to {high:g}"
        found = str(table[name].iloc[row])[:40]
        raise ZooError(
            f"{path}: line {table.index[row] + 2}: {name} is {found!r}, no finite number{bounds}; correct it"
        )
    return values


def whole_numbers(table: pd.DataFrame, name: str, path: Path, low: int = 0) -> NDArray[np.int64]:
    """Return a column as whole numbers, likewise."""
    values = numbers(table, name, path, float(low), 2.0**53)
    if (wrong := values % 1 != 0).any():
        row = int(wrong.argmax())
        raise ZooError(f"{path}: line {table.index[row] + 2}: {name} is {values[row]:g}, no whole number; correct it")
    return values.astype(np.int64)


def exact_numbers(table: pd.DataFrame, name: str, path: Path) -> NDArray[np.number[Any]]:
    """Return a column as 64-bit whole numbers if it holds nothing else, so that seeds stay exact; else as `numbers`."""
    texts = table[name].fillna("").str.strip()
    if texts.str.fullmatch(r"[+-]?\d{1,20}").all():
        values = [int(text) for text in texts]
        for dtype in (np.int64, np.uint64):
            if np.iinfo(dtype).min <= min(values) and max(values) <= np.iinfo(dtype).max:
                return np.array(values, dtype)
    return numbers(table, name, path)


def read_shape(text: str) -> tuple[int, ...] | None:
    """Read what Python prints of a shape, `(3, 3, 1, 16)`, or return None."""
    if not re.fullmatch(r"\((\d{1,9}, ?)*(\d{1,9})?,?\)", text):
        return None
    return tuple(map(int, re.findall(r"\d+", text)))


def read_saved(path: Path, most: int) -> Any:
    """Read what `torch.save` or safetensors wrote: tensors, numbers and containers of them, nothing else.

    Arguments:
        path: of the file; `.safetensors` holds a dictionary of tensors.
        most: bytes that its contents may have, unpacked.

    Raises:
        ZooError: if it is larger, damaged, or holds anything else, which is not run.
    """
    try:
        size = path.stat().st_size
        if size <= most and path.suffix != ".safetensors":
            with zipfile.ZipFile(path) as archive:  # as torch has written since 1.6; sizes are known before reading
                size = sum(member.file_size for member in archive.infolist())
        if size > most:
            raise ZooError(f"{path}: {size:,} bytes, a network of this kind has less than {most:,}; is it another one?")
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except ZooError:
        raise
    except Exception as error:  # whatever a forged file leads to
        raise ZooError(
            f"{path}: not read, it is damaged or holds more than tensors and numbers ({type(error).__name__})"
        ) from None


def check_tensors(path: Path, found: Any, shapes: Shapes) -> dict[str, Tensor]:
    """Return named float32 tensors, having seen to it that they are there and have these shapes.

    Raises:
        ZooError: for the first that is missing, unknown, or not what it should be.
    """
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise ZooError(f"{path}: holds no state_dict, a dictionary of tensors; save `module.state_dict()`")
    for name in found:
        if name not in shapes:
            raise ZooError(f"{path}: holds {str(name)!r}, which the architecture does not have; is it another one's?")
    for name, shape in shapes.items():
        if name not in found:
            raise ZooError(f"{path}: has no {name}; is it another architecture's?")
        tensor = found[name]
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            raise ZooError(f"{path}: {name} is no dense float32 tensor ({tensor.dtype}); convert and save it again")
        if tensor.shape != shape:
            raise ZooError(f"{path}: {name} has shape {tuple(tensor.shape)}, the architecture {shape}")
    return {name: found[name].detach() for name in shapes}
