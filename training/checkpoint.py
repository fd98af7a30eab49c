"""Files that are whole or not there: atomic writes, and checkpoints that prove they are undamaged."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

# Bumped when what a checkpoint holds changes its meaning.
FORMAT = 1


class CheckpointError(Exception):
    """A checkpoint is damaged, or not one of ours."""


def write_atomically(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``: write beside it, fsync, rename. A reader sees all of it or none.

    Killed or out of space at any instant, the file that stood at ``path`` before stands there still.

    Raises:
        OSError: it could not be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner reads.
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            # A full disk does not say of which file.
            error.filename = str(path)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where folders can be synced at all."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def to_bytes(state: dict[str, Any]) -> bytes:
    """Serialize tensors and plain values, with proof that they are whole.

    What torch writes is a zip archive, with checksums of what lies in it but none of its directory, where
    one flipped bit makes torch.load return memory it never wrote. So the SHA-256 of it all follows as the
    archive's comment, which torch.load and unzip pass over.
    """
    import torch

    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    digest = hashlib.sha256()
    # An archive ends with the length of its comment, in two bytes.
    archive = buffer.getvalue()[:-2] + digest.digest_size.to_bytes(2, "little")
    digest.update(archive)
    return archive + digest.digest()


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state``, tensors and plain values, atomically.

    Raises:
        OSError: it could not be written; what stood at ``path`` still stands there.
    """
    write_atomically(path, to_bytes(state))


def load(path: Path) -> dict[str, Any]:
    """Read what :func:`save` wrote, on the CPU.

    Raises:
        CheckpointError: the file is damaged or something else.
        OSError: it could not be read.
    """
    import torch

    content = path.read_bytes()
    size = hashlib.sha256().digest_size
    if hashlib.sha256(content[:-size]).digest() != content[-size:]:
        raise CheckpointError(f"{path} is damaged or not a checkpoint: the SHA-256 at its end does not hold")
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if state["format"] != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this version (format {FORMAT})")
    return state
