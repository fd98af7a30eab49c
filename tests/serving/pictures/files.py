"""Build picture files that no ordinary program writes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from itertools import repeat

import numpy as np
from PIL import Image

# Samples per pixel of PNG's colour types: grey, RGB, palette, grey and alpha, RGBA.
PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
GREY, RGB, PALETTE, RGBA = 0, 2, 3, 6


def encoded(picture: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def black_png(width: int, height: int, depth: int = 8, colour: int = GREY, chunks: Iterable[bytes] = ()) -> bytes:
    """Return a PNG of zeros, which takes a few kilobytes for any size, with more chunks before its image data."""
    row = bytes(1 + (width * depth * PNG_SAMPLES[colour] + 7) // 8)
    deflate = zlib.compressobj(1)
    data = b"".join(map(deflate.compress, repeat(row, height))) + deflate.flush()
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
            *chunks,
            chunk(b"IDAT", data),
            chunk(b"IEND", b""),
        ]
    )


def rle_bmp(width: int, height: int) -> bytes:
    """Return a BMP with run-length compression, whose runs are all 255 pixels long."""
    offset = 54 + 1024
    head = struct.pack("<2sIHHI", b"BM", 0, 0, 0, offset)
    return (
        head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1024) + b"\xff\0" * 99
    )


def gif(width: int, height: int, left: int = 0, extensions: bytes = b"") -> bytes:
    """Return a GIF whose page has 28x28 pixels and whose picture has ``width`` x ``height``, with no image data."""
    page = b"GIF89a" + struct.pack("<HHBBB", 28, 28, 0, 0, 0)
    return page + extensions + b"," + struct.pack("<HHHHB", left, 0, width, height, 0) + b"\x08\0;"


def many_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated until it has at least this many scans."""
    jpeg = encoded(Image.fromarray(np.zeros((side, side, 3), np.uint8)), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * scans + jpeg[-2:]


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def greedy_directory() -> bytes:
    """Return camera data of 64 kB in which each of 5,000 entries claims all of it: 300 MB."""
    entries = b"".join(struct.pack("<HHII", 1000 + tag, 7, 60_000, 0) for tag in range(5000))
    return b"II*\0" + struct.pack("<IH", 8, 5000) + entries


def slow_pgm(side: int = 2700) -> bytes:
    """Return a PGM that keeps Pillow busy for seconds: it scales unusual ranges of grey in Python."""
    return b"P5 %d %d 15\n" % (side, side) + bytes(side * side)
