"""The header of a picture says what decoding will cost, and pictures that cost too much are rejected."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from serving.errors import InputTooLargeError, PictureError
from serving.pictures import header
from serving.pictures.containers import jpeg_segments
from serving.pictures.header import MAX_SIDE, check_header, read_header
from serving.pictures.mnist_form import to_mnist_form
from tests.serving.pictures.files import PALETTE, RGB, RGBA, black_png, chunk, encoded, gif, many_scans, rle_bmp

MAX_PIXELS = 25_000_000
COLOURS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8))

FILES = {
    "PNG": encoded(COLOURS, "PNG"),
    "PNG with palette": encoded(COLOURS.quantize(8), "PNG"),
    "animated PNG": encoded(COLOURS, "PNG", save_all=True, append_images=[COLOURS.rotate(180)]),
    "JPEG": encoded(COLOURS, "JPEG"),
    "JPEG of grey": encoded(COLOURS.convert("L"), "JPEG"),
    "JPEG of CMYK": encoded(COLOURS.convert("CMYK"), "JPEG"),
    "progressive JPEG": encoded(COLOURS, "JPEG", progressive=True, comment=b"\xff\xda" * 9),
    "GIF": encoded(COLOURS, "GIF"),
    "GIF with comment": encoded(COLOURS, "GIF", comment=b"x" * 600, transparency=0),
    "animated GIF": encoded(COLOURS, "GIF", save_all=True, append_images=[COLOURS.rotate(180)], loop=0),
    "BMP": encoded(COLOURS, "BMP"),
    "BMP with palette": encoded(COLOURS.quantize(8), "BMP"),
    "WebP": encoded(COLOURS, "WEBP"),
    "lossless WebP": encoded(COLOURS, "WEBP", lossless=True),
    "animated WebP": encoded(COLOURS, "WEBP", save_all=True, append_images=[COLOURS.rotate(180)]),
    "PBM": encoded(COLOURS.convert("1"), "PPM"),
    "PGM": encoded(COLOURS.convert("L"), "PPM"),
    "PGM of 16 bits": encoded(Image.fromarray(np.zeros((37, 53), np.uint16)), "PPM"),
    "PPM": encoded(COLOURS, "PPM"),
    "PPM with comments": b"P6 # one\n#two\r53\t37 #three\n255\n" + COLOURS.tobytes(),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES.keys())
def test_header_has_the_size_of_the_picture(content):
    found = read_header(content)
    assert (found.width, found.height) == COLOURS.size
    to_mnist_form(content, MAX_PIXELS)  # Pillow finds the same size; otherwise this would raise PictureError.


@pytest.mark.parametrize("content", FILES.values(), ids=FILES.keys())
def test_file_that_ends_early_is_a_damaged_picture(content):
    for end in [*range(0, min(len(content), 700), 3), len(content) // 2]:
        try:
            to_mnist_form(content[:end], MAX_PIXELS)
        except PictureError:
            continue
        assert end > 40  # Only image data may be missing, which some decoders tolerate.


UNUSED = {
    "PBM as text": b"P1 28 28 " + b"1 " * 784,
    "PGM as text": b"P2\n" + b"#\n" * 500_000 + b"28 28 255 " + b"1 " * 784,
    "PPM as text": b"P3 28 28 255 " + b"1 " * 3 * 784,
    "PFM": b"Pf\n28 28\n-1.0\n" + np.full(784, np.nan, np.float32).tobytes(),
    "Pillow's own PNM": b"PyRGBA\n28 28\n255\n" + bytes(4 * 784),
    "BMP with run lengths": rle_bmp(28, 28),
    "long comments": b"P5\n" + b"#\n" * 500_000 + b"28 28 255 " + bytes(784),
    "long comments before the largest value": b"P5 28 28\n" + b"#\n" * 500_000 + b"255 " + bytes(784),
    "spaces before the largest value": b"P6 28 28" + b" " * 1_000_000 + b"255 " + bytes(3 * 784),
    "a long comment after the height": b"P4 28 28#" + b"x" * 1_000_000 + b"\n " + bytes(112),
    "TIFF": encoded(COLOURS, "TIFF"),
}


@pytest.mark.parametrize("content", UNUSED.values(), ids=UNUSED.keys())
def test_format_that_nobody_uses_is_rejected(content):
    with pytest.raises(PictureError, match=r"not a picture in one of the formats PNG|send it as PNG|convert it to PNG"):
        to_mnist_form(content, MAX_PIXELS)


TOO_LARGE = {
    "a row of pixels": (black_png(MAX_SIDE + 1, 1, 1), "16385x1 pixels: must be at most 16384 pixels wide and high"),
    "a column of pixels": (black_png(1, MAX_SIDE + 1, 1), "must be at most 16384 pixels wide and high"),
    "many pixels": (black_png(5001, 5000, 1), "5001x5000 pixels: must be at most 25000000 pixels"),
    "GIF with a picture beyond its page": (gif(13_000, 13_000), "13000x13000 pixels"),
    "GIF with a picture far to the right": (gif(100, 100, left=65_000), "65100x100 pixels"),
    "canvas of a WebP": (b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f\xfe\xbf\xff\x0f" + bytes(20), "16383x16383 pixels"),
    "scans": (many_scans(16, 100), "has 109 scans: must be at most 100; save it as a plain JPEG"),
}


@pytest.mark.parametrize(("content", "message"), TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_picture_beyond_a_limit_is_rejected_with_the_way_out(content, message):
    with pytest.raises(InputTooLargeError, match=message):
        to_mnist_form(content, MAX_PIXELS)


def test_bmp_with_more_colours_than_it_can_use_is_damaged():
    content = bytearray(encoded(Image.fromarray(np.zeros((28, 28), np.uint8)), "BMP"))
    content[46:50] = (65_536).to_bytes(4, "little")
    with pytest.raises(PictureError, match="a BMP with 65536 colours, but 8 bits per pixel"):
        read_header(bytes(content))


def test_memory_counts_what_decoding_holds_and_not_only_the_pixels():
    large = [black_png(5000, 5000, 16, RGBA), black_png(5000, 5000, 8, PALETTE), black_png(5000, 5000, 8, RGB)]
    for content in large:
        check_header(read_header(content), MAX_PIXELS)
    webp = encoded(Image.fromarray(np.zeros((2500, 2500), np.uint8)), "WEBP")
    with pytest.raises(
        InputTooLargeError, match="decoding a WEBP of 2500x2500 pixels takes 106 MB: must be at most 100"
    ):
        check_header(read_header(webp), MAX_PIXELS)


def test_coefficients_of_a_progressive_jpeg_are_counted():
    colours = Image.fromarray(np.zeros((64, 64, 3), np.uint8))
    sizes = {
        "baseline": encoded(colours, "JPEG"),
        "4:2:0": encoded(colours, "JPEG", progressive=True, subsampling=2),
        "4:4:4": encoded(colours, "JPEG", progressive=True, subsampling=0),
    }
    assert {name: read_header(content).bytes_per_pixel for name, content in sizes.items()} == {
        "baseline": 1,
        "4:2:0": 4,
        "4:4:4": 7,
    }


def test_scans_are_counted_across_the_pieces_of_a_large_file(monkeypatch):
    content = many_scans(16, 80)
    expected = read_header(content).scans
    assert expected == 89
    for size in range(1, 40):
        monkeypatch.setattr(header, "SEARCHED_BYTES", size)
        assert read_header(content).scans == expected


@pytest.mark.parametrize("content", [b"P", b"Px", b"PK\3\4"])
def test_file_that_only_begins_like_a_pnm_is_no_picture(content):
    with pytest.raises(PictureError, match="not a picture"):
        read_header(content)


@pytest.mark.parametrize("hidden", [b"\0" * 70_000, b"\xff\xd9"], ids=["a gap", "an end"])
def test_jpeg_is_not_read_beyond_what_was_checked(hidden):
    """A decoder skips bytes between two segments. Behind them it might find thousands of scans, or camera data."""
    content = many_scans(16, 80)
    [end] = [end for marker, _, end in jpeg_segments(content) if marker == 0xC2]
    read_header(content[:end] + b"\0" * 100 + content[end:])
    with pytest.raises(PictureError, match="a JPEG without image data where it should be"):
        read_header(content[:end] + hidden + content[end:])


def test_gaps_in_a_jpeg_are_limited_together():
    """Pillow skips them byte by byte, which takes more than a second for 7 MB."""
    content = encoded(COLOURS, "JPEG")
    gap = b"\xff\xfe\0\2" + b"\0" * 20_000
    read_header(content[:2] + 3 * gap + content[2:])
    with pytest.raises(PictureError, match="a JPEG without image data where it should be"):
        read_header(content[:2] + 4 * gap + content[2:])


def test_jpeg_of_padding_is_no_picture():
    with pytest.raises(PictureError, match="a JPEG without image data"):
        to_mnist_form(b"\xff\xd8" + b"\xff" * 7_900_000, MAX_PIXELS)


def test_second_header_cannot_declare_another_size():
    small = black_png(28, 28)
    large = chunk(b"IHDR", black_png(4000, 4000)[16:29])
    with pytest.raises(PictureError, match="header says 28x28 pixels, but its content 4000x4000"):
        to_mnist_form(small[:33] + large + small[33:], MAX_PIXELS)
