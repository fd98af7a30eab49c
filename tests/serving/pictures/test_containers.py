"""Metadata of a picture file is not unpacked, and only its orientation is read."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from serving.errors import PictureError
from serving.pictures.containers import (
    MAX_PNG_CHUNKS,
    bare_png,
    exif_orientation,
    jpeg_exif,
    png_chunks,
    without_metadata,
)
from serving.pictures.mnist_form import to_mnist_form
from tests.serving.pictures.files import black_png, chunk, encoded, gif, greedy_directory, segment

MAX_PIXELS = 25_000_000
MEGABYTE = zlib.compress(bytes(1 << 20), 9)
JPEG = encoded(Image.fromarray(np.zeros((28, 28), np.uint8)), "JPEG")
GREEDY_EXIF = segment(0xE1, b"Exif\0\0" + greedy_directory())

HEAVY = {
    "compressed texts": black_png(28, 28, chunks=[chunk(b"zTXt", b"%d\0\0" % i + MEGABYTE) for i in range(200)]),
    "international texts": black_png(
        28, 28, chunks=[chunk(b"iTXt", b"%d\0\1\0\0\0" % i + MEGABYTE) for i in range(200)]
    ),
    "colour profiles": black_png(28, 28, chunks=[chunk(b"iCCP", b"p\0\0" + MEGABYTE)] * 200),
    "texts after the image data": black_png(28, 28)[:-12] + chunk(b"zTXt", b"t\0\0" + MEGABYTE) * 500,
    "camera data of a PNG": black_png(28, 28, chunks=[chunk(b"eXIf", greedy_directory())]),
    "camera data of a JPEG": JPEG[:2] + GREEDY_EXIF + JPEG[2:],
    "list of further pictures": JPEG[:2] + segment(0xE2, b"MPF\0" + greedy_directory()) + JPEG[2:],
}


@pytest.mark.parametrize("content", HEAVY.values(), ids=HEAVY.keys())
def test_metadata_is_not_unpacked(content):
    tracemalloc.start()
    try:
        assert to_mnist_form(content, MAX_PIXELS).reason == "empty"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


MANY_PARTS = {
    "PNG": black_png(28, 28, chunks=[chunk(b"prVt", b"")] * 257),
    "JPEG": JPEG[:2] + segment(0xE5, b"") * 257 + JPEG[2:],
    "GIF": gif(28, 28, extensions=b"!\xfe" + b"\1a" * 10_000 + b"\0"),
}


@pytest.mark.parametrize("content", MANY_PARTS.values(), ids=MANY_PARTS.keys())
def test_number_of_parts_before_the_image_data_is_limited(content):
    with pytest.raises(
        PictureError, match=r"more than (256|10000) parts before its image data; save it without metadata"
    ):
        to_mnist_form(content, MAX_PIXELS)


def in_chunks(count):
    """A PNG whose image data comes in this many chunks. All of them but one are empty."""
    png = black_png(28, 28)
    start = png.index(b"IDAT") - 4
    return png[:start] + chunk(b"IDAT", b"") * (count - 1) + png[start:]


def test_image_data_in_many_chunks_is_read_as_one_chunk():
    content = in_chunks(MAX_PNG_CHUNKS)
    assert [kind for kind, _, _ in png_chunks(content)] == [b"IHDR", b"IDAT", b"IEND"]
    assert bare_png(content) == content
    assert without_metadata(content, "PNG") is content
    assert to_mnist_form(content, MAX_PIXELS).reason == "empty"


def test_number_of_chunks_of_image_data_is_limited():
    content = in_chunks(MAX_PNG_CHUNKS + 1)
    for read in (bare_png, lambda content: to_mnist_form(content, MAX_PIXELS)):
        with pytest.raises(PictureError, match="image data in more than 16384 chunks; save it again"):
            read(content)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("value", range(1, 9))
def test_orientation_is_that_of_pillow(format, value):
    page = np.full((32, 48), 255, np.uint8)
    page[4:20, 6:12] = 0
    page[16:20, 12:30] = 0
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = value
    content = encoded(Image.fromarray(page), format, exif=exif, quality=100)
    upright = encoded(ImageOps.exif_transpose(Image.open(io.BytesIO(content))), "PNG")
    np.testing.assert_array_equal(to_mnist_form(content, MAX_PIXELS).image, to_mnist_form(upright, MAX_PIXELS).image)


def test_orientation_is_read_in_both_byte_orders_and_ignored_if_damaged():
    for order, mark in (("<", b"II*\0"), (">", b"MM\0*")):
        entry = struct.pack(f"{order}IHHHIHH", 8, 1, 0x0112, 3, 1, 6, 0)
        assert exif_orientation(b"Exif\0\0" + mark + entry) == exif_orientation(mark + entry) == 6
        assert exif_orientation(mark + entry[:-8]) == 1
        assert exif_orientation(mark + struct.pack(f"{order}IHHHIHH", 8, 1, 0x0112, 3, 1, 9, 0)) == 1
        assert exif_orientation(mark + struct.pack(f"{order}I", 0xFFFFFFFF)) == 1
    assert exif_orientation(b"") == exif_orientation(b"II*\0") == exif_orientation(b"nonsense") == 1


def test_file_without_metadata_is_not_copied():
    assert without_metadata(JPEG, "JPEG") is JPEG
    png = black_png(28, 28)
    assert without_metadata(png, "PNG") is png


def test_metadata_is_removed_and_colours_stay():
    colours = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = encoded(Image.fromarray(colours), "JPEG", exif=exif, comment=b"c", icc_profile=b"p" * 200_000, keep_rgb=True)
    bare = without_metadata(jpeg, "JPEG")
    assert len(bare) < len(jpeg) - 200_000
    assert exif_orientation(jpeg_exif(jpeg)) == 6
    pictures = [Image.open(io.BytesIO(content)) for content in (jpeg, bare)]
    np.testing.assert_array_equal(*map(np.asarray, pictures))
