"""Decode the bytes of a picture file into grey values, within limits on format, size and memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageChops, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.WebPImagePlugin import WebPImageFile

from serving.errors import InputError, InputTooLargeError, PictureError
from serving.pictures.containers import exif_orientation, jpeg_exif, without_metadata
from serving.pictures.header import JPEG_SIDE, Header, check_header, read_header
from serving.pictures.page import ORIENTATIONS, Colours, Grey, Orientation, Page, parts_of, upright

BLACK, WHITE = 0, 255
# A picture of at most this many pixels becomes an array. A larger one stays with Pillow, which reduces it in less time.
ARRAY_PIXELS = 1 << 13
# A picture with more pixels is converted part by part, because converting takes up to 7 bytes per pixel.
WHOLE_PIXELS = 1 << 20
# A grey picture with more pixels, such as a photo, stays in bytes. Its means are rounded to whole grey levels.
EXACT_PIXELS = 1 << 18
# The colours of a picture are reduced to this longer side. They only have to tell how many colours are near the digit.
COLOUR_SIDE = 96
# The colours of a larger picture are not decoded.
COLOUR_PIXELS = 1 << 21
# A picture in which red and blue differ from green by less than this is grey.
LEAST_TINT = 8
# Image.open() would import these during the first request, which takes 20 ms. It would also look for further pictures
# in a JPEG, and warn about large and damaged pictures. Warnings cannot be turned off for one thread only.
DECODERS: dict[str, type[ImageFile.ImageFile]] = {
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "PPM": PpmImageFile,
    "WEBP": WebPImageFile,
}


def decode_grey(content: bytes, max_pixels: int, jpeg_side: int = JPEG_SIDE) -> Grey | Page:
    """Decode a picture file to its brightness, ``[H, W]`` from 0 to 255: float32, or a Page if it has many pixels.

    The picture is turned upright as its EXIF orientation says. Transparent parts get a background.

    Args:
        max_pixels: the largest number of pixels to decode.
        jpeg_side: a JPEG is decoded at a share of its size if both sides keep at least this many pixels.

    Raises:
        InputTooLargeError: more than ``max_pixels`` pixels would be decoded, or a limit of ``header`` is exceeded.
        PictureError: the bytes are not a picture in one of the ``FORMATS``, or they are damaged.
    """
    header = read_header(content, jpeg_side)
    check_header(header, max_pixels)
    with reported():
        picture = open_picture(content, header, "L", jpeg_side)
        picture.load()
        return _grey_of(picture, orientation_of(content, header, picture))


def decode_in_colour(content: bytes, max_pixels: int) -> tuple[Grey | Page, Colours | None]:
    """Return what :func:`decode_grey` returns, and the colours of the whole picture, reduced to ``COLOUR_SIDE`` pixels.

    The colours are None if the picture is grey, or so large that they would take much time and memory.

    Raises: as :func:`decode_grey`.
    """
    header = read_header(content)
    check_header(header, max_pixels)
    is_small = header.decoded_pixels <= COLOUR_PIXELS
    with reported():
        # A JPEG keeps brightness and colours apart, so this is the same brightness as in the mode "L".
        picture = open_picture(content, header, "YCbCr" if is_small else "L", JPEG_SIDE)
        picture.load()
        orientation = orientation_of(content, header, picture)
        colours = _colours_of(picture) if is_small else None
        if picture.mode == "YCbCr":
            picture = picture.getchannel("Y")
        return _grey_of(picture, orientation), None if colours is None else upright(colours, orientation)


def _grey_of(picture: Image.Image, orientation: Orientation) -> Grey | Page:
    pixels = picture.width * picture.height
    if pixels <= WHOLE_PIXELS:
        picture = _in_grey(picture)
    if pixels <= ARRAY_PIXELS:
        return upright(_tone(picture)(picture), orientation)
    return Page(picture, _tone(picture), orientation)


def _colours_of(picture: Image.Image) -> Colours | None:
    """Return some of the colours of a picture, or None if it is grey. Transparent parts become white."""
    if is_grey(picture):
        return None
    share = min(1.0, 2 * COLOUR_SIDE / max(picture.size))
    width, height = (max(1, round(share * side)) for side in picture.size)
    # The means of all pixels would take as long as decoding them. The means of some have little noise, too.
    some = picture.resize((width, height), Image.Resampling.NEAREST)
    some = some.convert("RGBA" if some.has_transparency_data else "RGB")
    red, green, blue = some.split()[:3]
    if max(np.asarray(ImageChops.difference(green, other)).max() for other in (red, blue)) < LEAST_TINT:
        return None
    colours = some.convert("RGB")
    if some.mode == "RGBA":
        page = Image.new("RGB", colours.size, (WHITE, WHITE, WHITE))
        colours = Image.composite(colours, page, some.getchannel("A"))
    return np.asarray(colours if share == 1 else colours.reduce(2))


def is_grey(picture: Image.Image) -> bool:
    """Return whether a picture has a mode without colours."""
    return picture.mode in ("1", "L", "LA", "F") or picture.mode.startswith("I")


@contextmanager
def reported() -> Iterator[None]:
    """Raise an InputError in place of any exception in the ``with`` statement, which decodes a picture."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputTooLargeError("decoding the picture takes too much memory; send a smaller picture") from error
    except Exception as error:  # Pillow's decoders raise almost any exception on damaged data
        raise PictureError(f"the picture is damaged: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """Return the reason that Pillow gives for damaged data, which is empty for some files."""
    return str(error) or "its parts do not fit together"


def open_picture(content: bytes, header: Header, mode: Literal["L", "RGB", "YCbCr"], jpeg_side: int) -> Image.Image:
    """Return the picture before its pixels are decoded. A JPEG is decoded to ``mode``, if it has no other colours."""
    picture = DECODERS[header.format](io.BytesIO(without_metadata(content, header.format)))
    if picture.size != (header.width, header.height):
        raise PictureError(
            f"the picture is damaged: its header says {header.width}x{header.height} pixels, "
            f"but its content {picture.width}x{picture.height}"
        )
    picture.draft(mode, (jpeg_side, jpeg_side))
    return picture


def orientation_of(content: bytes, header: Header, picture: Image.Image) -> Orientation:
    """Return how to turn a decoded picture upright."""
    exif = jpeg_exif(content) if header.format == "JPEG" else picture.info.get("exif", b"")
    return ORIENTATIONS[exif_orientation(exif)]


def _tone(picture: Image.Image) -> Callable[[Image.Image], Grey]:
    """Return the function that converts a part of ``picture`` to grey values."""
    if picture.mode.startswith("I"):
        return partial(_deep_to_grey, scale=_scale(picture))
    if picture.has_transparency_data:
        background = _background(map(_grey_and_opacity, parts_of(picture)))
        return lambda part: _to_grey(_on_background(*_grey_and_opacity(part), background))
    return _to_grey


def _in_grey(picture: Image.Image) -> Image.Image:
    """Return the grey values of a picture in Pillow's mode "F", or the picture itself if it is large and grey."""
    if picture.mode.startswith("I"):
        return picture
    if picture.has_transparency_data:
        grey, opacity = _grey_and_opacity(picture)
        if np.asarray(opacity).min() < WHITE:
            grey = _on_background(grey, opacity, _background([(grey, opacity)]))
    elif picture.mode != "L":
        grey = picture.convert("L")
    elif picture.width * picture.height > EXACT_PIXELS:
        return picture
    else:
        grey = picture
    return grey.convert("F")


def _to_grey(part: Image.Image) -> Grey:
    return np.asarray(part if part.mode in ("L", "F") else part.convert("L"), dtype=np.float32)


def _scale(picture: Image.Image) -> float:
    """Return the number by which to divide the values of a picture that may have more than 8 bits per pixel.

    The file does not state how many bits are used: a camera may use 10 or 12 of 16. So the largest value tells.
    """
    most: Any = picture.getextrema()[1]
    return float(2 ** max(8, int(most).bit_length()) - 1) / WHITE


def _deep_to_grey(part: Image.Image, scale: float) -> Grey:
    values: Grey = np.asarray(part, dtype=np.float32) / np.float32(scale)
    return np.clip(values, BLACK, WHITE)


def _background(parts: Iterable[tuple[Image.Image, Image.Image]]) -> int:
    """Return black or white, whichever contrasts more with the visible part of a transparent picture.

    Args:
        parts: the shade and the opacity of each part of the picture.
    """
    visible = weight = 0
    for part in parts:
        grey, opacity = map(np.asarray, part)
        visible += int(np.multiply(grey, opacity, dtype=np.uint16).sum())
        weight += int(opacity.sum())
    return WHITE if 2 * visible < weight * (BLACK + WHITE) or not weight else BLACK


def _on_background(grey: Image.Image, opacity: Image.Image, background: int) -> Image.Image:
    page = Image.new("L", grey.size, background)
    page.paste(grey, mask=opacity)
    return page


def _grey_and_opacity(part: Image.Image) -> tuple[Image.Image, Image.Image]:
    part = part if part.mode == "RGBA" else part.convert("RGBA")
    return part.convert("L"), part.getchannel("A")
