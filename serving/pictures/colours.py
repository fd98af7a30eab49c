"""Find ink that is as bright as the paper by its colour, such as red on green.

A picture is decoded to grey values first. Only if they show no ink, it is decoded again to look at its colours.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from serving.pictures.decode import BLACK, WHITE, is_grey, open_picture, orientation_of, reported
from serving.pictures.header import JPEG_SIDE, read_header
from serving.pictures.ink import LEAST_CONTRAST, border_of
from serving.pictures.page import REDUCING_GAP, Grey, upright

# A picture with more pixels in all its scans is read by its brightness only. Decoding it again would take too long.
MOST_PIXELS = 1 << 22
# So is a picture whose decoder takes more bytes.
MOST_BYTES = 1 << 24
# The picture is reduced to this longer side, which is enough for a page of numbers.
LONGEST = 1024
# The direction in which the colours differ is found on a picture with this longer side. That takes little memory.
DIRECTION_SIDE = 192
# Two colours are at most 441 levels apart: the square root of 3, times 255. The difference is halved, so that a tint of
# the paper or the colour noise of a camera does not count as ink.
WEIGHT = 0.5


def decode_colours(content: bytes, jpeg_side: int = JPEG_SIDE) -> Grey | None:
    """Return how the colour of each pixel differs from that of the paper, ``[H, W]`` around the middle of 0 to 255.

    The colours are measured along the one direction in which they differ most from the paper. The result is None if the
    picture is grey, partly transparent or large.

    Args:
        content: a picture file that :func:`decode_grey` has decoded.
        jpeg_side: as there.

    Raises: as :func:`decode_grey`.
    """
    header = read_header(content, jpeg_side)
    pixels = header.decoded_pixels
    if pixels * header.scans > MOST_PIXELS or pixels * header.bytes_per_pixel > MOST_BYTES or header.is_slow:
        return None
    with reported():
        picture = open_picture(content, header, "RGB", jpeg_side)
        if is_grey(picture):
            return None
        orientation = orientation_of(content, header, picture)
        if picture.has_transparency_data:
            # decode_grey() puts transparent ink on a background of another brightness, so such a picture was not empty.
            picture = picture.convert("RGBA")
            if picture.getchannel("A").getextrema() != (WHITE, WHITE):
                return None
        picture = picture.convert("RGB")
        picture.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX, reducing_gap=REDUCING_GAP)
        return upright(np.asarray(_difference(picture), np.float32), orientation) if _has_contrast(picture) else None


def _has_contrast(picture: Image.Image) -> bool:
    """Return whether the values of some channel differ enough for ink. Those of a blank page do not."""
    colours = (channel.getextrema() for channel in picture.split())
    return any(float(most) - float(least) >= LEAST_CONTRAST for least, most in colours)  # type: ignore[arg-type]


def _difference(picture: Image.Image) -> Image.Image:
    """Return how much each colour differs from the paper along the direction in which they differ most, in grey."""
    small = picture.copy()
    small.thumbnail((DIRECTION_SIDE, DIRECTION_SIDE), Image.Resampling.BOX, reducing_gap=REDUCING_GAP)
    colours = np.asarray(small, np.float32)
    paper = np.median(border_of(colours), axis=0)
    different = (colours - paper).reshape(-1, 3)
    # The direction with the largest sum of squares.
    weights = WEIGHT * np.linalg.eigh(different.T @ different).eigenvectors[:, -1]
    return picture.convert("L", (*weights.tolist(), float((BLACK + WHITE) / 2 - weights @ paper)))
