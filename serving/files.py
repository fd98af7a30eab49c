"""Read files that may be anything. These functions never wait for a FIFO or a device, and never read beyond a limit."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 20


def read(path: Path, limit: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: it cannot be read, it is not a regular file, or it has more than ``limit`` bytes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it has {size} bytes, more than {limit}")
        return file.read(size)


def digest(path: Path, size: int) -> str:
    """Return the SHA-256 of the first ``size`` bytes of a regular file, which is read piece by piece.

    Raises:
        OSError: it cannot be read, or it is not a regular file.
    """
    found = hashlib.sha256()
    with open_regular(path) as file:
        while size and (piece := file.read(min(CHUNK, size))):
            found.update(piece)
            size -= len(piece)
    return found.hexdigest()


def size_of(path: Path) -> int:
    """Return the size of a regular file, without opening it.

    Raises:
        OSError: it cannot be found, or it is not a regular file.
    """
    status = path.stat()
    check_regular(path, status)
    return status.st_size


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read it.

    Raises:
        OSError: it cannot be opened, or it is not a regular file.
    """
    # Without O_NONBLOCK, opening a FIFO would wait until another program writes to it. Regular files ignore the flag.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_regular(path, os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def check_regular(path: Path, status: os.stat_result) -> None:
    """Check by its status that ``path`` is a regular file.

    Raises:
        OSError: it is none.
    """
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
