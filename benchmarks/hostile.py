"""Requests that mean harm, made from a seed, and what the service makes of them.

Each is sent over a socket of its own, as bytes: half of them are wrong in a way somebody thought of, the
other half are good requests with a few bytes changed.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

# Longer than any answer takes: whoever waits for so long has been forgotten.
PATIENCE = 60.0

Random = random.Random


@dataclass
class Outcome:
    """What came of an assault."""

    statuses: Counter[str] = field(default_factory=Counter)
    """How many had which status; "closed" where the service hung up without a word."""
    failures: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Kind, what was wrong with the answer, and what was sent."""
    wrong: list[bytes] = field(default_factory=list)
    """ModelOutput to good requests that were not right."""
    right: int = 0


# Pictures


def picture(image: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, depth: int, color: int, pixels: bytes) -> bytes:
    """A PNG that says what it likes of its size."""
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")


def damaged(content: bytes, draw: Random) -> bytes:
    """Some bytes changed, taken out, doubled, or the end cut off."""
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


def pictures(image: np.ndarray, draw: Random) -> Iterator[bytes]:
    """Every kind of picture that does not hold what it promises."""
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        yield damaged(picture(image, form), draw)
    yield png_of(50_000, 50_000, 8, 0, b"\0" * 100_000)
    yield png_of(2**31 - 1, 1, 8, 0, b"\0")
    yield png_of(0, 0, 8, 0, b"")
    yield png_of(28, 28, 8, 0, b"\0" * 3_000_000)
    yield png_of(28, 28, draw.randrange(256), draw.randrange(256), bytes(draw.randrange(900)))
    yield png_of(5000, 5000, 1, 0, b"\0" * (5000 * 626))
    yield b"GIF89a" + struct.pack("<HH", 65535, 65535) + draw.randbytes(50)
    yield b"BM" + draw.randbytes(60)
    yield b"RIFF" + struct.pack("<I", 2**32 - 1) + b"WEBP" + draw.randbytes(40)
    yield b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    yield b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\nquit\n"
    yield draw.randbytes(draw.randrange(2000))
    yield b""


# Bodies


def numbers(draw: Random) -> str:
    """A number that is no pixel."""
    return draw.choice(
        (
            "-1",
            "256",
            "1e400",
            "-1e400",
            "1.5",
            "1e2",
            "NaN",
            "Infinity",
            "null",
            "true",
            '"7"',
            "9" * 400,
            "0x10",
            "-0.0",
        )
    )


def jsons(image: np.ndarray, draw: Random) -> Iterator[bytes]:
    """JSON of every wrong shape."""
    rows = image.tolist()
    good = json.dumps({"images": [rows]})
    yield damaged(good.encode(), draw)
    yield good.replace(" 0", " " + numbers(draw), 1).encode()
    yield ('{"images":' + "[" * 100_000).encode()
    yield ('{"images":' + "[" * 5000 + "]" * 5000 + "}").encode()
    yield ('{"a":' * 50_000).encode()
    yield json.dumps({"images": [rows[:27]]}).encode()
    yield json.dumps({"images": [[row[:-1] for row in rows]]}).encode()
    yield json.dumps({"images": [rows] * 3 + [[]]}).encode()
    yield json.dumps({"images": rows}).encode()
    yield b'{"images": {}}'
    yield b'{"images": [[["' + b"a" * 10_000 + b'"]]]}'
    yield b'{"images": "\xff\xfe"}'
    yield good.encode("utf-16")
    yield b"\xef\xbb\xbf" + good.encode()
    yield b"null"
    yield b"[]"
    yield b'{"images": [' + b"[]," * 200_000 + b"[]]}"


def inferences(image: np.ndarray, draw: Random) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Requests of the inference protocol that contradict themselves: body and headers."""
    shape = draw.choice(
        (
            [1, 28, 28],
            [2, 28, 28],
            [-1, 28, 28],
            [0, 28, 28],
            [2**63, 28, 28],
            [10**30, 1, 1],
            [1, 784],
            [],
            ["1"],
            [1e9, 28, 28],
        )
    )
    tensor = {
        "name": draw.choice(("images", "images", "image", "", "\0")),
        "shape": shape,
        "datatype": draw.choice(("UINT8", "UINT8", "FP32", "BYTES", "INT64", 7, None)),
    }
    data = draw.choice((image.ravel().tolist(), [[0] * 28], [], [300] * 784, [None] * 784, "AAAA", [[[[0]]]]))
    parameters = draw.choice(
        ({}, {"timeout": "x"}, {"timeout": -1}, {"binary_data_output": "yes"}, {"priority": [1]}, [], {"a": {"b": {}}})
    )
    request = {"inputs": [tensor | {"data": data}], "parameters": parameters}
    yield json.dumps(request).encode(), {}
    yield json.dumps(request | {"inputs": [tensor | {"data": data}] * draw.randrange(4)}).encode(), {}
    yield (
        json.dumps(
            request
            | {"outputs": [{"name": "logits", "parameters": {"classification": draw.choice((-1, 0, 1e9, "x"))}}]}
        ).encode(),
        {},
    )
    size = draw.choice((784, 783, -1, 0, 2**64, "784", 1e400 if draw.random() < 0.5 else 785))
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": size}}]}).encode()
    length = draw.choice((str(len(head)), "0", "-5", "999999999", "abc", "", str(len(head) - 1), "1" * 30))
    yield head + image.tobytes(), {"Inference-Header-Content-Length": length}
    yield image.tobytes()[: draw.randrange(785)], {"Inference-Header-Content-Length": "0"}
    packed = gzip.compress(b"\0" * 40_000_000 if draw.random() < 0.02 else json.dumps(request).encode())
    encoding = draw.choice(("gzip", "deflate", "br", "gzip, gzip", "identity"))
    yield damaged(packed, draw) if draw.random() < 0.5 else packed, {"Content-Encoding": encoding}


def forms(image: np.ndarray, draw: Random) -> Iterator[tuple[bytes, str]]:
    """Multipart forms: body and content type."""
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + picture(image) + b"\r\n"
    kind = "multipart/form-data; boundary=x"
    yield damaged(part + b"--x--\r\n", draw), kind
    yield part, kind
    yield part + b"--x--\r\n", "multipart/form-data"
    yield part + b"--x--\r\n", "multipart/form-data; boundary=" + "y" * draw.randrange(1, 300)
    yield b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 3000 + b"--x--", kind
    yield b"--x\r\n" + b"a: b\r\n" * 3000 + b"\r\n\r\n--x--", kind
    yield b"--x\r\nContent-Disposition: " + b"a" * 100_000, kind


# Requests


def post(path: str, kind: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A request, honest of its length."""
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-type: {kind}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def lines(image: np.ndarray, draw: Random) -> Iterator[bytes]:
    """HTTP itself, wrong."""
    body = image.tobytes()
    start = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n"
    for length in (
        b"-1",
        b"783",
        b"785",
        b"99999999999999999999",
        b"abc",
        b"",
        b"0x310",
        b"784, 784",
        b"+784",
        b"7 84",
    ):
        yield start + b"content-length: " + length + b"\r\n\r\n" + body
    yield start + b"content-length: 784\r\ncontent-length: 5\r\n\r\n" + body
    yield start + b"content-length: 784\r\ntransfer-encoding: chunked\r\n\r\n" + body
    for size in (b"310", b"0", b"fffffffffffffffff", b"-1", b"zz", b"", b"310;" + b"e" * 5000, b"00000000310"):
        yield start + b"transfer-encoding: chunked\r\n\r\n" + size + b"\r\n" + body + b"\r\n0\r\n\r\n"
    yield start + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n"
    yield start + b"transfer-encoding: gzip, chunked\r\n\r\n310\r\n" + body + b"\r\n0\r\n\r\n"
    yield start + b"expect: 100-continue\r\ncontent-length: 784\r\n\r\n" + body
    yield start + b"expect: nonsense\r\ncontent-length: 784\r\n\r\n" + body
    yield start + b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    yield start + b"connection: close, keep-alive, \xff\r\n\r\n"
    yield start + b"a" * 40_000 + b": b\r\n\r\n"
    yield start + b"a: b\r\n" * 5000 + b"\r\n"
    yield start + b" folded\r\n\r\n"
    yield start + b"na me: x\r\n\r\n"
    yield start + b"x: \0\r\n\r\n"
    for method in (b"GET", b"BREW", b"get", b"", b"POST" * 1000, b"\xff", b"CONNECT", b"PRI"):
        yield method + b" /predict HTTP/1.1\r\nhost: x\r\n\r\n"
    for path in (
        *(
            b"/%00",
            b"/../../etc/passwd",
            b"/%2e%2e/%2e%2e",
            b"//",
            b"/\xff",
            b"/%ff%fe",
            b"*",
            b"http://x/predict",
            b"x",
        ),
        *(b"/" + b"a" * 20_000, b"/predict?" + b"a=b&" * 4000, b"/v2/models/%2e%2e/infer", b"/v2/models//infer"),
        *(b"/v2/models/mnist/versions/" + b"9" * 50, b"/predict?model=%00", b"/predict?version=-1", b"/?" + b"%" * 50),
        *(
            b"/predict?timeout=1e999",
            b"/predict?timeout=x&timeout=",
            b"/predict/../predict",
            b"/style.css/../index.html",
        ),
    ):
        yield draw.choice((b"GET ", b"POST ")) + path + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    for version in (b"HTTP/9.9", b"HTTP/0.9", b"HTTP/1.0", b"HTTP/2", b"", b"HTTP/1.1 extra"):
        yield b"GET /v2 " + version + b"\r\nhost: x\r\n\r\n"
    for header in (
        *(b"x-request-id: " + draw.randbytes(20).replace(b"\r", b"").replace(b"\n", b""), b"traceparent: 00-0-0-0"),
        *(b"x-request-deadline: nan", b"x-request-deadline: -1", b"authorization: Bearer", b"authorization: \xff\xff"),
        *(
            b"content-encoding: br",
            b"accept-encoding: gzip;q=x",
            b"origin: null",
            b"host: y",
            b"if-none-match: " + b'"' * 5000,
        ),
        *(b"content-type: application/json; charset=utf-7", b"content-type: /", b"content-type: image/" + b"x" * 3000),
    ):
        yield start + header + b"\r\ncontent-length: 784\r\n\r\n" + body
    yield draw.randbytes(draw.randrange(1, 3000))
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + draw.randbytes(500)
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield b"\r\n" * 5000


def requests(images: np.ndarray, seed: int) -> Iterator[tuple[str, bytes]]:
    """Without end: kind and bytes. ``images`` is uint8 ``[N, 28, 28]``."""
    draw = Random(seed)
    infer = "/v2/models/mnist/infer"

    def of(kind: str, image: np.ndarray) -> Iterator[bytes]:
        match kind:
            case "picture":
                types = ("image/png", "image/jpeg", "image/tiff", "image/x-icon", "image/", "IMAGE/PNG; a=b")
                yield from (post("/predict", draw.choice(types), body) for body in pictures(image, draw))
            case "json":
                for body in jsons(image, draw):
                    yield post(draw.choice(("/predict", infer)), "application/json", body)
            case "form":
                yield from (post("/predict", kind, body) for body, kind in forms(image, draw))
            case "pixels":
                for size in (0, 1, 783, 785, 784 * 3 + 1, 784 * 1025, draw.randrange(3000)):
                    yield post("/predict", "application/octet-stream", draw.randbytes(size))
            case "inference":
                for body, headers in inferences(image, draw):
                    yield post(infer, "application/json", body, headers)
            case "http":
                yield from lines(image, draw)
            case "changed":
                for good in (
                    post("/predict", "application/octet-stream", image.tobytes()),
                    post("/predict", "image/png", picture(image)),
                    post("/predict", "application/json", json.dumps({"images": [image.tolist()]}).encode()),
                    post(
                        "/v2/models/mnist/infer",
                        "application/octet-stream",
                        image.tobytes(),
                        {"Inference-Header-Content-Length": "0"},
                    ),
                ):
                    yield from (damaged(good, draw) for _ in range(20))

    while True:
        for kind in ("picture", "json", "form", "pixels", "inference", "http", "changed"):
            for sent in of(kind, images[draw.randrange(len(images))]):
                yield kind, sent


async def send(host: str, port: int, sent: bytes) -> str:
    """The status of the answer to ``sent``, or "closed"."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(sent)
        # What is not whole is not waited for: the client hangs up, and the service is to notice.
        writer.write_eof()
        answer = await reader.read(65536)
        # 100 Continue comes before the answer proper.
        while answer.startswith(b"HTTP/1.1 100") and answer.endswith(b"\r\n\r\n") and answer.count(b"HTTP/1.1") == 1:
            more = await reader.read(65536)
            if not more:
                break
            answer = more
        return answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "closed"
    except (ConnectionError, BrokenPipeError):
        return "closed"
    finally:
        writer.close()


async def assault(
    host: str,
    port: int,
    images: np.ndarray,
    labels: np.ndarray,
    count: int,
    *,
    seed: int = 0,
    at_once: int = 12,
    progress: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Send ``count`` hostile requests, and good ones beside them, whose answers have to be right."""
    outcome = Outcome()
    source = requests(images, seed)
    sent = 0

    async def attack() -> None:
        nonlocal sent
        while sent < count:
            sent += 1
            progress(sent)
            kind, content = next(source)
            try:
                async with asyncio.timeout(PATIENCE):
                    status = await send(host, port, content)
            except TimeoutError:
                outcome.failures.append((kind, "no answer", content))
                continue
            outcome.statuses[status] += 1
            if status.startswith("5") or not (status.isdigit() or status == "closed"):
                outcome.failures.append((kind, status, content))

    async def behave() -> None:
        number = 0
        reader, writer = await asyncio.open_connection(host, port)
        while sent < count:
            number = (number + 1) % len(images)
            writer.write(post("/predict", "application/octet-stream", images[number].tobytes()))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            # Refused under the load of the hostile ones is right as well.
            if head[9:12] == b"429":
                continue
            if head[9:12] == b"200" and json.loads(body)["predictions"][0]["digit"] == labels[number]:
                outcome.right += 1
            else:
                outcome.wrong.append(head + body)
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(attack())
        for _ in range(2):
            group.create_task(behave())
    return outcome
