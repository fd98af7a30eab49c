"""Bodies of requests that cost the service much more than their sender. benchmarks/attacks.py sends them.

All bodies are within the limits of the service, or look as if they were: a picture has at most ``PIXELS`` pixels, and a
body has at most ``BODY`` bytes.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from benchmarks.hostile import png_chunk

PIXELS = 25_000_000
SIDE = 5000
BODY = 7_900_000

Named = Iterator[tuple[str, bytes]]


# Pictures


def png(width: int, height: int, depth: int, color: int, row: bytes, *chunks: bytes, interlaced: bool = False) -> bytes:
    """Return a PNG with the same ``row`` repeated, which compresses a thousandfold."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    packer = zlib.compressobj(6)
    block = (b"\0" + row) * min(height, 100)
    pixels = b"".join(packer.compress(block[: (1 + len(row)) * left]) for left in pieces(height, 100))
    pixels += packer.flush()
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")]
    )


def pieces(total: int, size: int) -> Iterator[int]:
    """Yield the sizes of the pieces of ``total`` things, ``size`` in each and the rest in the last."""
    yield from itertools.repeat(size, total // size)
    if total % size:
        yield total % size


def zeros(megabytes: int, window: int = zlib.MAX_WBITS) -> bytes:
    """Return as many compressed zeros. The format is that of zlib, or the one that ``window`` names."""
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    return b"".join(packer.compress(bytes(1_000_000)) for _ in range(megabytes)) + packer.flush()


def narrow_pictures() -> Named:
    """Yield pictures with as many pixels as allowed in one row or one column."""
    comb = b"\xaa" * (PIXELS // 8)
    yield "PNG 25,000,000x1, 1 bit", png(PIXELS, 1, 1, 0, comb)
    yield "PNG 1x25,000,000, 1 bit", png(1, PIXELS, 1, 0, b"\x80")
    yield "PNG 25,000,000x1, 8 bits", png(PIXELS, 1, 8, 0, bytes(PIXELS))
    yield "PBM 25,000,000x1", b"P4\n25000000 1\n" + comb
    yield "PGM 1x7,000,000", b"P5\n1 7000000\n255\n" + bytes(7_000_000)
    yield "GIF 65535x381", saved(Image.new("P", (65_535, 381), 1), "GIF")
    yield "JPEG 65500x381", saved(Image.new("L", (65_500, 381), 200), "JPEG")
    yield "WebP 16383x1525", saved(Image.new("RGB", (16_383, 1525), "white"), "WEBP", lossless=True, method=0)
    yield "BMP 25,000,000x1, 1 bit", saved(Image.new("1", (PIXELS, 1), 1), "BMP")


def large_pictures() -> Named:
    """Yield squares with as many pixels as allowed, in every format and mode."""
    palette = png_chunk(b"PLTE", bytes(range(256)) * 3)
    transparent = png_chunk(b"tRNS", bytes(range(256)))
    yield "PNG palette with tRNS", png(SIDE, SIDE, 8, 3, bytes(range(250)) * 20, palette, transparent)
    yield "PNG 16 bits RGBA", png(SIDE, SIDE, 16, 6, b"\xff\x00\x80\x40" * SIDE * 2)
    yield "PNG 16 bits grey", png(SIDE, SIDE, 16, 0, b"\xff\x00\x80\x40" * (SIDE // 2))
    yield "PNG 16 bits RGB with tRNS", png(SIDE, SIDE, 16, 2, bytes(SIDE * 6), png_chunk(b"tRNS", bytes(6)))
    yield "PNG RGB", png(SIDE, SIDE, 8, 2, b"\xff\x00\x80" * SIDE)
    yield "PNG grey and alpha", png(SIDE, SIDE, 8, 4, b"\xff\x80" * SIDE)
    yield "PNG of specks", png(SIDE, SIDE, 1, 0, b"\xbf" * (SIDE // 8))
    yield "PNG 1 bit, interlaced", png(SIDE, SIDE, 1, 0, b"\xaa" * (SIDE // 8), interlaced=True)
    for mode, color in (("L", 200), ("RGB", "red"), ("CMYK", (10, 20, 30, 40))):
        yield f"JPEG {mode}", saved(Image.new(mode, (SIDE, SIDE), color), "JPEG")
    turned = Image.Exif()
    turned[0x0112] = 6
    yield "JPEG turned by EXIF", saved(Image.new("RGB", (SIDE, SIDE), "red"), "JPEG", exif=turned)
    yield "GIF", saved(Image.new("P", (SIDE, SIDE), 1), "GIF", transparency=1)
    yield (
        "GIF of 50 frames",
        saved(
            Image.new("P", (2000, 2000), 0),
            "GIF",
            save_all=True,
            append_images=[Image.new("P", (2000, 2000), i % 2) for i in range(1, 50)],
        ),
    )
    yield "WebP lossless RGBA", saved(Image.new("RGBA", (SIDE, SIDE), (9, 9, 9, 99)), "WEBP", lossless=True, method=0)
    yield "WebP RGB", saved(Image.new("RGB", (SIDE, SIDE), "red"), "WEBP", method=0, quality=1)
    yield "BMP 1 bit", saved(Image.new("1", (SIDE, SIDE), 1), "BMP")
    yield "PBM of specks", b"P4\n5000 5000\n" + (b"\xbf" * 625 + b"\xff" * 625) * 2500


def saved(picture: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def full_pages(images: np.ndarray) -> Named:
    """Yield pages full of digits, strokes or frames: many pieces, and many groups that may be digits.

    Args:
        images: digits, uint8 ``[N, 28, 28]``.
    """
    for columns, lines in ((16, 8), (36, 36)):
        tiles = np.resize(255 - images, (lines, columns, 28, 28))
        page = np.vstack([np.hstack(list(line)) for line in tiles])
        yield f"{columns * lines} digits", saved(Image.fromarray(page), "PNG")
    random = np.random.default_rng(0)
    for count, height in ((400, 20), (900, 30), (1500, 60)):
        strokes = np.full((1000, 1000), 255, np.uint8)
        for top, left in random.integers(0, (1000 - height, 990), (count, 2)):
            strokes[top // (2 * height) * 2 * height :][:height, left : left + 3] = 0
        yield f"{count} strokes of {height} pixels", saved(Image.fromarray(strokes), "PNG")
    frames = np.full((1000, 1000), 255, np.uint8)
    for inset in range(0, 480, 40):
        frames[inset : 1000 - inset, inset : 1000 - inset] = 0
        frames[inset + 4 : 996 - inset, inset + 4 : 996 - inset] = 255
    yield "frames", saved(Image.fromarray(frames), "PNG")
    yield from high_lines()
    yield from hairlines()


def high_lines() -> Named:
    """Yield pages of strokes that are much higher than the bars beside them, which have more ink.

    The bars give the lines their height, so that the boxes around the lines, or around groups of strokes, are large.
    """

    def page(*boxes: tuple[int, int, int, int]) -> bytes:
        """Return a page with these boxes of ink: left, top, width and height."""
        page = np.full((1000, 1000), 255, np.uint8)
        for left, top, width, height in boxes:
            page[top : top + height, left : left + width] = 0
        return saved(Image.fromarray(page), "PNG", optimize=True)

    # A straight edge as long as the page would be erased like the line of ruled paper.
    edge = [(10 + 12 * (i % 2), 10 + 40 * i, 2, 42) for i in range(24)] + [(10, 10 + 40 * i, 14, 2) for i in range(25)]
    teeth = [(left, top, 2, 6) for left in range(10, 800, 6) for top in (6, 970)]
    outline = [*edge, (10, 10, 790, 2), (10, 970, 790, 2), *teeth]
    # A solid bar would be left out, as a pen that lies on the paper.
    bar = [(200, 480, 780, 9), (200, 491, 780, 9), (200, 480, 9, 20)]
    yield "outline around a bar", page(*bar, *outline)
    poles = [(984 - 20 * i, 8 + 32 * i, 2, 984 - 32 * i) for i in range(28)]
    yield "bars at poles", page(*((8, top, left - 14, 16) for left, top, _, _ in poles), *poles)
    strokes = [(left, top, 1, 117) for top in (10, 150, 290) for left in range(319, 970, 11)]
    joints = [(left, top + 116 * (left // 11 % 2), 12, 1) for left, top, _, _ in strokes]
    yield "high zigzags", page(*((8, top + 38, 300, 40) for top in (10, 150, 290)), *strokes, *joints)


def hairlines() -> Named:
    """Yield a page of faint lines between dots, which is divided into tens of thousands of parts.

    Bars at the top hold most of the ink, so that each line counts as high as they are.
    """
    ink = np.zeros((1000, 1000), np.float32)
    for top in range(4, 85, 9):
        ink[top : top + 6, 10:865] = 1
    for top in range(94, 690, 6):
        ink[top : top + 4, 8:12] = 1
        ink[top + 1, 14:865] = 0.35
    yield "hairlines", saved(Image.fromarray((255 - 255 * ink).round().astype(np.uint8)), "PNG", optimize=True)


def specks() -> Named:
    """Yield small pictures of a thousand specks, alone and inside rings whose sides are combs."""
    random = np.random.default_rng(0)
    plain = np.where(random.random((200, 200)) < 0.05, 255, 0).astype(np.uint8)
    plain[[0, -1]] = plain[:, [0, -1]] = 255
    yield "specks in a frame", saved(Image.fromarray(plain), "PNG", optimize=True)
    combs = np.zeros((96, 96), np.uint8)
    for left, right in ((1, 95), (3, 93), (5, 91)):
        combs[left, left:right] = combs[right - 1, left:right] = combs[left:right, [left, right - 1]] = 255
        combs[left + 2 : left + 10, left:right:2] = combs[right - 10 : right - 2, left:right:2] = 255
    combs[18:78:2, 18:78:2] = 255
    yield "specks in rings of combs", saved(Image.fromarray(combs), "PNG", optimize=True)


def many_scans() -> Named:
    """Yield progressive JPEG pictures that repeat their last scan thousands of times. Each one visits every block.

    The last one hides its scans behind a gap of more bytes than may stand between two segments.
    """
    for side, count in ((SIDE, 3000), (2000, 3000), (SIDE, 300)):
        content = saved(Image.new("L", (side, side), 200), "JPEG", progressive=True)
        start, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
        repeated = content[:end] + content[start:end] * count + content[end:]
        yield f"JPEG {side}x{side}, {count} scans", repeated
    # The frame header is the last segment before the tables of the first scan.
    gap = repeated.index(b"\xff\xc4")
    yield "JPEG with a gap before its scans", repeated[:gap] + bytes(70_000) + repeated[gap:]


def run_lengths() -> Named:
    """Yield BMP pictures with run-length encoding, which takes Python a step for each run."""

    def bmp(width: int, height: int, bits: int, compression: int, runs: bytes) -> bytes:
        palette = bytes(4 * (1 << bits))
        size = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(runs), 0, 0, 1 << bits, 0)
        start = 14 + len(size) + len(palette)
        return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + size + palette + runs

    yield "RLE8 25,000,000x1, runs", bmp(PIXELS, 1, 8, 1, b"\xff\x01" * (PIXELS // 255) + b"\0\1")
    yield "RLE8 25,000,000x1, nothing", bmp(PIXELS, 1, 8, 1, b"\0\1")
    yield "RLE8 5000x5000, single pixels", bmp(SIDE, SIDE, 8, 1, b"\1\1" * (BODY // 2))
    yield "RLE4 5000x5000, ends of lines", bmp(SIDE, SIDE, 4, 2, b"\0\0" * SIDE + b"\0\1")
    yield "RLE8 5000x5000, moves", bmp(SIDE, SIDE, 8, 1, b"\0\2\xff\xff" * 1000 + b"\0\1")


def plain_pixmaps() -> Named:
    """Yield pictures of the PNM family whose decoders are slow: numbers as text, comments, floats."""
    yield "P2 of comments", b"P2\n" + b"#\n" * 500_000
    yield "P2 of comments in the data", b"P2 5000 5000 255\n" + b"#\n" * 3_900_000
    yield "P1", b"P1 2800 2800\n" + b"10" * (BODY // 2)
    yield "P2", b"P2 1900 1900 255\n" + b"7 " * (BODY // 2)
    yield "P3", b"P3 1100 1100 255\n" + b"7 " * (BODY // 2)
    yield "P2, 16 bits", b"P2 1000 1000 65535\n" + b"65535 " * 1_000_000
    yield "PFM", b"Pf 1400 1400 -1.0\n" + bytes(1400 * 1400 * 4)
    yield "PFM of NaN", b"Pf 28 28 -1.0\n" + b"\xff" * (28 * 28 * 4)
    yield "P5, 16 bits", b"P5 1950 1950 65535\n" + bytes(1950 * 1950 * 2)


def text_chunks() -> Named:
    """Yield PNG pictures whose texts and profiles inflate to much more than the picture."""
    row, megabyte = bytes(28), zeros(1)
    many = png_chunk(b"zTXt", b"a\0\0" + megabyte)
    yield "PNG, 60 texts of 1 MB", png(28, 28, 8, 0, row, *[many] * 60)
    yield "PNG, 6000 texts of 1 MB", png(28, 28, 8, 0, row, *[many] * 6000)
    vast = zeros(500)
    yield "PNG, a text of 500 MB", png(28, 28, 8, 0, row, png_chunk(b"zTXt", b"a\0\0" + vast))
    yield "PNG, iTXt of 500 MB", png(28, 28, 8, 0, row, png_chunk(b"iTXt", b"a\0\1\0\0\0" + vast))
    yield "PNG, a profile of 500 MB", png(28, 28, 8, 0, row, png_chunk(b"iCCP", b"a\0\0" + vast))
    yield "PNG, 560,000 chunks", png(28, 28, 8, 0, row, *[png_chunk(b"tEXt", b"a\0")] * 560_000)
    yield (
        "PNG, more pixels than its header says",
        png(28, 10_000_000, 8, 0, row)[:33].replace(struct.pack(">I", 10_000_000), struct.pack(">I", 28))
        + png_chunk(b"IDAT", vast)
        + png_chunk(b"IEND", b""),
    )


def pieces_of_data() -> Named:
    """Yield PNG pictures whose image data comes in very many pieces, most of them empty."""
    for count in (16_000, 650_000):
        yield f"PNG, {count} pieces", png(28, 28, 8, 0, bytes(28), *[png_chunk(b"IDAT", b"")] * count)


# Forms

FORM = "multipart/form-data; boundary=x"


def form(*parts: tuple[str, bytes]) -> bytes:
    """Return a multipart form. Each part is its headers and its content."""
    return (
        b"".join(b"--x\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n" for head, content in parts) + b"--x--\r\n"
    )


def file_part(content: bytes, name: str = "files") -> tuple[str, bytes]:
    return f'Content-Disposition: form-data; name="{name}"; filename="a.png"', content


def forms_of_pictures() -> Named:
    """Yield forms of many pictures, each within its limits. One form is within the limits of a request too."""
    grey, bits = png(SIDE, SIDE, 8, 0, bytes(SIDE)), png(SIDE, SIDE, 1, 0, b"\xbf" * (SIDE // 8))
    yield "4 PNG of 25 million pixels", form(*[file_part(grey)] * 4)
    yield "20 PNG of 25 million pixels", form(*[file_part(grey)] * 20)
    yield "600 PNG of 25 million pixels, 1 bit", form(*[file_part(bits)] * 600)
    yield "900 PNG of 1 million pixels", form(*[file_part(png(1000, 1000, 8, 0, bytes(1000)))] * 900)
    (_, scans), *_ = many_scans()
    yield "20 JPEG of 3000 scans", form(*[file_part(scans)] * 20)


def charsets() -> Named:
    """Yield forms whose parts choose an algorithm to decode their text."""
    picture = file_part(png(28, 28, 8, 0, bytes(28)))
    for charset in ("punycode", "idna", "utf-7", "unicode_escape", "zlib_codec", "bz2_codec", "rot13", "undefined"):
        head = f'Content-Disposition: form-data; name="a"\r\nContent-Type: text/plain; charset={charset}'
        yield f"a text in {charset}", form(picture, (head, b"a" * 400_000))
    for charset in ("punycode", "utf-7", "idna"):
        head = f"Content-Disposition: form-data; name=\"a\"; filename*={charset}''" + "a" * 3900
        yield f"a file name in {charset}", form(*[picture], *[(head, b"a")] * 100)


def boundaries() -> Named:
    """Yield forms that make a search for the boundary, or a parser of headers, take long."""
    picture = file_part(png(28, 28, 8, 0, bytes(28)))
    disposition = 'Content-Disposition: form-data; name="a"'
    yield "nearly boundaries", form(picture, (disposition, b"\r\n--y" * (BODY // 5)))
    yield "starts of boundaries", form(picture, (disposition, b"\r\n-" * (BODY // 3)))
    yield "line breaks", form(picture, (disposition, b"\r" * BODY))
    yield "before the first boundary", b"\r\n-" * (BODY // 3) + form(picture)
    yield "after the last boundary", form(picture) + b"\r\n-" * (BODY // 3)
    yield "parameters", form(*[(disposition + "; a=b" * 700, b"a")] * 900)
    yield "quotes", form(*[(disposition + r'; filename="' + r"\"" * 1900 + '"', b"a")] * 900)
    yield "empty parts", form(*[(disposition, b"")] * 100_000)


# JSON


def json_values(images: np.ndarray) -> Named:
    """Yield JSON bodies of /predict with as many values as fit."""
    for value in (b"1", b"[]", b"{}", b'""', b"[[]]", b"null", b"-0.1e9"):
        yield f"images of {value.decode()}", b'{"images":[' + filled(value) + b"]}"
    rows = json.dumps(images[0].tolist()).encode()
    yield "digits, then one that is none", b'{"images":[' + b",".join([rows] * 1000) + b",[]]}"
    yield "other members", b"{" + b",".join(b'"%06d":0' % i for i in range(BODY // 12)) + b"}"
    yield "one long number", b'{"images":[[[' + b"1" * BODY + b"]]]}"
    yield "one long text", b'{"images":"' + b"\\u00e9" * (BODY // 6) + b'"}'
    yield "spaces", b'{"images":[' + b" " * BODY + b"1]}"


def filled(value: bytes) -> bytes:
    """Return as many values as fit into a body, separated by commas."""
    return b",".join([value] * (BODY // (len(value) + 1)))


def inference_values() -> Named:
    """Yield bodies of the Open Inference Protocol with as many values as fit."""
    start = b'{"inputs":[{"name":"images","shape":[%b],"datatype":"UINT8"%b,"data":%b}]%b}'
    tensor = b'{"name":"a","shape":[],"datatype":""}'
    for value in (b"1", b"[]", b"[[]]", b"{}", b'"a"', b"null"):
        yield f"data of {value.decode()}", start % (b"1,28,28", b"", b"[" + filled(value) + b"]", b"")
    yield "lists of data", start % (b"1,28,28", b"", b"[[" + filled(b"[]") + b"]]", b"")
    yield "one number", start % (b"1,28,28", b"", b"[" + b"1" * BODY + b"]", b"")
    yield "shape", start % (filled(b"1"), b"", b"[]", b"")
    yield "inputs", b'{"inputs":[' + filled(tensor) + b"]}"
    yield "outputs", start % (b"1,28,28", b"", b"[1]", b',"outputs":[' + filled(b'{"name":"logits"}') + b"]")
    yield "parameters", start % (b"1,28,28", b',"parameters":{"a":[' + filled(b"[]") + b"]}", b"[1]", b"")
    yield "other members", start % (b"1,28,28", b',"b":[' + filled(b"{}") + b"]", b"[1]", b"")


def compressed(bodies: Named) -> Named:
    for name, body in bodies:
        yield f"gzip: {name}", gzip.compress(body, 9)


def gzip_bombs() -> Named:
    """Yield compressed bodies: one inflates to too much, the others to as much as allowed."""
    yield from compressed(inference_values())
    yield "gzip: 500 MB", zeros(500, zlib.MAX_WBITS | 16)
    yield "gzip: a million members", gzip.compress(b"", 9) * (BODY // 20)
    yield "gzip: the same, twice", gzip.compress(gzip.compress(bytes(BODY), 9), 9)


def repeated_outputs(images: np.ndarray) -> Named:
    """Yield small requests for large responses: an output that is named again and again."""
    batch = np.resize(images, (1024, 28, 28))
    for count, name, form in ((1, 1400, {}), (1, 100_000, {}), (256, 1400, {}), (1, 1400, {"classification": 10})):
        tensor = {
            "name": "images",
            "shape": [count, 28, 28],
            "datatype": "UINT8",
            "data": batch[:count].ravel().tolist(),
        }
        outputs = [{"name": "logits", "parameters": form}] * name
        body = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
        yield f"{count} images, {name} outputs {form or ''}".strip(), gzip.compress(body, 9)
