"""Picture files become grey values, within limits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from serving.errors import InputTooLargeError, PictureError
from serving.pictures.decode import decode_grey
from tests.serving.pictures.files import PALETTE, black_png, chunk
from tests.support import picture

MAX_PIXELS = 25_000_000

# A dark corner on white tells which way up the picture is.
PAGE = np.full((32, 48), 255, np.uint8)
PAGE[:16, :16] = 0  # whole blocks of a JPEG


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM"])
def test_every_format_is_decoded(format):
    options = {"lossless": True} if format == "WEBP" else {"quality": 95} if format == "JPEG" else {}
    grey = decode_grey(picture(PAGE, format, **options), MAX_PIXELS)
    assert grey.dtype == np.float32
    np.testing.assert_allclose(grey, PAGE, atol=2 if format == "JPEG" else 0)


def test_other_format_is_rejected():
    with pytest.raises(PictureError, match=r"not a picture in one of the formats PNG, .*, WebP and binary PNM"):
        decode_grey(picture(PAGE, "ICO"), MAX_PIXELS)
    with pytest.raises(PictureError, match="a TIFF is not read here; convert it to PNG or JPEG"):
        decode_grey(picture(PAGE, "TIFF"), MAX_PIXELS)


def test_palette_without_its_colours_is_damaged_for_a_reason():
    content = black_png(28, 28, 8, PALETTE)
    assert b"PLTE" not in content
    with pytest.raises(PictureError, match="the picture is damaged: its parts do not fit together"):
        decode_grey(content, MAX_PIXELS)


def test_empty_file_is_called_empty():
    with pytest.raises(PictureError, match="the picture is empty"):
        decode_grey(b"", MAX_PIXELS)


def test_truncated_picture_is_rejected():
    with pytest.raises(PictureError, match="damaged"):
        decode_grey(picture(PAGE)[:60], MAX_PIXELS)


def test_size_is_checked_before_the_pixels_are_unpacked():
    header_only = picture(np.zeros((100, 100), np.uint8))[:60]
    with pytest.raises(InputTooLargeError, match="100x100 pixels: must be at most 9999"):
        decode_grey(header_only, 9_999)


def test_decoding_changes_no_filter_of_warnings(monkeypatch):
    """The filters belong to all threads: of two that change them, one may leave its own behind."""
    with monkeypatch.context() as patch:
        patch.setattr(warnings, "catch_warnings", None)
        assert decode_grey(picture(PAGE), MAX_PIXELS).shape == PAGE.shape


ANIMATION = chunk(b"acTL", bytes(8))
UNUSUAL = {
    "two animations": (black_png(28, 28, 1)[:33] + 2 * ANIMATION, r"damaged: (?!Invalid APNG)"),
    "a second, large header": (black_png(28, 28, 1)[:33] + black_png(10_000, 10_000, 1)[8:], "content 10000x10000"),
}


@pytest.mark.parametrize(("content", "reason"), UNUSUAL.values(), ids=UNUSUAL)
def test_picture_about_which_pillow_would_warn_is_one_error(content, reason):
    with pytest.raises(PictureError, match=reason):
        decode_grey(content, MAX_PIXELS)


def test_camera_rotation_is_undone():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn the picture by 90 degrees clockwise to see it upright
    turned = np.asarray(Image.fromarray(PAGE).transpose(Image.Transpose.ROTATE_90))
    np.testing.assert_allclose(decode_grey(picture(turned, "JPEG", exif=exif, quality=95), MAX_PIXELS), PAGE, atol=2)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_up_to_16_bits_are_scaled_to_8(bits):
    deep = PAGE.astype(np.float64) * (2**bits - 1) / 255
    np.testing.assert_allclose(decode_grey(picture(np.rint(deep).astype(np.uint16)), MAX_PIXELS), PAGE, atol=0.2)


@pytest.mark.parametrize("ink", [0, 255])
def test_transparent_background_contrasts_with_the_ink(ink):
    picture_of_ink = np.dstack([np.full_like(PAGE, ink)] * 3 + [255 - PAGE])
    grey = decode_grey(picture(picture_of_ink), MAX_PIXELS)
    np.testing.assert_array_equal(grey, np.where(PAGE == 0, ink, 255 - ink))


def test_opaque_picture_with_transparency_keeps_its_shades():
    opaque = np.dstack([PAGE] * 3 + [np.full_like(PAGE, 255)])
    np.testing.assert_array_equal(decode_grey(picture(opaque), MAX_PIXELS), PAGE)
