"""Decode the bytes of a picture file into grey values, within limits on format and size."""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt

# Pillow would otherwise import its decoders during the first request, which takes 20 ms.
from PIL import (  # noqa: F401
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from serving.errors import InputError, InputTooLargeError, PictureError

# Only common formats: each further decoder of Pillow is more code that reads untrusted bytes.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM")

BLACK, WHITE = 0, 255

Grey = npt.NDArray[np.float32]


def decode_grey(content: bytes, max_pixels: int) -> Grey:
    """Decode a picture file to its brightness, float32 ``[H, W]`` from 0 to 255.

    The picture is turned upright as its EXIF orientation says. Transparent parts get a background.

    Raises:
        InputTooLargeError: the picture has more than ``max_pixels`` pixels.
        PictureError: the bytes are not a picture in one of ``FORMATS``, or they are damaged.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns about unusual files even if it can read them.
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(content), formats=FORMATS)
            # open() has read only the header. Check before load(), so that a decompression bomb is never unpacked.
            if picture.width * picture.height > max_pixels:
                raise InputTooLargeError(
                    f"the picture has {picture.width}x{picture.height} pixels: "
                    f"must be at most {max_pixels} pixels; send a smaller picture"
                )
            picture.load()
            return _grey(ImageOps.exif_transpose(picture))
    except InputError:
        raise
    except Image.DecompressionBombError as error:  # Pillow checks its own limit in open()
        raise InputTooLargeError(
            f"the picture is too large: {error}; must be at most {max_pixels} pixels; send a smaller picture"
        ) from error
    except UnidentifiedImageError as error:
        raise PictureError(f"not a picture in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise almost any exception on damaged data
        raise PictureError(f"the picture is damaged: {error}") from error


def _grey(picture: Image.Image) -> Grey:
    if picture.mode.startswith("I") or picture.mode == "F":
        return _deep_to_grey(picture)
    if picture.has_transparency_data:
        return _with_background(picture)
    return np.asarray(picture.convert("L"), dtype=np.float32)


def _deep_to_grey(picture: Image.Image) -> Grey:
    """Convert a picture with more than 8 bits per pixel.

    The file does not state its scale. If a value is over 255, all values are taken as 16-bit values.
    """
    values = np.asarray(picture, dtype=np.float32)
    scaled = values / 257 if values.max(initial=0) > WHITE else values  # 257 = 65535 / 255
    return np.clip(scaled, BLACK, WHITE)


def _with_background(picture: Image.Image) -> Grey:
    """Put a transparent picture on black or white, whichever contrasts more with its visible part."""
    grey, alpha = (np.asarray(band, dtype=np.float32) for band in picture.convert("RGBA").convert("LA").split())
    opacity = alpha / 255
    mean = float((grey * opacity).sum() / opacity.sum()) if opacity.any() else 0.0
    background = WHITE if mean < (BLACK + WHITE) / 2 else BLACK
    return (grey * opacity + background * (1 - opacity)).astype(np.float32)
