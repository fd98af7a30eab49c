"""Files that are whole or not there: atomic writes, and checkpoints that prove they are undamaged."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import zipfile
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
    except BaseException:
        temporary.unlink(missing_ok=True)
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
    """Serialize tensors and plain values."""
    import torch

    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    return buffer.getvalue()


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
    try:
        # torch.load reads over flipped bytes in the weights; the archive's checksums do not.
        damaged = zipfile.ZipFile(io.BytesIO(content)).testzip()
        if damaged:
            raise CheckpointError(f"{path} is damaged: the checksum of {damaged} does not hold")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        RuntimeError,
        ValueError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is damaged or not a checkpoint: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this version (format {FORMAT})")
    return state
