"""The hidden folder in which a bundle is made. The folder of an export that was killed is removed by the next one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

# No version number begins so, and no server reads a hidden folder.
PREFIX = ".export-"


@contextlib.contextmanager
def staging_folder(models: Path) -> Iterator[Path]:
    """Make a folder in ``models``, on whose disk a single rename publishes it. At the end it is removed, if it exists.

    ``models`` and the folders above it are made if they are missing. Those that are still empty at the end, because
    nothing was published, are removed too.

    Raises:
        OSError: it could not be made.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, [place for place in (models, *models.parents) if not place.exists()])
        models.mkdir(parents=True, exist_ok=True)
        # Nobody looks for folders without a lock while this one has no lock yet.
        with _locked(models, wait=True):
            for old in models.glob(f"{PREFIX}*"):
                _remove_unless_in_use(old)
            folder = models / f"{PREFIX}{secrets.token_hex(4)}"
            folder.mkdir()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(_locked(folder, wait=True))
        yield folder


def moved(folder: Path, target: Path) -> bool:
    """Rename a finished folder to ``target``, and return whether that was possible: the name may be taken by now.

    A rename never replaces a folder that has files in it.

    Raises:
        OSError: it was not possible for another reason.
    """
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _remove_empty(folders: Iterable[Path]) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _remove_unless_in_use(folder: Path) -> None:
    with contextlib.suppress(OSError), _locked(folder, wait=False) as is_locked:
        if is_locked:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of ``folder``, and yield whether it is held. The system frees it when this process ends.

    Without ``wait`` it is not held if another process has it. Windows and some network disks have no such locks.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            is_locked = True
        except OSError:
            is_locked = False
        yield is_locked
    finally:
        os.close(handle)
