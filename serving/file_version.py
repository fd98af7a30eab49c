"""The version of a file on disk. While it stays the same, the file is not read again."""

from __future__ import annotations

import os
from typing import NamedTuple


class FileVersion(NamedTuple):
    """What changes when a file is replaced or written."""

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileVersion:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
