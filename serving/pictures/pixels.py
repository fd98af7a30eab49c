"""Bring the values of an array to the bytes of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import InputError


def to_bytes(array: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """Return values in 0..255. Floats that are all at most 1 are shares of 255, as in the arrays of a data set.

    Args:
        name: of the array, for messages.

    Raises:
        InputError: the array has another type, or a value is too small or too large.
    """
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: has the type {array.dtype}: must be whole numbers in 0..255, or floats in 0..1")
    if array.dtype == np.uint8 or not array.size:
        return np.ascontiguousarray(array, np.uint8)
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 255):  # Written so that NaN fails too.
        raise InputError(f"{name}: its pixels are from {low:g} to {high:g}: must be in 0..255, or floats in 0..1")
    is_share = array.dtype.kind == "b" or (array.dtype.kind == "f" and high <= 1)
    return np.rint(array.astype(np.float32) * (255 if is_share else 1)).astype(np.uint8)
