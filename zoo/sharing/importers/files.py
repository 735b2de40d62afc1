"""Reads files from unknown sources: their size is checked before they are read, and no code in them is run.

Whatever is wrong with a file raises a `ZooError` with one line that names the file.
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
from torch import Tensor, nn

from zoo.errors import ZooError, nearest
from zoo.networks.roles import row_tensors

OVERHEAD = 1 << 20  # bytes that a file may have for names and shapes, in addition to the numbers of a network
GREATEST = sys.float_info.max
Shapes = Mapping[str, tuple[int, ...]]


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file, after a check that it is inside a folder, even if its name or a link says otherwise.

    Raises:
        ZooError: If there is no such file, or it is outside the folder.
    """
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ZooError(f"{path}: is outside {folder}; put the file itself there")
        if path.is_file():
            return path
    except (OSError, ValueError) as error:  # the name is too long or has a zero byte
        raise ZooError(f"{folder}: {name[:80]!r} is not the name of a file ({error}); correct it") from None
    raise ZooError(f"{path}: missing; download it, or remove it from the table that lists it")


def read_table(path: Path, columns: Iterable[str], rows: int | None = None) -> pd.DataFrame:
    """Read a CSV file, plain or .gz, as text. Empty cells are missing values.

    Arguments:
        path: Path of the file, whose first line names the columns.
        columns: Columns that it must have.
        rows: Number of rows that it must have; None for any number above 0.

    Raises:
        ZooError: If the file cannot be read, lacks a column, or has another number of rows.
    """
    try:
        table = pd.read_csv(path, dtype=str, skipinitialspace=True, nrows=None if rows is None else rows + 1)
    except (OSError, EOFError, ValueError) as error:
        raise ZooError(f"{path}: is not a CSV file ({' '.join(str(error).split())}); download it again") from None
    table.columns = table.columns.str.strip()
    for name in columns:
        if name not in table:
            near = nearest(name, table.columns)
            raise ZooError(f"{path}: has no column {name!r}{near}; the first line must name the columns")
    if table.columns.has_duplicates or table.empty or len(table) != (rows or len(table)):
        wanted = "at least one row" if rows is None else f"{rows:,} rows"
        raise ZooError(f"{path}: needs {wanted}, and columns with different names; download it again")
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
    """Return a column as numbers.

    Arguments:
        table: Table of text.
        name: Name of the column.
        path: Path of the table, for error messages.
        low, high: Bounds of the values.
        missing: Whether values may be missing, which are then NaN.

    Raises:
        ZooError: If a value is missing, is not a number, or is out of bounds.
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
            f"{path}: line {table.index[row] + 2}: {name} is {found!r}, not a finite number{bounds}; correct it"
        )
    return values


def whole_numbers(table: pd.DataFrame, name: str, path: Path, low: int = 0) -> NDArray[np.int64]:
    """Return a column as whole numbers from `low`; arguments and errors as in `numbers`."""
    values = numbers(table, name, path, float(low), 2.0**53)
    if (wrong := values % 1 != 0).any():
        row = int(wrong.argmax())
        fact = f"{name} is {values[row]:g}, not a whole number"
        raise ZooError(f"{path}: line {table.index[row] + 2}: {fact}; correct it")
    return values.astype(np.int64)


def exact_numbers(table: pd.DataFrame, name: str, path: Path) -> NDArray[np.number[Any]]:
    """Return a column as 64-bit integers if all of its values are integers, else as `numbers` does.

    Large integers, such as seeds, so keep all of their digits.
    """
    texts = table[name].fillna("").str.strip()
    if texts.str.fullmatch(r"[+-]?\d{1,20}").all():
        values = [int(text) for text in texts]
        for dtype in (np.int64, np.uint64):
            if np.iinfo(dtype).min <= min(values) and max(values) <= np.iinfo(dtype).max:
                return np.array(values, dtype)
    return numbers(table, name, path)


def read_shape(text: str) -> tuple[int, ...] | None:
    """Return a shape that Python printed, such as `(3, 3, 1, 16)`; None if the text is something else."""
    if not re.fullmatch(r"\((\d{1,9}, ?)*(\d{1,9})?,?\)", text):
        return None
    return tuple(map(int, re.findall(r"\d+", text)))


def read_saved(path: Path, most: int) -> Any:
    """Read a file of `torch.save` or safetensors that contains only tensors, numbers and containers of them.

    Arguments:
        path: Path of the file. A file that ends in `.safetensors` has a dictionary of tensors.
        most: Greatest size of its unpacked content, in bytes.

    Raises:
        ZooError: If the file is larger or damaged, or contains anything else. Code in it is not run.
    """
    try:
        size = path.stat().st_size
        if size <= most and path.suffix != ".safetensors":
            with zipfile.ZipFile(path) as archive:  # the format of torch since 1.6; sizes are known before unpacking
                size = sum(member.file_size for member in archive.infolist())
        if size > most:
            fact = f"has {size:,} bytes, a network of this architecture has less than {most:,}"
            raise ZooError(f"{path}: {fact}; check that it is the right file")
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except ZooError:
        raise
    except Exception as error:  # a forged file can raise anything
        fact = f"is damaged or contains more than tensors and numbers ({type(error).__name__})"
        raise ZooError(f"{path}: {fact}; download or save it again") from None


def check_tensors(path: Path, found: Any, shapes: Shapes, network: nn.Module | None = None) -> dict[str, Tensor]:
    """Check that a file has exactly the float32 tensors of given names and shapes, and return them by name.

    Arguments:
        path: Path of the file, for error messages.
        found: Content of the file.
        shapes: Shape of each tensor, by name.
        network: Network whose `state_dict` it is; this may have further names of tied weights and counters of batch
            norm, which are left out.

    Raises:
        ZooError: If a tensor is missing, unknown, or of another type or shape; the message is about the first one.
    """
    remedy = "check that it is of the same architecture"
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise ZooError(f"{path}: is not a state_dict, a dictionary of tensors; save `module.state_dict()`")
    if network is not None:
        try:
            found = row_tensors(found, network)
        except ValueError as error:
            raise ZooError(f"{path}: {error}; {remedy}") from None
    for name in found:
        if name not in shapes:
            raise ZooError(f"{path}: has {str(name)!r}, which the architecture does not have; {remedy}")
    for name, shape in shapes.items():
        if name not in found:
            raise ZooError(f"{path}: has no {name}; {remedy}")
        tensor = found[name]
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            raise ZooError(f"{path}: {name} is not a dense float32 tensor ({tensor.dtype}); convert and save it again")
        if tensor.shape != shape:
            raise ZooError(f"{path}: {name} has shape {tuple(tensor.shape)}, the architecture has {shape}; {remedy}")
    return {name: found[name].detach() for name in shapes}
