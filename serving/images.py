"""Any picture of a digit to 28x28 as MNIST made it.

MNIST's own steps, as reconstructed by QMNIST (Yadav and Bottou, arXiv:1905.10498): the box around the
ink, made square, averaged down to 20x20, stretched to full ink, and pasted into 28x28 so that the
centre of mass comes to lie at the middle of the frame. Before them comes what a scan of black ink did
not need: which way up, which part is ink, and how dark the paper is.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt

# Pillow would load its decoders with the first picture, which would wait 20 ms for them.
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

from serving.classifier import IMAGE_SIZE, Images

# Formats whose decoders are small and much used.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM")

BOX = 20  # the digit's longest side within the frame
# Ink fainter than this share of the strongest is paper, noise or shadow.
FAINT = 0.25

Ink = npt.NDArray[np.float32]


class PictureError(ValueError):
    """The bytes are no picture that can be read."""


class PictureTooLargeError(PictureError):
    """The picture has more pixels than are taken."""


def decode(content: bytes, max_pixels: int) -> Images:
    """The digit in a picture as uint8 ``[28, 28]``, bright on dark. An empty picture gives zeros.

    Raises:
        PictureTooLargeError: it has more than ``max_pixels``.
        PictureError: it is not a picture of a known format, or damaged.
    """
    grey = read_grey(content, max_pixels)
    return to_mnist(grey)


def read_grey(content: bytes, max_pixels: int) -> Ink:
    """The picture's brightness, float32 ``[H, W]`` in 0..255, upright, on an opaque ground."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of oddities that do not keep it from reading the picture.
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(content), formats=FORMATS)
            # The size stands in the header: a bomb is refused before it is unpacked.
            if picture.width * picture.height > max_pixels:
                raise PictureTooLargeError(
                    f"the picture has {picture.width}x{picture.height} pixels; at most {max_pixels} are taken"
                )
            picture.load()
            return _grey(ImageOps.exif_transpose(picture))
    except PictureError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, met while it reads the header
        raise PictureTooLargeError(f"the picture is too large: {error}; at most {max_pixels} are taken") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"not a picture in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
        raise PictureError(f"the picture is damaged: {error}") from error


def _grey(picture: Image.Image) -> Ink:
    if picture.mode.startswith("I") or picture.mode == "F":  # 16 bits and more; the scale is the picture's own
        values = np.asarray(picture, dtype=np.float32)
        return np.clip(values / 257 if values.max(initial=0) > 255 else values, 0, 255)
    if not picture.has_transparency_data:
        return np.asarray(picture.convert("L"), dtype=np.float32)
    # A drawing on nothing: give it the ground it stands out from.
    grey, alpha = (np.asarray(band, dtype=np.float32) for band in picture.convert("RGBA").convert("LA").split())
    weight = alpha / 255
    mean = float((grey * weight).sum() / weight.sum()) if weight.any() else 0.0
    ground = 255 if mean < 128 else 0
    return (grey * weight + ground * (1 - weight)).astype(np.float32)


def to_mnist(grey: Ink) -> Images:
    """Brightness ``[H, W]`` in 0..255 to uint8 ``[28, 28]`` as MNIST made it."""
    border = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    paper = float(np.median(border))
    ink = (grey - paper if paper < 128 else paper - grey).astype(np.float32)
    if is_mnist(ink):
        return ink.astype(np.uint8)
    ink = np.maximum(ink, 0)
    strongest = float(ink.max())
    if strongest < 8:  # of 255: nothing stands out
        return np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    ink = np.where(ink < FAINT * strongest, 0, ink).astype(np.float32)
    return center(shrink(ink))


def is_mnist(ink: Ink) -> bool:
    """Whether the picture is 28x28 as MNIST has them: black around, ink in the middle, centred by mass."""
    if ink.shape != (IMAGE_SIZE, IMAGE_SIZE) or ink.min() < 0 or not ink.any():
        return False
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    longest = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    return bool(longest <= BOX + 1 and all(abs(centre - 14.5) <= 0.75 for centre in _centre(ink)))


def shrink(ink: Ink) -> Ink:
    """The square around the ink, averaged to ``[20, 20]`` and stretched to 0..255."""
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
    side = max(height, width)
    square = np.zeros((side, side), np.float32)
    y, x = (side - height) // 2, (side - width) // 2
    square[y : y + height, x : x + width] = ink[top : top + height, left : left + width]
    method = Image.Resampling.BOX if side >= BOX else Image.Resampling.BICUBIC
    small = np.asarray(Image.fromarray(square).resize((BOX, BOX), method))
    stretched: Ink = np.clip(small * (255 / small.max()), 0, 255).astype(np.float32)
    return stretched


def center(digit: Ink) -> Images:
    """Paste ``[20, 20]`` into 28x28 by whole pixels, its centre of mass nearest to the pixel (14, 14)."""
    frame = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    # Centres in edge coordinates. A digit with its mass at a corner keeps its ink: the box stays inside.
    y, x = (min(max(int(np.floor(15 - centre)), 0), IMAGE_SIZE - BOX) for centre in _centre(digit))
    frame[y : y + BOX, x : x + BOX] = np.rint(digit)
    return frame


def _centre(ink: Ink) -> tuple[float, float]:
    """Centre of mass (row, column) in edge coordinates: the middle of pixel i is i + 0.5."""
    total = float(ink.sum())
    return tuple(  # type: ignore[return-value]
        float((ink.sum(axis=1 - axis) * (np.arange(ink.shape[axis]) + 0.5)).sum()) / total for axis in (0, 1)
    )
