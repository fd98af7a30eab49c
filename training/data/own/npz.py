"""Read arrays from an .npz file that anyone may have made: of a few megabytes, it could expand to any size."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from training.data.errors import DataError

MAX_ARRAY_BYTES = 4_000_000_000
"""The largest size of all arrays of a file together."""
# The beginning of an array's entry: a fixed text, a version, and the length of the header that says type and shape.
# NumPy's own limit of this length comes after it has read the header.
MAX_HEADER_BYTES = 10_000
HEADERS = {(1, 0): (2, npy.read_array_header_1_0), (2, 0): (4, npy.read_array_header_2_0)}
# How many other names a message lists.
LISTED = 10

Array = npt.NDArray[Any]


def read(path: Path, wanted: Collection[str], way_out: str = "write it with numpy.savez") -> dict[str, Array]:
    """Return those of the ``wanted`` arrays that the file has. Others are not read.

    Raises:
        DataError: the file is damaged or too large, or it has none of them. The message ends with the ``way_out``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            found = {name: entries[name] for name in wanted if name in entries}
            total = sum(entry.file_size for entry in found.values())
            if total > MAX_ARRAY_BYTES:
                raise DataError(f"{path}: its arrays have {total} bytes: must be at most {MAX_ARRAY_BYTES}; {way_out}")
            arrays = {name: _array(path, archive, entry) for name, entry in found.items()}
    except DataError:
        raise
    except Exception as error:  # A zip file and its arrays can be malformed in more ways than their readers list.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: is not a readable .npz file: {reason}; {way_out}") from error
    if not arrays:
        others = ", ".join(list(entries)[:LISTED]) or "none"
        raise DataError(f"{path}: must have the arrays images and labels, but has {others[:200]}")
    return arrays


def _array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    """Return an array. Its header is checked before memory is used."""
    with archive.open(entry) as file:
        dtype = _check_header(file, entry.file_size)
    if dtype.hasobject:
        raise DataError(
            f"{path}: {entry.filename.removesuffix('.npy')} holds Python objects: must hold numbers or texts; write "
            "labels as labels.astype(str), and put pictures of several sizes into a folder"
        )
    with archive.open(entry) as file:
        array: Array = npy.read_array(file, allow_pickle=False)
    return array


def _check_header(file: IO[bytes], size: int) -> np.dtype[Any]:
    """Return the type of an array, whose data fit into the entry of this size."""
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"an array is written in version {version} of the npy format: must be (1, 0) or (2, 0)")
    length, reader = HEADERS[version]
    start = file.tell()
    if int.from_bytes(file.read(length), "little") > MAX_HEADER_BYTES:
        raise ValueError(f"the header of an array has more than {MAX_HEADER_BYTES} bytes")
    file.seek(start)
    shape, _, dtype = reader(file)
    needed = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and (min(shape, default=0) < 0 or needed > size):
        raise ValueError(f"an array of the shape {list(shape)} and the type {dtype} needs {needed} bytes, not {size}")
    return dtype
