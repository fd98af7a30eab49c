"""Look at the encoded form of a large request before it is parsed.

Parsed, an empty part of a message takes thirty times its encoded size. So a request of 8 MB could take 240 MB. In a
real request nearly all bytes are pixels, and these take little more memory than they have bytes.
"""

from __future__ import annotations

from serving.errors import InputError

# Bytes that everything except the pixels of a request may take.
MAX_OTHERS = 8192

# The fields that lead to pixels, by their numbers.
Fields = dict[int, "Fields | None"]
RAW: Fields = {7: None}  # raw_input_contents
TYPED: Fields = {5: {5: {4: None}}}  # inputs, their contents, their uint_contents

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def is_raw(message: bytes) -> bool:
    """Return whether nearly all of an encoded ModelInferRequest is raw contents. Parsing only copies these.

    Raises:
        InputError: it is not a message of protobuf.
    """
    return _others(message, 0, len(message), RAW, MAX_OTHERS) <= MAX_OTHERS


def check(message: bytes) -> None:
    """Check that nearly all of an encoded ModelInferRequest is pixels.

    Raises:
        InputError: it is not, or it is not a message of protobuf.
    """
    if _others(message, 0, len(message), RAW | TYPED, MAX_OTHERS) > MAX_OTHERS:
        raise InputError(f"over {MAX_OTHERS} bytes of the request are not pixels: leave out what is not needed")


def _others(message: bytes, at: int, end: int, fields: Fields, limit: int) -> int:
    """Return the number of bytes from ``at`` to ``end`` that are not pixels, or any number over ``limit``."""
    others = 0
    while at < end and others <= limit:
        begin = at
        tag, at = _varint(message, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            _, at = _varint(message, at, end)
        elif kind in (FIXED32, FIXED64):
            at += 4 if kind == FIXED32 else 8
        elif kind == BYTES:
            size, start = _varint(message, at, end)
            at = start + size
            if number in fields and at <= end:
                inner = fields[number]
                others += start - begin
                others += _others(message, start, at, inner, limit - others) if inner else 0
                continue
        else:
            raise InputError("the message is not a ModelInferRequest")
        others += at - begin
    if at > end:
        raise InputError("the message is not a ModelInferRequest: it is cut off")
    return others


def _varint(message: bytes, at: int, end: int) -> tuple[int, int]:
    """Return a number and the place after it."""
    value = shift = 0
    while at < end and shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise InputError("the message is not a ModelInferRequest: it is cut off")
