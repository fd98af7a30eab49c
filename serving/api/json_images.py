"""Decode images that are lists of 28 rows of 28 integers in JSON, one image at a time.

A list of a million numbers takes many times as much memory as its JSON. So the list of images stays text. Each image
is cut out of the text and decoded alone, and decoding stops at the first wrong image. Other threads run between two
images.
"""

from __future__ import annotations

import codecs
import re
import threading
import time
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec

from serving.contract import IMAGE_SIZE
from serving.errors import InputError, InputTooLargeError
from serving.inference.threads import INLINE_BYTES

T = TypeVar("T")

JSON_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a body that is not the JSON it expects."""

# What some programs of Windows write in front of a text.
BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)

IMAGE_RULE = "an image is a list of 28 rows of 28 integers in 0..255"

# Bytes of JSON that one image may take. The usual forms take 2,000 to 20,000.
MAX_IMAGE_TEXT = 65_536

_Row = Annotated[list[int], msgspec.Meta(min_length=IMAGE_SIZE, max_length=IMAGE_SIZE)]
_Image = Annotated[list[_Row], msgspec.Meta(min_length=IMAGE_SIZE, max_length=IMAGE_SIZE)]
_decode_image = msgspec.json.Decoder(_Image).decode

_BETWEEN = re.compile(rb"[ \t\r\n]*(?:[,\[][ \t\r\n]*)?")
# The last row of an image and the image itself end here. No image has these brackets anywhere else.
_END = re.compile(rb"\][ \t\r\n]*\]")
# The type of a JSON value by its first byte, as msgspec names it. Any other value is a number.
_TYPES = {b"[": "array", b'"': "str", b"{": "object", b"t": "bool", b"f": "bool", b"n": "null"}
_FLOAT = re.compile(rb"-?[0-9]*[.eE]")


class LongCalls:
    """Does one long call at a time. Before the next one it waits for as long as the last one took.

    A call of the JSON decoder holds the interpreter lock until its end, which is 26 ms for 8 MB. Without the wait, two
    such calls could interrupt the same step of the event loop.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0

    def do(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns."""
        with self._lock:
            time.sleep(max(0.0, self._next - time.monotonic()))
            started = time.monotonic()
            try:
                return call()
            finally:
                ended = time.monotonic()
                self._next = ended + (ended - started)


_long_calls = LongCalls()


def decode_whole(decode: Callable[[bytes | memoryview], T], text: bytes | memoryview) -> T:
    """Return ``decode(text)``. Call this on a thread if the text is large. Large texts are decoded one at a time."""
    return decode(text) if len(text) <= INLINE_BYTES else _long_calls.do(lambda: decode(text))


def reason_of(error: Exception, text: bytes | memoryview) -> str:
    """Return why JSON cannot be decoded. The decoder itself names the first byte, which does not show in an editor."""
    if bytes(text[:4]).startswith(BYTE_ORDER_MARKS):
        return "it begins with a byte order mark; JSON must be UTF-8 without this mark"
    return str(error)


def pixels_of(images: bytes, path: str, max_images: int) -> bytes:
    """Return the pixels of all images in a JSON list.

    Args:
        images: the text of the list, which must be valid JSON.
        path: where the list is in the body, for error messages.
        max_images: the largest number of images.

    Raises:
        InputTooLargeError: there are more images.
        InputError: the text is no list, or an image is not a list of 28 rows of 28 integers in 0..255.
    """
    if images[:1] != b"[":
        raise InputError(
            f"the JSON has no list of images: Expected `array`, got `{_type_at(images, 0)}` - at `{path}`; {IMAGE_RULE}"
        )
    rows: list[bytes] = []
    index, start = 0, _after(images, 0)
    while images[start : start + 1] != b"]":
        if index == max_images:
            raise InputTooLargeError(
                f"the body has more than {max_images} images: must be at most {max_images}; divide them among several "
                "requests"
            )
        end = _end_of_image(images, start, f"{path}[{index}]")
        rows += _rows_of(images[start:end], f"{path}[{index}]")
        index, start = index + 1, _after(images, end)
    return b"".join(rows)


def _after(text: bytes, at: int) -> int:
    """Return the place of the next value or of the closing bracket, after an opening bracket, a value or a comma."""
    match = _BETWEEN.match(text, at)
    return match.end() if match else at


def _end_of_image(text: bytes, start: int, path: str) -> int:
    if text[start : start + 1] != b"[":
        raise InputError(f"Expected `array`, got `{_type_at(text, start)}` - at `{path}`; {IMAGE_RULE}")
    match = _END.search(text, start, start + MAX_IMAGE_TEXT)
    return match.end() if match else min(len(text), start + MAX_IMAGE_TEXT)


def _rows_of(image: bytes, path: str) -> list[bytes]:
    try:
        # bytes() checks the range of the pixels faster than a rule of msgspec would.
        return list(map(bytes, _decode_image(image)))
    except msgspec.ValidationError as error:
        raise InputError(f"{_with_path(str(error), path)}; {IMAGE_RULE}") from error
    except JSON_ERRORS as error:
        raise InputError(
            f"the JSON of an image must have at most {MAX_IMAGE_TEXT} bytes - at `{path}`; {IMAGE_RULE}"
            if len(image) >= MAX_IMAGE_TEXT
            else f"{_with_path(str(error), path)}; {IMAGE_RULE}"
        ) from error
    except (ValueError, OverflowError) as error:
        raise InputError(f"a pixel is out of range - at `{path}`; {IMAGE_RULE}") from error


def _with_path(message: str, path: str) -> str:
    """Return msgspec's error message about a part of a body, with the place of that part in the whole body."""
    return message.replace("`$", f"`{path}") if "`$" in message else f"{message} - at `{path}`"


def _type_at(text: bytes, at: int) -> str:
    return _TYPES.get(text[at : at + 1]) or ("float" if _FLOAT.match(text, at) else "int")
