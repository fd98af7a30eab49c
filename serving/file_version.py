"""The version of a file or folder on disk. While it stays the same, it is not read again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import IO, NamedTuple

# Seconds for which a folder keeps its version at most. A change may leave the times of a folder as they are.
MAX_AGE = 60


class FileVersion(NamedTuple):
    """What changes when a file is replaced or written."""

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileVersion:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class FolderVersion(NamedTuple):
    """What changes when files are added to folders, removed or renamed.

    Two changes may have the same time. So each process that changes the folders signs in a file that it has locked.
    """

    signature: bytes
    """Empty if the file system cannot keep one. Such a version says nothing."""
    minute: int
    times: dict[str, int]

    @classmethod
    def of(cls, folders: Iterable[os.DirEntry[str]], lock: IO[bytes]) -> FolderVersion:
        lock.seek(0)
        times = {folder.path: folder.stat(follow_symlinks=False).st_mtime_ns for folder in folders}
        return cls(lock.read(), int(time.monotonic() / MAX_AGE), times)


def sign(lock: IO[bytes]) -> None:
    """Write another signature into the file."""
    with suppress(OSError):
        lock.truncate(0)
        lock.write(os.urandom(8))
