"""The file ``golden.npz`` of a bundle: images, and the logits that the trained network gives for them."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from serving.contract import IMAGE_SIZE, Floats, Images
from serving.errors import BundleError

# The packaged file has 34 kB for 40 images.
MAX_BYTES = 8_000_000
# The export writes three arrays. Each entry of a zip file's directory begins with this signature, and zipfile makes an
# object of each entry, so a small file could have a million of them.
MAX_ENTRIES = 16
ENTRY_SIGNATURE = b"PK\x01\x02"

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read(path: Path, content: bytes, classes: int) -> tuple[Images, Floats]:
    """Return the images, uint8 ``[N, 28, 28]``, and their logits, float32 ``[N, classes]``. N is at least 1.

    Args:
        path: the file, for messages.
        content: what it holds.

    Raises:
        BundleError: the arrays are missing, or have other types or shapes.
        zipfile.BadZipFile, ValueError, ...: the content is damaged.
    """
    if len(content) > MAX_BYTES:
        raise BundleError(f"{path} has {len(content)} bytes: must be at most {MAX_BYTES}")
    if content.count(ENTRY_SIGNATURE) > MAX_ENTRIES:
        raise BundleError(f"{path} has more than {MAX_ENTRIES} entries")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        images = _array(path, archive, "images", np.dtype(np.uint8), (IMAGE_SIZE, IMAGE_SIZE))
        logits = _array(path, archive, "logits", np.dtype(np.float32), (classes,))
    if not 0 < len(images) == len(logits):
        raise BundleError(f"{path} has {len(images)} images and logits for {len(logits)}: needs at least one of each")
    return images, logits


def _array(
    path: Path, archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Return an array of ``dtype`` with the shape ``[N, *shape]``. Its header is checked before memory is used."""
    try:
        entry = archive.getinfo(f"{name}.npy")
    except KeyError as error:
        raise BundleError(f"{path} has no array {name!r}") from error
    # zipfile inflates no more bytes than the directory says.
    if entry.file_size > MAX_BYTES:
        raise BundleError(f"{path}: array {name!r} has {entry.file_size} bytes: must be at most {MAX_BYTES}")
    file = io.BytesIO(archive.read(entry))
    header = HEADERS.get(npy.read_magic(file))
    if header is None:
        raise BundleError(f"{path}: array {name!r} is written in an unknown version of the npy format")
    found, _, found_dtype = header(file)
    if found_dtype != dtype or found[1:] != shape or math.prod(found) * dtype.itemsize > entry.file_size:
        raise BundleError(
            f"{path}: array {name!r} is {found_dtype} {list(found)}: must be {dtype} {['N', *shape]} in full"
        )
    file.seek(0)
    array: npt.NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return array
