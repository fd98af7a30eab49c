"""The cache, which keeps data sets and prepared images between runs."""

from __future__ import annotations

import os
from pathlib import Path

from training.data.errors import DataError


def default_cache() -> Path:
    """Return the folder that keeps data sets between runs, below ``XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        DataError: this user has no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mnist-service"
    except RuntimeError as error:
        raise DataError("there is no home folder for the cache; set HOME, or set XDG_CACHE_HOME to a folder") from error


def keep_newest(folder: Path, pattern: str, count: int) -> None:
    """Remove the files of a cache that match ``pattern``, except for the ``count`` that were used last."""
    for old in sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime, reverse=True)[count:]:
        old.unlink(missing_ok=True)
