"""A lock on a run folder, so that two runs never write into the same folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.checkpoint import tell_once
from training.loop.errors import TrainingError

# Linux lists every lock here: number, kind, two words, process id, then device and inode as MAJOR:MINOR:INODE.
LOCKS = Path("/proc/locks")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder``. The system frees it when this process ends, however it ends.

    Raises:
        TrainingError: another process holds the lock. On Linux the message has its process id.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows has no such locks.
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"--output {folder}: {holder(folder) or 'another process'} is training in this folder; "
                "wait until it ends, or name another --output"
            ) from error
        except OSError as error:  # Some network file systems have no locks.
            tell_once(folder, "has no locks", error, "Do not let two runs write into this folder.")
        yield
    finally:
        os.close(handle)


def holder(folder: Path) -> str:
    """Return which process holds the lock of ``folder``; empty if none does, or if the system does not tell."""
    try:
        inode = folder.stat().st_ino
        lines = [line.split() for line in LOCKS.read_text().splitlines()]
    except OSError:
        return ""
    processes = [words[4] for words in lines if words[1] == "FLOCK" and words[5].endswith(f":{inode}")]
    return f"process {processes[0]}" if processes else ""
