"""Bombs against containers with the memory limit of docker-compose.yml: small requests that need much memory."""

from __future__ import annotations

import functools
import io
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.deploy.stack import SEVEN, constant_load, outcomes, until

# All tests that use the stack run in one process.
pytestmark = pytest.mark.xdist_group("containers")

MEBIBYTE = 1024 * 1024

# How the service and the load balancer may respond to a bomb. 502 would mean that a replica died of it.
ALLOWED = {200, 400, 413, 429}


def png(width: int, height: int, depth: int, color: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG with ink in its middle. The service responds early to a blank picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    length = (width * depth * samples + 7) // 8
    blank, third = bytes(1 + length), length // 3
    ink = bytes(1 + third) + b"\xff" * (length - 2 * third) + bytes(third)
    border = blank * (height // 3)
    data = zlib.compress(border + ink * (height - 2 * (height // 3)) + border)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def drawn(mode: str, format: str, side: int = 5000, **options: Any) -> bytes:
    """Return a square picture with ink in its middle."""
    buffer = io.BytesIO()
    image = Image.new(mode, (side, side))
    third = side // 3
    image.paste(255 if mode == "P" else "white", (third, third, side - third, side - third))
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise() -> bytes:
    """Return a progressive JPEG of noise, whose coefficients the decoder has to keep."""
    small = np.random.default_rng(0).integers(0, 255, (500, 500, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.tile(small, (8, 8, 1))).save(buffer, "JPEG", progressive=True, quality=50)
    return buffer.getvalue()


PALETTE = [(b"PLTE", bytes(3 * 256)), (b"tRNS", bytes(range(256)))]
PNG = "image/png"
BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a long row of 1 bit": (PNG, lambda: png(25_000_000, 1, 1, 0)),
    "a long column of 1 bit": (PNG, lambda: png(1, 25_000_000, 1, 0)),
    "the longest column": (PNG, lambda: png(1500, 16_384, 8, 6)),
    "palette with transparency": (PNG, lambda: png(5000, 5000, 8, 3, *PALETTE)),
    "16 bits RGBA": (PNG, lambda: png(4000, 4000, 16, 6)),
    "16 bits RGB": (PNG, lambda: png(5000, 5000, 16, 2)),
    "16 bits grey with alpha": (PNG, lambda: png(5000, 5000, 16, 4)),
    "grey": (PNG, lambda: png(5000, 5000, 8, 0)),
    "grey with alpha": (PNG, lambda: png(5000, 5000, 8, 4)),
    "RGB": (PNG, lambda: png(5000, 5000, 8, 2)),
    "RGBA": (PNG, lambda: png(5000, 5000, 8, 6)),
    "lossless RGBA WebP": ("image/webp", lambda: drawn("RGBA", "WEBP", lossless=True, method=0)),
    "RGB WebP": ("image/webp", lambda: drawn("RGB", "WEBP", method=0)),
    "the largest WebP": ("image/webp", lambda: drawn("RGB", "WEBP", 2400, method=0)),
    "GIF": ("image/gif", lambda: drawn("P", "GIF")),
    "grey JPEG": ("image/jpeg", lambda: drawn("L", "JPEG")),
    "RGB JPEG without subsampling": ("image/jpeg", lambda: drawn("RGB", "JPEG", subsampling=0)),
    "CMYK JPEG": ("image/jpeg", lambda: drawn("CMYK", "JPEG")),
    "BMP of 1 bit": ("image/bmp", lambda: drawn("1", "BMP")),
    "PBM": ("image/x-portable-bitmap", lambda: drawn("1", "PPM")),
    "TIFF": ("image/tiff", lambda: drawn("RGBA", "TIFF", compression="tiff_deflate")),
    "progressive JPEG": ("image/jpeg", noise),
    "JSON of small numbers": ("application/json", lambda: b'{"images":[' + b",".join([b"1"] * 3_890_000) + b"]}"),
}


@functools.cache
def content(bomb: str) -> bytes:
    return BOMBS[bomb][1]()


def state(stack, engine) -> dict[str, tuple[Any, ...]]:
    """Return for each replica: the time of its start, the number of restarts, and whether memory was short."""
    found = {}
    for replica in stack.replicas():
        container = engine.inspect(replica)
        found[replica] = (container["State"]["StartedAt"], container["RestartCount"], container["State"]["OOMKilled"])
    return found


def test_memory_limit_holds(stack, engine):
    """A process that takes more than the limit is killed. Otherwise the other tests here would show nothing."""
    limits = {engine.inspect(replica)["HostConfig"]["Memory"] for replica in stack.replicas()}
    assert limits == {512 * MEBIBYTE}
    limit = ["--memory", "512m", "--memory-swap", "512m"]
    image = f"mnist-service:{stack.name}"
    hungry = ["docker", "run", "--rm", *limit, "--entrypoint", "python", image, "-c", "x = b'x' * 600_000_000"]
    assert engine.attempt(hungry).returncode == 137


def test_replica_at_its_memory_limit_loses_no_request_and_counts_the_kill(stack, url, engine):
    victim = stack.replicas()[0]

    def kills() -> float:
        return float(re.search(r"^mnist_memory_kills (\S+)$", stack.metrics(victim), re.MULTILINE)[1])

    before = kills()
    with constant_load(url, large=False) as counts:
        hungry = engine.attempt(["docker", "exec", victim, "python", "-c", "x = b'x' * 600_000_000"])
    assert hungry.returncode == 137
    assert kills() > before
    assert outcomes(counts) == {200}


def send(url: str, bomb: str) -> tuple[str, int]:
    kind, body = BOMBS[bomb][0], content(bomb)
    response = httpx.post(f"{url}/predict", content=body, headers={"content-type": kind}, timeout=60)
    return bomb, response.status_code


def good(url: str) -> bool:
    response = httpx.post(f"{url}/predict", content=SEVEN, headers={"content-type": PNG}, timeout=30)
    return response.status_code == 200 and response.json()["predictions"][0]["digit"] == 7


# In the second test each client has another bomb. Each bomb is sent four times, at once with all others.
@pytest.mark.parametrize(("clients", "rounds"), [(1, 1), (24, 4)], ids=["one after the other", "24 at once"])
def test_bombs_get_responses_and_kill_no_replica(stack, url, engine, clients, rounds):
    assert all(len(content(bomb)) <= 8_000_000 for bomb in BOMBS)
    before = state(stack, engine)
    with ThreadPoolExecutor(clients) as pool:
        responses = Counter(pool.map(send, [url] * rounds * len(BOMBS), [*BOMBS] * rounds))
    # A bomb whose client has its response may still keep a worker busy for a moment.
    until(lambda: good(url), 30)
    assert state(stack, engine) == before, f"a replica died: {responses}"
    assert {status for _, status in responses} <= ALLOWED, responses
