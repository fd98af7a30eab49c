"""Atomic writes of files, and checkpoints that end with their own SHA-256, so that damage is found."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import secrets
from pathlib import Path
from typing import Any

import click

# Increase this number when the content of checkpoints changes, for instance if a setting is new or a weight renamed.
FORMAT = 2

# The error numbers of file systems that cannot sync: some network shares, some mounts of object stores, and folders on
# others.
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EPERM, errno.EACCES}
# The error numbers of file systems that cannot rename a file to the name of another one.
NO_REPLACE = {errno.EEXIST, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES}


class CheckpointError(Exception):
    """A file is damaged, or it is not a checkpoint of this version."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary file in the folder of ``path``, fsync it, and rename it to ``path``.

    A reader sees the old file or the new one, never a part of one. If the process is killed or the disk is full, the
    old file stays. The umask decides who may read the file, as for any new file.

    A device, such as ``/dev/null``, or a pipe is not replaced: it gets the content.

    Raises:
        OSError: the file could not be written. Its ``filename`` is ``path``.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        # Not tempfile: its files are for their owner only, and some file systems cannot change that afterwards.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            _sync(file.fileno(), path.parent)
        _replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # The error that is raised says more.
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            # The error of a full disk does not name the file.
            if error.filename2 is not None:
                raise OSError(error.errno, error.strerror, str(path)) from error
            error.filename = str(path)
        raise
    _sync_folder(path.parent)


def _replace(new: Path, path: Path) -> None:
    """Rename ``new`` to ``path``, also where the file system cannot replace the file that is there."""
    try:
        new.replace(path)
    except OSError as error:
        if error.errno not in NO_REPLACE or not path.is_file():
            raise
        old = new.with_name(f"{new.name}.old")
        path.rename(old)
        try:
            new.rename(path)
        except BaseException:
            old.rename(path)
            raise
        old.unlink()
        tell_once(
            path.parent,
            "cannot replace a file",
            error,
            f"If this command is killed while it does so, the file has another name, for example {old.name}.",
        )


def _sync_folder(folder: Path) -> None:
    # Without this fsync, a power cut can undo the rename. Windows cannot sync folders.
    if hasattr(os, "O_DIRECTORY"):
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except PermissionError:  # A folder may be writable and not readable.
            return
        try:
            _sync(handle, folder)
        finally:
            os.close(handle)


def _sync(handle: int, folder: Path) -> None:
    """Make the kernel write a file or a folder to its disk, if its file system can do that."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            error.filename = error.filename or str(folder)
            raise
        tell_once(folder, "cannot sync", error, "A power cut may damage the newest files.")


def tell_once(folder: Path, lack: str, error: OSError, danger: str) -> None:
    """Print what the file system of ``folder`` lacks, and what may happen; once for each ``lack``."""
    if lack not in _told:
        _told.add(lack)
        reason = os.strerror(error.errno or 0)
        click.echo(f"WARNING: {folder} is on a file system that {lack} ({reason}). {danger}", err=True)


_told: set[str] = set()


def to_bytes(state: dict[str, Any]) -> bytes:
    """Return tensors and plain values as bytes that end with their own SHA-256.

    torch.save writes a zip archive. The archive has checksums of its files but none of its directory. If one bit of
    the directory is flipped, torch.load can return uninitialized memory. So the SHA-256 of the whole archive is added
    as the archive's comment. torch.load and unzip ignore the comment.
    """
    import torch

    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    digest = hashlib.sha256()
    # The last two bytes of a zip archive are the length of its comment.
    archive = buffer.getvalue()[:-2] + digest.digest_size.to_bytes(2, "little")
    digest.update(archive)
    return archive + digest.digest()


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values to ``path`` atomically.

    Raises:
        OSError: the file could not be written. The old file at ``path`` stays.
    """
    write_atomically(path, to_bytes(state))


def load(path: Path) -> dict[str, Any]:
    """Return what :func:`save` wrote, with tensors on the CPU.

    Raises:
        CheckpointError: the file is damaged, or it is not a checkpoint of this version.
        OSError: the file could not be read.
    """
    return from_bytes(path.read_bytes(), path)


def from_bytes(content: bytes, path: Path) -> dict[str, Any]:
    """Return what :func:`to_bytes` got, with tensors on the CPU.

    Args:
        path: where the bytes come from, for messages.

    Raises:
        CheckpointError: the bytes are damaged, or they are not a checkpoint of this version.
    """
    import torch

    size = hashlib.sha256().digest_size
    if hashlib.sha256(content[:-size]).digest() != content[-size:]:
        raise CheckpointError(
            f"{path}: damaged or not a checkpoint (its SHA-256 is wrong); train again with another --output"
        )
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if state["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: has checkpoint format {state['format']}, but this version reads format {FORMAT}; "
            "train again with another --output"
        )
    return state
