"""Tell a picture file from other bytes by its first bytes."""

from __future__ import annotations

import re

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


def is_picture(content: bytes) -> bool:
    """Return whether bytes begin as a picture file of a common format does."""
    return _SIGNATURE.match(content) is not None
