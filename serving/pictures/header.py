"""Read from the first bytes of a picture file what decoding it will cost: its pixels, memory and scans.

Nothing is decoded, so this takes microseconds for any file. Pillow reads sizes too, but only after it has set up its
decoder, which for some formats takes the memory of the whole picture already.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

from serving.errors import InputTooLargeError, PictureError
from serving.pictures.containers import JPEG_SCAN, PNG_SIGNATURE, gif_picture, jpeg_segments
from serving.pictures.signatures import conversion_advice

# Only common formats: each further decoder of Pillow is more code that reads untrusted bytes.
FORMATS = "PNG, JPEG, GIF, BMP, WebP and binary PNM"

# Largest width and height. A longer picture does not show a digit, and one of its rows costs as much as a whole page.
MAX_SIDE = 16_384
# A JPEG is decoded at a half, a quarter or an eighth of its size if both sides keep at least this many pixels. The
# smallest digit that is found has about 1/25 of the longer side, and so at least 20 pixels.
JPEG_SIDE = 512
JPEG_SHARES = (8, 4, 2)
# Bytes that decoding a picture may hold. 100 MB are 25 million pixels of 4 bytes.
MAX_DECODED_BYTES = 100_000_000
# Passes over the picture in which a JPEG may be stored. Programs write about ten; each takes time for all pixels.
MAX_SCANS = 100

# Bytes per pixel in Pillow: RGB, RGBA and LA all take four.
GREY, DEEP_GREY, COLOUR = 1, 2, 4
# Pillow decodes every WebP as an animation: two canvases, a copy and the picture, and the decoder's own memory.
WEBP_BYTES = 17
# A lossless WebP may have prefix codes of its own for each block of 4x4 pixels.
WEBP_BLOCK = 16
# The codes of a block take at least this many bytes of the file.
WEBP_CODES = 3
# Their tables take 6 kB of memory and up to 15 microseconds. So the codes of this many blocks are no danger.
FEW_WEBP_CODES = 1024
# A GIF's first picture, its background, and what replaces the picture in an animation.
GIF_BYTES = 3
# Pillow scales values of unusual ranges in Python: the values as bytes, a copy and the picture.
RESCALED_BYTES = 12
# A JPEG in several scans is kept as coefficients of 2 bytes until the last scan is read.
COEFFICIENT_BYTES = 2

# Bytes that are searched at once.
SEARCHED_BYTES = 1 << 18

BMP_RLE = (1, 2)
MAX_BMP_COLOURS = 256
# The size of the oldest BMP header, which has sides of 16 bits and no compression.
BMP_OLDEST = struct.pack("<I", 12)
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)

# The header of a binary PNM: magic, width, height and, except for P4, the largest value, with comments between them.
_PNM_SPACE = rb"(?:[ \t\n\v\f\r]|#[^\r\n]*+[\r\n])++"
# Pillow reads a header byte by byte in Python, so all of it must be within this expression.
_PNM_NUMBER = rb"%b(\d{1,10})" % _PNM_SPACE
_PNM = re.compile(rb"P(?:(4)%b%b|([56])%b%b%b)\s" % ((_PNM_NUMBER,) * 5))
# A longer header is rejected.
PNM_HEADER_BYTES = 4096


class Header(NamedTuple):
    """What the first bytes of a picture file say."""

    format: str
    width: int
    height: int
    bytes_per_pixel: float
    """Bytes that decoding holds at a time, per pixel."""
    scans: int = 1
    """Passes over the whole picture."""
    is_slow: bool = False
    """Whether decoding may take far more than other pictures with as many pixels take."""
    share: int = 1
    """The sides of the decoded picture are those of the file divided by this."""

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def decoded_pixels(self) -> int:
        return -(-self.width // self.share) * -(-self.height // self.share)


def read_header(content: bytes, jpeg_side: int = JPEG_SIDE) -> Header:
    """Return the header of a picture file.

    Args:
        jpeg_side: a JPEG is decoded at a share of its size if both sides keep at least this many pixels.

    Raises:
        PictureError: the bytes do not begin as a picture in one of the ``FORMATS``.
    """
    for signature, read in _READERS:
        if content.startswith(signature):
            try:
                header = read(content)
            except (IndexError, struct.error) as error:
                raise PictureError("the picture is damaged: it ends within its header") from error
            if header is not None and min(header.width, header.height) > 0:
                return header if header.share == 1 else header._replace(share=_share(header, jpeg_side))
    if not content:
        raise PictureError("the picture is empty: the file has no bytes")
    raise PictureError(conversion_advice(content) or f"not a picture in one of the formats {FORMATS}")


def check_header(header: Header, max_pixels: int) -> None:
    """Check that decoding stays within its limits.

    Raises:
        InputTooLargeError: a limit is exceeded.
    """
    size = f"{header.width}x{header.height} pixels"
    if header.decoded_pixels > max_pixels:
        raise InputTooLargeError(f"the picture has {size}: must be at most {max_pixels} pixels; send a smaller picture")
    if max(header.width, header.height) > MAX_SIDE:
        raise InputTooLargeError(
            f"the picture has {size}: must be at most {MAX_SIDE} pixels wide and high; send a smaller picture"
        )
    held = header.decoded_pixels * header.bytes_per_pixel
    if held > MAX_DECODED_BYTES:
        raise InputTooLargeError(
            f"decoding a {header.format} of {size} takes {held / 1e6:.0f} MB: must be at most "
            f"{MAX_DECODED_BYTES / 1e6:.0f} MB; send a smaller picture, or send it as a plain JPEG or PNG"
        )
    if header.scans > MAX_SCANS:
        raise InputTooLargeError(
            f"the JPEG has {header.scans} scans: must be at most {MAX_SCANS}; save it as a plain JPEG"
        )


def _png(content: bytes) -> Header:
    width, height, depth, colour = struct.unpack_from(">IIBB", content, 16)
    grey_or_palette = DEEP_GREY if depth > 8 else GREY
    return Header("PNG", width, height, grey_or_palette if colour in (0, 3) else COLOUR)


def _jpeg(content: bytes) -> Header | None:
    height = width = 0
    bytes_per_pixel, components, is_progressive = 0.0, b"", False
    for marker, begin, _ in jpeg_segments(content):
        if marker in _JPEG_FRAMES:
            height, width, count = struct.unpack_from(">HHB", content, begin + 5)
            components = content[begin + 10 : begin + 10 + 3 * count]
            is_progressive = marker in _JPEG_PROGRESSIVE
            # Four colours are decoded as such, and three to grey, unless the picture has too few pixels to matter.
            bytes_per_pixel = COLOUR if count > 3 else GREY
        elif marker == JPEG_SCAN and (is_progressive or content[begin + 4] < len(components) // 3):
            return Header("JPEG", width, height, bytes_per_pixel + _coefficients(components), _scans(content, begin))
    # A JPEG in one scan is decoded block by block, so its full size is never in memory. read_header() sets the share.
    return Header("JPEG", width, height, bytes_per_pixel, share=max(JPEG_SHARES))


def _share(header: Header, jpeg_side: int) -> int:
    sides = min(header.width, header.height) // jpeg_side
    return next((share for share in JPEG_SHARES if share <= sides), 1)


def _scans(content: bytes, begin: int) -> int:
    """Return the number of scans in a JPEG. Within image data, 0xFF is always followed by 0."""
    # Between two pieces, other threads run. A piece overlaps the next by one byte, so a marker may lie on their border.
    pieces = range(begin, len(content), SEARCHED_BYTES)
    return sum(content.count(b"\xff\xda", piece, piece + SEARCHED_BYTES + 1) for piece in pieces)


def _coefficients(components: bytes) -> float:
    """Return the bytes of a JPEG's coefficients per pixel. Each component has its own share of the resolution."""
    factors = [divmod(factor, 16) for factor in components[1::3]]
    whole = max((x for x, _ in factors), default=0) * max((y for _, y in factors), default=0)
    return COEFFICIENT_BYTES * sum(x * y for x, y in factors) / max(1, whole)


def _gif(content: bytes) -> Header:
    width, height = struct.unpack_from("<HH", content, 6)
    left, top, wide, high = struct.unpack_from("<HHHH", content, gif_picture(content) + 1)
    # Pillow enlarges the page if the picture does not fit on it.
    return Header("GIF", max(width, left + wide), max(height, top + high), GIF_BYTES)


def _bmp(content: bytes) -> Header:
    if content[14:18] == BMP_OLDEST:
        width, height, _, depth = struct.unpack_from("<HHHH", content, 18)
    else:
        width, height, _, depth, compression = struct.unpack_from("<IiHHI", content, 18)
        if compression in BMP_RLE:
            raise PictureError("a BMP with run-length compression is not read here; send it as PNG")
        (colours,) = struct.unpack_from("<I", content, 46)
        # Pillow looks at each colour of a palette, in Python. It accepts 65,536 of them, which takes 50 ms.
        if depth <= 8 and colours > MAX_BMP_COLOURS:
            raise PictureError(f"the picture is damaged: a BMP with {colours} colours, but {depth} bits per pixel")
    return Header("BMP", width, abs(height), GREY if depth <= 8 else COLOUR)


def _webp(content: bytes) -> Header | None:
    kind = content[12:16]
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        width, height = (1 + int.from_bytes(content[begin : begin + 3], "little") for begin in (24, 27))
    else:
        return None
    # The picture and the transparency of an extended file (VP8X) may be lossless, too.
    codes = 0 if kind == b"VP8 " else min(width * height // WEBP_BLOCK, len(content) // WEBP_CODES)
    return Header("WEBP", width, height, WEBP_BYTES, is_slow=codes > FEW_WEBP_CODES)


def _pnm(content: bytes) -> Header | None:
    if content[1:2] in (b"1", b"2", b"3"):
        raise PictureError("a PNM written as text (P1, P2 or P3) is not read here; send it as PNG")
    found = _PNM.match(content[:PNM_HEADER_BYTES])
    if found is None:
        return None
    kind, *numbers = filter(None, found.groups())
    width, height, largest = map(int, [*numbers, 0][:3])
    depth = {(b"4", 0): GREY, (b"5", 255): GREY, (b"5", 65535): COLOUR, (b"6", 255): COLOUR}.get((kind, largest))
    if depth is None:
        return Header("PPM", width, height, RESCALED_BYTES, is_slow=True)
    return Header("PPM", width, height, depth)


_READERS: tuple[tuple[bytes, Callable[[bytes], Header | None]], ...] = (
    (PNG_SIGNATURE, _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"GIF8", _gif),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    (b"P", _pnm),
)
