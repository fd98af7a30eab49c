"""Copy a PNG without what is not its pixels: texts, camera data, colour profiles, anything after its end."""

from __future__ import annotations

import struct

from serving.errors import PictureError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Header, palette, pixels, transparency.
KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
LAST = b"IEND"


def bare_png(content: bytes) -> bytes:
    """Return the same picture with the chunks of KEPT only.

    Raises:
        PictureError: the bytes are not a PNG, or it is cut short.
    """
    if not content.startswith(SIGNATURE):
        raise PictureError("the picture is not a PNG; send a PNG")
    kept, place = [SIGNATURE], len(SIGNATURE)
    while True:
        # A chunk: its length without these twelve bytes, its type, its content, its checksum.
        head = content[place : place + 8]
        end = place + 12 + (struct.unpack(">I", head[:4])[0] if len(head) == 8 else len(content))
        if end > len(content):
            raise PictureError("the PNG is cut short")
        kind = head[4:]
        if kind in KEPT or kind == LAST:
            kept.append(content[place:end])
        if kind == LAST:
            return b"".join(kept)
        place = end
