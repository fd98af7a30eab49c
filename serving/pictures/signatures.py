"""Tell by its name or its first bytes whether a file is a picture, and name a known format that is not read here."""

from __future__ import annotations

import re

# Bytes of the largest picture file that is read from a disk.
MAX_FILE_BYTES = 100_000_000

# The last are those of formats that are not read here: such files are meant as pictures too.
SUFFIXES = frozenset(
    {
        *("png", "apng", "jpg", "jpeg", "jpe", "jfif", "gif", "bmp", "dib", "webp", "pnm", "pbm", "pgm", "ppm"),
        *("tif", "tiff", "heic", "heif", "avif", "jp2", "jxl", "svg", "pdf"),
    }
)

# More than the shortest signatures of the formats, because raw pixels and lists of names may begin with "BM" or "P5".
_SIGNATURE = re.compile(
    rb"\x89PNG\r\n\x1a\n"
    rb"|\xff\xd8\xff[\xc0-\xfe]"  # JPEG
    rb"|GIF8[79]a"
    rb"|BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}"  # BMP, and the size of its second header
    rb"|RIFF.{4}WEBP"
    rb"|P[1-6][ \t\r\n#][\d \t\r\n#]",  # PNM
    re.DOTALL,
)

# Known formats that are not read here, each with its article. Raw pixels do not begin so, because each has 4 bytes or
# more that are hardly ever together by chance.
_UNREAD = {
    "a TIFF": rb"II[*+]\0|MM\0[*+]",
    "an AVIF": rb".{4}ftyp(?:avi[fs]|m(?:if|sf)1.{4,32}?avi[fs])",
    "a HEIC": rb".{4}ftyp(?:he[iv][cxms]|m(?:if|sf)1)",
    "a JPEG XL": rb"\0\0\0\x0cJXL \r\n\x87\n",
    "a JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "an SVG": rb"(?:\xef\xbb\xbf)?\s{0,99}+<(?:svg[\s>]|(?:\?xml|!--|!DOCTYPE svg).{1,4000}?<svg[\s>])",
    "a PDF": rb"%PDF-",
    "a Photoshop file": rb"8BPS\0\x01",
}
_UNREAD_NAMES = tuple(_UNREAD)
# One group for each format. Every request is matched, and one expression takes a fifth of the time of several.
_UNREAD_SIGNATURE = re.compile(b"|".join(b"(%b)" % signature for signature in _UNREAD.values()), re.DOTALL)


def is_picture_name(name: str) -> bool:
    """Return whether the name of a file has the ending of a format of pictures, which may be one that is not read."""
    _, dot, suffix = name.rpartition(".")
    return bool(dot) and suffix.lower() in SUFFIXES


def is_picture(content: bytes) -> bool:
    """Return whether bytes begin as a picture file of a common format does."""
    return _SIGNATURE.match(content) is not None


def conversion_advice(content: bytes) -> str:
    """Return that a known format is not read here, with the way out; empty if bytes begin as none of these does."""
    found = _UNREAD_SIGNATURE.match(content)
    if found is None or found.lastindex is None:
        return ""
    return f"{_UNREAD_NAMES[found.lastindex - 1]} is not read here; convert it to PNG or JPEG"
