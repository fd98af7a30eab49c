"""Write files also where a file system lacks something, as network shares and mounts of object stores do.

What it lacks is logged once.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path
from typing import IO

log = logging.getLogger("serving")

# The error numbers of file systems that cannot sync. Others, such as that of a broken disk, are errors.
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EPERM, errno.EACCES}
# And those of file systems that rename a file only to a name that is free.
NO_REPLACE = {errno.EEXIST, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES}

_told: set[str] = set()


def sync(file: IO[bytes], path: Path) -> None:
    """Make the kernel write an open file to its disk, if the file system can do that.

    Raises:
        OSError: the disk failed.
    """
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
        _tell_once(path, "cannot sync", error, "A power cut may damage the newest files.")


def replace(new: Path, path: Path) -> None:
    """Rename ``new`` to ``path``. If the file system cannot replace the file that is there, that one is removed first.

    Raises:
        OSError: the file cannot be renamed.
    """
    try:
        new.replace(path)
    except OSError as error:
        if error.errno not in NO_REPLACE or not path.is_file():
            raise
        path.unlink()
        new.rename(path)
        _tell_once(path, "cannot replace a file", error, "For a moment a reader finds no file.")


def lock(descriptor: int, path: Path) -> None:
    """Lock an open file for this process, if the file system has locks. The system frees it when this process ends.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        _tell_once(path, "has no locks", error, "Do not let two processes write there.")


def _tell_once(path: Path, lack: str, error: OSError, danger: str) -> None:
    if lack not in _told:
        _told.add(lack)
        log.warning("%s is on a file system that %s (%s). %s", path.parent, lack, os.strerror(error.errno or 0), danger)
