"""Compressed bodies: gzip and deflate, in requests and in responses.

Litestar's CompressionConfig is not used here. It has no deflate, which Triton's clients may ask for, it ignores
qualities such as ``gzip;q=0``, and it would parse the headers of every request, even if there is nothing to compress.
"""

from __future__ import annotations

import zlib

from serving.errors import SEND_LESS, InputError, InputTooLargeError, UnsupportedInputError, quoted

# A smaller response body is not compressed: it would save too little for the time.
MIN_BYTES = 1024
# The fastest level of zlib.
LEVEL = 1
# A longer Accept-Encoding header is ignored. Real ones are far shorter, and each entry takes microseconds to parse.
MAX_HEADER_LENGTH = 256

# The window size, which also tells zlib the format to write.
WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
# zlib detects by itself which of the two formats it reads.
DETECT_FORMAT = zlib.MAX_WBITS | 32


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a request body without its ``Content-Encoding``, which is in lower case, and empty for none.

    Raises:
        UnsupportedInputError: the encoding is neither gzip nor deflate.
        InputTooLargeError: the body has more than ``limit`` bytes once it is decompressed.
        InputError: the body is not in its encoding, it is incomplete, or something follows it. What follows may be a
            second gzip member, which some programs write: millions of tiny members would take minutes.
    """
    if not encoding:
        return body
    if encoding not in WINDOW_BITS:
        raise UnsupportedInputError(
            f"Content-Encoding {quoted(encoding)}: must be gzip or deflate, or leave the header out"
        )
    decompressor = zlib.decompressobj(DETECT_FORMAT)
    try:
        content = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise InputError(f"the body is not valid {encoding}: {error}") from error
    if len(content) > limit:
        raise InputTooLargeError(f"the body is over the limit of {limit} bytes once it is decompressed; {SEND_LESS}")
    if not decompressor.eof:
        raise InputError(f"the body is incomplete: its {encoding} data has no end")
    if decompressor.unused_data:
        raise InputError(
            f"{len(decompressor.unused_data)} bytes follow the end of the {encoding} data: compress the whole body at "
            "once, and send nothing after it"
        )
    return content


def compress(content: bytes, accept_encoding: str) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return a response body in an encoding that the client accepts, and the headers that say so."""
    if len(content) < MIN_BYTES or not accept_encoding:
        return content, []
    encoding = preferred_encoding(accept_encoding)
    if encoding is None:
        return content, []
    compressed = zlib.compress(content, LEVEL, WINDOW_BITS[encoding])
    return compressed, [(b"content-encoding", encoding.encode()), (b"vary", b"Accept-Encoding")]


def preferred_encoding(accept_encoding: str) -> str | None:
    """Return ``gzip`` or ``deflate``, whichever an ``Accept-Encoding`` header prefers, or None for no compression.

    A quality of 0 forbids an encoding. ``*`` stands for every encoding that the header does not name (RFC 9110, section
    12.5.3).
    """
    if len(accept_encoding) > MAX_HEADER_LENGTH:
        return None
    qualities = dict(map(_quality, accept_encoding.lower().split(",")))
    others = qualities.get("*", 0)
    quality, encoding = max(
        # Of equal qualities the first one wins.
        ((qualities.get(encoding, others), encoding) for encoding in (*WINDOW_BITS, "identity")),
        key=lambda item: item[0],
    )
    return encoding if quality > 0 and encoding in WINDOW_BITS else None


def _quality(item: str) -> tuple[str, float]:
    """Return the encoding and the quality of one item of an ``Accept-Encoding`` header.

    A quality that is not a number is ignored. One that is out of range forbids the encoding.
    """
    encoding, *parameters = (part.strip() for part in item.split(";"))
    for parameter in parameters:
        name, _, text = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(text.strip().strip('"'))
            except ValueError:
                return encoding, 1
            return encoding, quality if 0 <= quality <= 1 else 0
    return encoding, 1
