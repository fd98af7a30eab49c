"""Decode the bytes of a picture file into grey values, within limits on format, size and memory."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

# Pillow would otherwise import its decoders during the first request, which takes 20 ms.
from PIL import (  # noqa: F401
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    WebPImagePlugin,
)

from serving.errors import InputError, InputTooLargeError, PictureError
from serving.pictures.containers import jpeg_exif, orientation, without_metadata
from serving.pictures.header import JPEG_SIDE, Header, check_header, read_header
from serving.pictures.page import PART_PIXELS, TURNS, Grey, Page, parts_of, upright

BLACK, WHITE = 0, 255


def decode_grey(content: bytes, max_pixels: int, jpeg_side: int = JPEG_SIDE) -> Grey | Page:
    """Decode a picture file to its brightness, ``[H, W]`` from 0 to 255: float32, or a Page if the picture is large.

    The picture is turned upright as its EXIF orientation says. Transparent parts get a background.

    Args:
        max_pixels: the largest number of pixels to decode.
        jpeg_side: a JPEG is decoded at a share of its size if both sides keep at least this many pixels.

    Raises:
        InputTooLargeError: more than ``max_pixels`` pixels would be decoded, or a limit of ``header`` is exceeded.
        PictureError: the bytes are not a picture in one of ``FORMATS``, or they are damaged.
    """
    header = read_header(content, jpeg_side)
    check_header(header, max_pixels)
    try:
        with warnings.catch_warnings():
            # Pillow warns about unusual files even if it can read them.
            warnings.simplefilter("ignore")
            picture = _open(content, header, jpeg_side)
            picture.load()
            tone = _tone(picture)
            exif = jpeg_exif(content) if header.format == "JPEG" else picture.info.get("exif", b"")
            turn = TURNS[orientation(exif)]
            if picture.width * picture.height > PART_PIXELS:
                return Page(picture, tone, turn)
            return upright(tone(picture), turn)
    except InputError:
        raise
    except MemoryError as error:
        raise InputTooLargeError("decoding the picture takes too much memory; send a smaller picture") from error
    except Exception as error:  # Pillow's decoders raise almost any exception on damaged data
        raise PictureError(f"the picture is damaged: {error}") from error


def _open(content: bytes, header: Header, jpeg_side: int) -> Image.Image:
    file = io.BytesIO(without_metadata(content, header.format))
    if header.format == "JPEG":
        # Image.open() would also look for further pictures in the file.
        picture: Image.Image = JpegImagePlugin.JpegImageFile(file)
    else:
        picture = Image.open(file, formats=(header.format,))
    if picture.size != (header.width, header.height):
        raise PictureError(
            f"the picture is damaged: its header says {header.width}x{header.height} pixels, "
            f"but its content {picture.width}x{picture.height}"
        )
    picture.draft("L", (jpeg_side, jpeg_side))
    return picture


def _tone(picture: Image.Image) -> Callable[[Image.Image], Grey]:
    """Return the function that converts a part of ``picture`` to grey values."""
    if picture.mode.startswith("I"):
        return partial(_deep_to_grey, scale=_scale(picture))
    if picture.has_transparency_data:
        return partial(_on_background, background=_background(picture))
    return _to_grey


def _to_grey(part: Image.Image) -> Grey:
    return np.asarray(part.convert("L"), dtype=np.float32)


def _scale(picture: Image.Image) -> float:
    """Return the number by which to divide the values of a picture with more than 8 bits per pixel.

    The file does not state its scale. If a value is over 255, all values are taken as 16-bit values.
    """
    most: Any = picture.getextrema()[1]
    return 257 if most > WHITE else 1  # 257 = 65535 / 255


def _deep_to_grey(part: Image.Image, scale: float) -> Grey:
    values: Grey = np.asarray(part, dtype=np.float32) / np.float32(scale)
    return np.clip(values, BLACK, WHITE)


def _background(picture: Image.Image) -> int:
    """Return black or white, whichever contrasts more with the visible part of a transparent picture."""
    visible = weight = 0
    for part in parts_of(picture):
        grey, opacity = map(np.asarray, _grey_and_opacity(part))
        visible += int(np.multiply(grey, opacity, dtype=np.uint16).sum())
        weight += int(opacity.sum())
    return WHITE if 2 * visible < weight * (BLACK + WHITE) or not weight else BLACK


def _on_background(part: Image.Image, background: int) -> Grey:
    grey, opacity = _grey_and_opacity(part)
    page = Image.new("L", part.size, background)
    page.paste(grey, mask=opacity)
    return _to_grey(page)


def _grey_and_opacity(part: Image.Image) -> tuple[Image.Image, Image.Image]:
    part = part if part.mode == "RGBA" else part.convert("RGBA")
    return part.convert("L"), part.getchannel("A")
