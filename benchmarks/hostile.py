"""Make hostile requests from a random seed. benchmarks/abuse.py sends them.

Each request is the bytes for one connection. Many break a rule of HTTP, of a picture format, of JSON or of the Open
Inference Protocol. The others are valid requests in which a few bytes were changed. The values that break a rule are
in hostile.json. Its texts are sent in the encoding Latin-1.
"""

from __future__ import annotations

import gzip
import json
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Request, encode_picture

Random = random.Random

VALUES: dict[str, list[Any]] = json.loads((Path(__file__).parent / "hostile.json").read_text())
INFER = "/v2/models/mnist/infer"
FEEDBACK = "/feedback?label=1&consent=yes"


def texts(name: str) -> list[bytes]:
    """Return the values of a list of texts as bytes."""
    return [text.encode("latin-1") for text in VALUES[name]]


def damaged(content: bytes, draw: Random) -> bytes:
    """Return the content with some bytes changed, removed, repeated or inserted, or with its end cut off."""
    result = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5, 30))):
        at = draw.randrange(len(result) or 1)
        match draw.randrange(5):
            case 0:
                result[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del result[at : at + draw.randrange(1, 50)]
            case 2:
                result[at:at] = result[at : at + draw.randrange(1, 50)]
            case 3:
                result[at:at] = draw.choice((b"\0", b"\r\n", b"\xff\xff\xff\xff", b"%s", b"\r\n\r\n", b"{", b"-1"))
            case 4:
                del result[at:]
    return bytes(result)


# Bodies


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def false_png(width: int, height: int, depth: int, color: int, pixels: bytes) -> bytes:
    """Return a PNG whose header does not have to agree with its pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks)


def pictures(image: np.ndarray, draw: Random) -> Iterator[bytes]:
    """Yield damaged pictures, pictures with false headers, and files that are not pictures."""
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        yield damaged(encode_picture(image, form), draw)
    yield false_png(50_000, 50_000, 8, 0, b"\0" * 100_000)
    yield false_png(2**31 - 1, 1, 8, 0, b"\0")
    yield false_png(0, 0, 8, 0, b"")
    yield false_png(28, 28, 8, 0, b"\0" * 3_000_000)
    yield false_png(28, 28, draw.randrange(256), draw.randrange(256), bytes(draw.randrange(900)))
    yield false_png(5000, 5000, 1, 0, b"\0" * (5000 * 626))
    yield b"GIF89a" + struct.pack("<HH", 65535, 65535) + draw.randbytes(50)
    yield b"BM" + draw.randbytes(60)
    yield b"RIFF" + struct.pack("<I", 2**32 - 1) + b"WEBP" + draw.randbytes(40)
    yield b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    yield b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\nquit\n"
    yield draw.randbytes(draw.randrange(2000))
    yield b""


def json_bodies(image: np.ndarray, draw: Random) -> Iterator[bytes]:
    """Yield JSON with a wrong shape, a wrong value or a wrong encoding."""
    rows = image.tolist()
    valid = json.dumps({"images": [rows]})
    yield damaged(valid.encode(), draw)
    yield valid.replace(" 0", " " + draw.choice([*VALUES["pixel values"], "9" * 400]), 1).encode()
    yield ('{"images":' + "[" * 100_000).encode()
    yield ('{"images":' + "[" * 5000 + "]" * 5000 + "}").encode()
    yield ('{"a":' * 50_000).encode()
    yield json.dumps({"images": [rows[:27]]}).encode()
    yield json.dumps({"images": [[row[:-1] for row in rows]]}).encode()
    yield json.dumps({"images": [rows] * 3 + [[]]}).encode()
    yield json.dumps({"images": rows}).encode()
    yield b'{"images": [[["' + b"a" * 10_000 + b'"]]]}'
    yield b'{"images": [' + b"[]," * 200_000 + b"[]]}"
    yield valid.encode("utf-16")
    yield b"\xef\xbb\xbf" + valid.encode()
    yield from texts("json bodies")


def inferences(image: np.ndarray, draw: Random) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Yield bodies and headers of the Open Inference Protocol that contradict themselves."""
    tensor = {
        "name": draw.choice(VALUES["tensor names"]),
        "shape": draw.choice(VALUES["tensor shapes"]),
        "datatype": draw.choice(VALUES["tensor datatypes"]),
    }
    data = draw.choice((image.ravel().tolist(), [[0] * 28], [], [300] * 784, [None] * 784, "AAAA", [[[[0]]]]))
    request = {"inputs": [tensor | {"data": data}], "parameters": draw.choice(VALUES["inference parameters"])}
    yield json.dumps(request).encode(), {}
    yield json.dumps(request | {"inputs": request["inputs"] * draw.randrange(4)}).encode(), {}
    classification = {"classification": draw.choice(VALUES["classification counts"])}
    yield json.dumps(request | {"outputs": [{"name": "logits", "parameters": classification}]}).encode(), {}
    size = {"binary_data_size": draw.choice(VALUES["binary data sizes"])}
    head = json.dumps({"inputs": [tensor | {"parameters": size}]}).encode()
    length = draw.choice([*VALUES["inference header lengths"], str(len(head)), str(len(head) - 1)])
    yield head + image.tobytes(), {"Inference-Header-Content-Length": length}
    yield image.tobytes()[: draw.randrange(785)], {"Inference-Header-Content-Length": "0"}
    packed = gzip.compress(b"\0" * 40_000_000 if draw.random() < 0.02 else json.dumps(request).encode())
    encoding = {"Content-Encoding": draw.choice(VALUES["content encodings"])}
    yield damaged(packed, draw) if draw.random() < 0.5 else packed, encoding


def forms(image: np.ndarray, draw: Random) -> Iterator[tuple[bytes, str]]:
    """Yield bodies and content types of multipart forms."""
    disposition = b'Content-Disposition: form-data; name="files"; filename="a.png"'
    part = b"--x\r\n" + disposition + b"\r\n\r\n" + encode_picture(image) + b"\r\n"
    content_type = "multipart/form-data; boundary=x"
    yield damaged(part + b"--x--\r\n", draw), content_type
    yield part, content_type
    yield part + b"--x--\r\n", "multipart/form-data"
    yield part + b"--x--\r\n", "multipart/form-data; boundary=" + "y" * draw.randrange(1, 300)
    yield b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 3000 + b"--x--", content_type
    yield b"--x\r\n" + b"a: b\r\n" * 3000 + b"\r\n\r\n--x--", content_type
    yield b"--x\r\nContent-Disposition: " + b"a" * 100_000, content_type


# Whole requests, by kind


def picture_requests(image: np.ndarray, draw: Random) -> Iterator[bytes]:
    for body in pictures(image, draw):
        yield Request("/predict", draw.choice(VALUES["picture content types"]), body).as_bytes()


def correction_requests(image: np.ndarray, draw: Random) -> Iterator[bytes]:
    for body in pictures(image, draw):
        yield Request(FEEDBACK, "image/png", body).as_bytes()


def json_requests(image: np.ndarray, draw: Random) -> Iterator[bytes]:
    for body in json_bodies(image, draw):
        yield Request(draw.choice(("/predict", INFER)), "application/json", body).as_bytes()


def form_requests(image: np.ndarray, draw: Random) -> Iterator[bytes]:
    for body, content_type in forms(image, draw):
        yield Request("/predict", content_type, body).as_bytes()


def pixel_requests(image: np.ndarray, draw: Random) -> Iterator[bytes]:
    for size in (0, 1, 783, 785, 784 * 3 + 1, 784 * 1025, draw.randrange(3000)):
        yield Request("/predict", "application/octet-stream", draw.randbytes(size)).as_bytes()


def inference_requests(image: np.ndarray, draw: Random) -> Iterator[bytes]:
    for body, headers in inferences(image, draw):
        yield Request(INFER, "application/json", body, headers).as_bytes()


def http_requests(image: np.ndarray, draw: Random) -> Iterator[bytes]:
    """Yield requests that break the rules of HTTP."""
    body = image.tobytes()
    start = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\n"
    for length in texts("content lengths"):
        yield start + b"content-length: " + length + b"\r\n\r\n" + body
    for size in [*texts("chunk sizes"), b"310;" + b"e" * 5000]:
        yield start + b"transfer-encoding: chunked\r\n\r\n" + size + b"\r\n" + body + b"\r\n0\r\n\r\n"
    yield start + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n"
    for separator in (b", ", b"\r\ntransfer-encoding: "):
        yield start + b"transfer-encoding: gzip%bchunked\r\n\r\n310\r\n%b\r\n0\r\n\r\n" % (separator, body)
    yield b"GET /v2 HTTP/1.1\r\n\r\n"
    for header in [*texts("headers before no body"), b"a" * 40_000 + b": b\r\n", b"a: b\r\n" * 5000]:
        yield start + header + b"\r\n"
    random_id = b"x-request-id: " + draw.randbytes(20).replace(b"\r", b"").replace(b"\n", b"")
    long = [b"if-none-match: " + b'"' * 5000, b"content-type: image/" + b"x" * 3000]
    for header in [*texts("headers before a body"), random_id, *long]:
        yield start + header + b"\r\ncontent-length: 784\r\n\r\n" + body
    for method in [*texts("methods"), b"POST" * 1000]:
        yield method + b" /predict HTTP/1.1\r\nhost: localhost\r\n\r\n"
    long = [b"/" + b"a" * 20_000, b"/predict?" + b"a=b&" * 4000, b"/v2/models/mnist/versions/" + b"9" * 50]
    for path in [*texts("paths"), *long, b"/?" + b"%" * 50]:
        yield draw.choice((b"GET ", b"POST ")) + path + b" HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"
    for version in texts("http versions"):
        yield b"GET /v2 " + version + b"\r\nhost: localhost\r\n\r\n"
    yield draw.randbytes(draw.randrange(1, 3000))
    # The start of a TLS handshake, and of HTTP/2.
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + draw.randbytes(500)
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield b"\r\n" * 5000


def damaged_requests(image: np.ndarray, draw: Random) -> Iterator[bytes]:
    pixels = image.tobytes()
    for request in (
        Request("/predict", "application/octet-stream", pixels),
        Request("/predict", "image/png", encode_picture(image)),
        Request("/predict", "application/json", json.dumps({"images": [image.tolist()]}).encode()),
        Request(INFER, "application/octet-stream", pixels, {"Inference-Header-Content-Length": "0"}),
    ):
        yield from (damaged(request.as_bytes(), draw) for _ in range(20))


KINDS = {
    "picture": picture_requests,
    "correction": correction_requests,
    "JSON": json_requests,
    "form": form_requests,
    "pixels": pixel_requests,
    "inference": inference_requests,
    "HTTP": http_requests,
    "damaged": damaged_requests,
}


def hostile_requests(images: np.ndarray, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield hostile requests without end, as kind and bytes. They are made from ``images``, uint8 ``[N, 28, 28]``."""
    draw = Random(seed)
    while True:
        for kind, make in KINDS.items():
            for content in make(images[draw.randrange(len(images))], draw):
                yield kind, content
