"""Arrays as a data set, in place of a path."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.config import ConfigError
from training.data.errors import DataError

ARRAYS_FILE = "arrays.npz"

Data = str | os.PathLike[str] | Mapping[str, Any]


@contextmanager
def on_disk(data: Data) -> Iterator[str | os.PathLike[str]]:
    """Yield the name or the path of a data set. Arrays are written into a file that is read like any data set.

    Raises:
        ConfigError: it is no data set, or one of its values is no array.
        DataError: the block raised it. The message calls the file of the arrays ``data``, as the caller does.
    """
    if isinstance(data, str | os.PathLike):
        yield data
        return
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"data: got {type(data).__name__}: must be a path, the name of a known data set, or arrays by name, "
            'such as {"images": x, "labels": y}'
        )
    with tempfile.TemporaryDirectory() as folder:
        path = _saved(data, Path(folder))
        try:
            yield path
        except DataError as error:
            reason = str(error).replace(str(path), "data").replace(f"{ARRAYS_FILE}:", "data ")
            raise DataError(reason) from error


def _saved(arrays: Mapping[str, Any], folder: Path) -> Path:
    import numpy as np

    found = {}
    for name, value in arrays.items():
        try:
            array = np.asarray(value)
            # A column of a table holds its texts as objects.
            found[name] = np.asarray(array.tolist()) if array.dtype == object else array
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"data {name!r}: is no array: {error}; put pictures of several sizes into a folder"
            ) from error
        if found[name].dtype == object:
            raise ConfigError(f"data {name!r}: must hold numbers or texts only")
    path = folder / ARRAYS_FILE
    np.savez(path, **found)  # type: ignore[arg-type]
    return path
