"""Write files also where a file system lacks something, as network shares and mounts of object stores do.

What it lacks is logged once.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

log = logging.getLogger("serving")

# The error numbers of file systems that cannot sync. Others, such as that of a broken disk, are errors.
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EPERM, errno.EACCES}
# The error numbers of file systems that cannot rename a file to the name of another one.
NO_REPLACE = {errno.EEXIST, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES}

_told: set[str] = set()


def replace(new: Path, path: Path) -> None:
    """Rename ``new`` to ``path``, also where the file system cannot replace the file that is there.

    Raises:
        OSError: the file cannot be renamed. The old file at ``path`` stays.
    """
    try:
        new.replace(path)
    except OSError as error:
        if error.errno not in NO_REPLACE or not path.is_file():
            raise
        old = path.with_name(f".{path.name}.old")
        old.unlink(missing_ok=True)  # From a process that was killed here.
        path.rename(old)
        try:
            new.rename(path)
        except BaseException:
            old.rename(path)
            raise
        old.unlink()
        danger = f"It renames two files instead. If this process is killed in between, the old one stays as {old.name}."
        _tell_once(path, "cannot replace a file", error, danger)


@contextmanager
def writing(path: Path, rename: Callable[[Path, Path], object] = replace) -> Iterator[IO[bytes]]:
    """Open a hidden file beside ``path``, which becomes ``path`` when the ``with`` statement ends.

    A reader sees the old file or the new one, also after a power cut, and never a part of one. After an error the old
    file stays. Only one process at a time may write to ``path``.

    Raises:
        OSError: the file cannot be written or renamed.
    """
    part = path.with_name(f".{path.name}.part")
    with suppress(OSError):
        part.unlink(missing_ok=True)  # From a process that was killed here.
    try:
        # A new file: a link or a FIFO of that name is not followed.
        with part.open("xb") as file:
            yield file
            file.flush()
            sync(file.fileno(), path)
        rename(part, path)
    except BaseException:
        with suppress(OSError):  # The error that is raised says more.
            part.unlink(missing_ok=True)
        raise
    _sync_folder(path)


def _sync_folder(path: Path) -> None:
    # Without this, a power cut can undo the rename.
    try:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # A folder may be writable and not readable.
        return
    try:
        sync(descriptor, path)
    finally:
        os.close(descriptor)


def sync(descriptor: int, path: Path) -> None:
    """Make the kernel write an open file, or its folder, to the disk, if the file system can do that.

    Raises:
        OSError: the disk failed.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
        _tell_once(path, "cannot sync", error, "A power cut may damage the newest files.")


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
