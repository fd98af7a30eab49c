"""Atomic writes of files, and checkpoints that end with their own SHA-256, so that damage is found."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

# Increase this number when the content of checkpoints changes, for instance if a setting is new or a weight renamed.
FORMAT = 2


class CheckpointError(Exception):
    """A file is damaged, or it is not a checkpoint of this version."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary file in the folder of ``path``, fsync it, and rename it to ``path``.

    A reader sees the old file or the new one, never a part of one. If the process is killed or the disk is full, the
    old file stays.

    Raises:
        OSError: the file could not be written. Its ``filename`` is ``path``.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp lets only the owner read the file.
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            # The error of a full disk does not name the file.
            error.filename = str(path)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # Without this fsync, a power cut can undo the rename. Windows cannot sync folders.
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
    import torch

    content = path.read_bytes()
    size = hashlib.sha256().digest_size
    if hashlib.sha256(content[:-size]).digest() != content[-size:]:
        raise CheckpointError(
            f"{path}: damaged or not a checkpoint (its SHA-256 is wrong); train again with another --output."
        )
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if state["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: has checkpoint format {state['format']}, but this version reads format {FORMAT}; "
            "train again with another --output."
        )
    return state
