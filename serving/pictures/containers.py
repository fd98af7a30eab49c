"""Walk through the parts of a picture file: the chunks of a PNG, the segments of a JPEG, the blocks of a GIF.

Pillow keeps and unpacks everything that a file says about its picture: texts, colour profiles, previews, camera data. A
few kilobytes of them unpack to hundreds of megabytes, or take seconds. This service needs only the camera's
orientation, so it removes the other parts before Pillow reads the file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from serving.errors import PictureError

# Real files have fewer than 200 parts before their image data, also those with large previews and colour profiles.
MAX_PARTS = 256
# The image data of a PNG comes in IDAT chunks. Most programs write chunks of 8 kB or more, and some one for each row.
# Pillow takes 2 microseconds for each chunk, however small it is.
MAX_PNG_CHUNKS = 16_384
# Bytes that may stand between the segments of a JPEG, all together. There should be none. Pillow skips them in Python.
MAX_JPEG_GAP = 1 << 16
# A GIF's texts come in blocks of up to 255 bytes.
MAX_GIF_BLOCKS = 10_000

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_END = struct.pack(">I4sI", 0, b"IEND", 0xAE426082)
# The chunks that make the picture, and the one with the orientation.
PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"eXIf")
# All chunks that say what the pixels are.
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")

# A marker that begins a segment. Markers without a segment are left out: RST0 to RST7, SOI and TEM.
_JPEG_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")
JPEG_END, JPEG_SCAN, JPEG_EXIF, JPEG_COMMENT = 0xD9, 0xDA, 0xE1, 0xFE
# JFIF and Adobe say what the colours mean. The other application segments are not needed to decode.
JPEG_APPLICATION = range(0xE0, 0xF0)
JPEG_NEEDED = (0xE0, 0xEE)

# Types of a TIFF entry that may hold the orientation: 16 and 32 bits.
TIFF_SHORT, TIFF_LONG = 3, 4
TIFF_ORIENTATION = 0x0112


def png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, the begin and the end of each chunk of a PNG. Chunks of image data in a row count as one chunk.

    The last chunk may end beyond the file.

    Raises:
        PictureError: there are too many chunks.
    """
    begin, data, parts, chunks = len(PNG_SIGNATURE), 0, 0, 0
    while begin + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, begin)
        end = begin + 12 + length
        if kind == b"IDAT":
            data, chunks = data or begin, chunks + 1
            if chunks > MAX_PNG_CHUNKS:
                raise PictureError(f"the PNG has its image data in more than {MAX_PNG_CHUNKS} chunks; save it again")
        else:
            if data:
                yield b"IDAT", data, begin
            yield kind, begin, end
            data, parts = 0, parts + 1
            if parts > MAX_PARTS:
                raise _too_many_parts(MAX_PARTS)
        begin = end
    if data:
        yield b"IDAT", data, begin


def bare_png(content: bytes) -> bytes:
    """Return a PNG with its pixels only: without texts, camera data and colour profiles, and nothing after its end.

    Raises:
        PictureError: the bytes are not a PNG, or it is cut short.
    """
    if not content.startswith(PNG_SIGNATURE):
        raise PictureError("the picture is not a PNG; send a PNG")
    kept = [PNG_SIGNATURE]
    for kind, begin, end in png_chunks(content):
        if end > len(content):
            break
        if kind == b"IEND":
            return b"".join([*kept, PNG_END])
        if kind in PNG_PIXELS:
            kept.append(content[begin:end])
    raise PictureError("the PNG is cut short")


def jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, the begin and the end of each segment of a JPEG. The header of the first scan is the last.

    Raises:
        PictureError: there are too many segments, or no scan is found. A decoder might go on where this function ends,
            and read more than was checked.
    """
    position, gap = 2, MAX_JPEG_GAP
    for _ in range(MAX_PARTS):
        found = _JPEG_MARKER.search(content, position, position + gap + 2)
        if found is None or found[1][0] == JPEG_END:
            raise PictureError("the picture is damaged: a JPEG without image data where it should be")
        begin = found.start()
        gap -= begin - position
        position = begin + 2 + int.from_bytes(content[begin + 2 : begin + 4])
        yield found[1][0], begin, position
        if found[1][0] == JPEG_SCAN:
            return
    raise _too_many_parts(MAX_PARTS)


def gif_picture(content: bytes) -> int:
    """Return the position of the descriptor of a GIF's first picture.

    Raises:
        IndexError: the file ends before it.
        PictureError: there is none.
    """
    flags = content[10]
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    is_in_extension = False
    for _ in range(MAX_GIF_BLOCKS):
        byte = content[position]
        if is_in_extension:  # A block that begins with its length; an empty one is the last.
            position += 1 + byte
            is_in_extension = byte > 0
        elif byte == ord("!"):  # An extension: a label and blocks.
            position += 2
            is_in_extension = True
        elif byte == ord(","):
            return position
        elif byte == ord(";"):
            raise PictureError("the picture is damaged: a GIF without a picture")
        else:
            position += 1
    raise _too_many_parts(MAX_GIF_BLOCKS)


def without_metadata(content: bytes, format: str) -> bytes:
    """Return a PNG or JPEG without the parts that are not needed to decode it. Other files are returned unchanged."""
    if format == "PNG":
        return _png_without_metadata(content)
    if format == "JPEG":
        return _jpeg_without_metadata(content)
    return content


def _png_without_metadata(content: bytes) -> bytes:
    kept, data, end, is_changed = [PNG_SIGNATURE], 0, 0, False
    for kind, begin, after in png_chunks(content):
        if kind == b"IDAT":
            data, end = data or begin, after
        elif data:
            # All image data stands in one run of chunks.
            is_changed = is_changed or kind != b"IEND"
            break
        elif kind in PNG_NEEDED:
            kept.append(content[begin:after])
        else:
            is_changed = True
    return b"".join([*kept, content[data:end], PNG_END]) if is_changed else content


def _jpeg_without_metadata(content: bytes) -> bytes:
    kept, position = [], 0
    for marker, begin, end in jpeg_segments(content):
        if marker == JPEG_COMMENT or (marker in JPEG_APPLICATION and marker not in JPEG_NEEDED):
            kept.append(content[position:begin])
            position = end
    return b"".join([*kept, content[position:]]) if kept else content


def jpeg_exif(content: bytes) -> bytes:
    """Return the camera data of a JPEG, or nothing."""
    for marker, begin, end in jpeg_segments(content):
        if marker == JPEG_EXIF and content.startswith(b"Exif\0\0", begin + 4):
            return content[begin + 4 : end]
    return b""


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in camera data: 1 to 8, and 1 if there is none.

    Pillow would read all camera data. An entry is 12 bytes long, and each entry may claim the same large value.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (begin,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, begin)
        for entry in range(begin + 2, begin + 2 + 12 * min(count, MAX_PARTS), 12):
            tag, kind, _ = struct.unpack_from(f"{order}HHI", exif, entry)
            if tag == TIFF_ORIENTATION and kind in (TIFF_SHORT, TIFF_LONG):
                (value,) = struct.unpack_from(f"{order}{'H' if kind == TIFF_SHORT else 'I'}", exif, entry + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:  # The camera data is cut off.
        pass
    return 1


def _too_many_parts(limit: int) -> PictureError:
    return PictureError(f"the file has more than {limit} parts before its image data; save it without metadata")
