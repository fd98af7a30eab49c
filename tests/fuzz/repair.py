"""Make checksums right again. A changed input would otherwise be rejected before it reaches the code behind them."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

PNG = b"\x89PNG\r\n\x1a\n"

# The place in an input where the first array ends and the second one begins.
CUT = b"<cut>"


def png(content: bytes) -> bytes:
    """Return a PNG with the right checksum of each of its chunks."""
    result, at = [PNG], len(PNG)
    while at + 8 <= len(content):
        (size,) = struct.unpack_from(">I", content, at)
        chunk = content[at + 4 : at + 8 + size]
        result += [content[at : at + 4], chunk, struct.pack(">I", zlib.crc32(chunk))]
        at += 12 + size
    return b"".join(result)


def npz(content: bytes) -> bytes:
    """Return an archive whose arrays ``images`` and ``logits`` are the two parts of ``content``."""
    images, _, logits = content.partition(CUT)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("images.npy", images)
        archive.writestr("logits.npy", logits)
    return buffer.getvalue()
