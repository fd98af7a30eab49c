"""The attacks on the service: which requests are sent, and by which clients. benchmarks/abuse.py runs them."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks import bombs, clients
from benchmarks.bombs import FORM, Named
from benchmarks.clients import Client, Outcome, Target
from benchmarks.harness import Request, encode_picture, golden_digits
from benchmarks.hostile import FEEDBACK, INFER, hostile_requests

PREDICT = "/predict"
PIXELS = "application/octet-stream"
JSON = "application/json"

# Half of the largest number of predictions in flight. The other half is left to the good requests.
HALF = 8
# An attack with at most this many requests sends each of them at least once, even if that takes longer.
LEAST = 100
# More clients than predictions in flight.
MANY = 60

ANSWERED = frozenset({"200", "429"})
TOO_LARGE = frozenset({"413", "429"})


@dataclass(frozen=True)
class Attack:
    """Requests, the clients that send them again and again, and the statuses that responses may have."""

    requests: Callable[[], Named]
    client: Client = clients.patient
    connections: int = HALF
    allowed: frozenset[str] = frozenset()

    def prepared(self) -> list[tuple[str, bytes]]:
        return list(self.requests())

    async def run(self, port: int, requests: list[tuple[str, bytes]], seconds: float) -> Outcome:
        """Send the prepared requests for some seconds, and return what the service did."""
        target = Target(port, itertools.cycle(requests), seconds, min(len(requests), LEAST), self.allowed)
        return await clients.run(self.client, self.connections, target)


@dataclass(frozen=True)
class Together:
    """Several attacks at the same time."""

    attacks: tuple[Attack, ...]

    def prepared(self) -> list[list[tuple[str, bytes]]]:
        return [attack.prepared() for attack in self.attacks]

    async def run(self, port: int, requests: list[list[tuple[str, bytes]]], seconds: float) -> Outcome:
        """Run the attacks with their prepared requests, and return what the service did."""
        pairs = zip(self.attacks, requests, strict=True)
        outcomes = await asyncio.gather(*(attack.run(port, own, seconds) for attack, own in pairs))
        whole = Outcome()
        for outcome in outcomes:
            whole.statuses += outcome.statuses
            whole.failures += outcome.failures
            whole.seconds |= outcome.seconds
        return whole


def posts(path: str, kind: str, bodies: Callable[[], Named], **headers: str) -> Callable[[], Named]:
    """Return a function that yields a whole request for each body."""

    def requests() -> Named:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, body in bodies():
            yield name, Request(path, kind, body, fields).as_bytes()

    return requests


def joined(*parts: Callable[[], Named]) -> Callable[[], Named]:
    return lambda: (request for part in parts for request in part())


def digits(count: int = 1) -> np.ndarray:
    return np.resize(golden_digits()[0], (count, 28, 28))


def pixels(count: int) -> Named:
    yield f"{count} images", digits(count).tobytes()


def get(target: str, *headers: bytes) -> bytes:
    return b"\r\n".join([b"GET %b HTTP/1.1" % target.encode(), b"host: localhost", *headers, b"", b""])


# Whole requests that are sent or read in an unusual way


def large_responses() -> Named:
    """Yield a small request for 4 MB, and a small one for 300 bytes."""
    big = Request("/predict?include=image", PIXELS, digits(1024).tobytes()).as_bytes()
    yield "1024 images", big + Request(PREDICT, PIXELS, digits().tobytes()).as_bytes()


def pipelined_pages() -> Named:
    """Yield thousands of requests in one piece, for the largest responses that a GET has."""
    for path in ("/schema", "/metrics", "/", "/style.css"):
        yield f"1000 times {path}", get(path) * 1000


def pipelined_digits() -> Named:
    yield "60 digits", Request(PREDICT, PIXELS, digits().tobytes()).as_bytes() * 60


def largest_bodies() -> Named:
    body = bytes(8_000_000 - 8_000_000 % 784)
    yield "8 MB of pixels", Request(PREDICT, PIXELS, body).as_bytes()
    yield "8 MB of JSON", Request(PREDICT, JSON, b" " * len(body)).as_bytes()
    yield "8 MB for inference", Request(INFER, JSON, b" " * len(body)).as_bytes()
    yield "8 MB in a chunk", chunked(PIXELS, body, len(body))


def largest_forms() -> Named:
    parts = (bombs.file_part(bytes(7_900_000)), bombs.file_part(bytes(10)))
    yield "8 MB in a file", Request(PREDICT, FORM, bombs.form(*parts)).as_bytes()
    yield "8 MB in 900 files", Request(PREDICT, FORM, bombs.form(*[bombs.file_part(bytes(8700))] * 900)).as_bytes()
    yield (
        "8 MB in a text",
        Request(PREDICT, FORM, bombs.form(('Content-Disposition: form-data; name="a"', b"a" * 7_900_000))).as_bytes(),
    )


def too_large_bodies() -> Named:
    # The service may close such a connection only when the client has its response.
    last = {"Connection": "close"}
    for size in (8_000_001, 9_000_000, 20_000_000):
        yield f"{size} bytes", Request(PREDICT, PIXELS, bytes(size)).as_bytes()
        yield f"{size} bytes, the last request", Request(PREDICT, PIXELS, bytes(size), last).as_bytes()
    yield "9 MB of JSON", Request(PREDICT, JSON, bytes(9_000_000)).as_bytes()
    yield "9 MB for inference", Request(INFER, JSON, bytes(9_000_000)).as_bytes()
    yield "9 MB in a form", Request(PREDICT, FORM, bombs.form(bombs.file_part(bytes(9_000_000)))).as_bytes()


def chunked(kind: str, body: bytes, size: int, extension: bytes = b"") -> bytes:
    head = f"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
    starts = range(0, len(body), size)
    chunks = (b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for i in starts if (piece := body[i : i + size]))
    return head.encode() + b"".join(chunks) + b"0\r\n\r\n"


def small_chunks() -> Named:
    yield "chunks of one byte", chunked(PIXELS, digits(1024).tobytes(), 1)
    yield "one image in chunks of one byte", chunked(PIXELS, digits().tobytes(), 1)
    yield "chunks with long extensions", chunked(PIXELS, digits().tobytes(), 100, b";a=" + b"b" * 8000)
    yield "JSON in chunks of ten bytes", chunked(JSON, b'{"images":[' + b"[]," * 100_000 + b"[]]}", 10)


def distinct(form: Callable[[bytes], bytes], separator: str = "&") -> Callable[[], Named]:
    """Return a function that yields thousands of requests, each with another 29 kB of text in one place.

    Half of the texts have thousands of short parts: what a parser keeps of them is much larger than the text.
    """

    def requests() -> Named:
        draw = random.Random(0)
        for number in range(2000):
            text = draw.randbytes(14_500).hex()
            parts = separator.join(text[i : i + 3] for i in range(0, len(text) * 3 // 4, 3))
            yield f"number {number}", form((text if number % 2 else parts).encode())

    return requests


def texts_in_headers(text: bytes) -> bytes:
    """Return a request with the text in one of the headers that a service reads."""
    names = (
        b"accept-encoding|accept|content-type|content-encoding|authorization|x-api-key|x-request-id|traceparent|cookie|"
        b"host|origin|if-none-match|x-request-deadline|inference-header-content-length|x-forwarded-for|range|expect|te"
    ).split(b"|")
    name = names[sum(text[:20]) % len(names)]
    kind = b"" if name == b"content-type" else b"content-type: application/octet-stream\r\n"
    path = (PREDICT, INFER)[text[0] % 2].encode()
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: 784\r\n%b%b: %b\r\n\r\n"
    return head % (path, kind, name, text) + bytes(784)


def texts_in_paths(text: bytes) -> bytes:
    form = (b"/%b", b"/predict/%b", b"/v2/models/%b/infer", b"/v2/models/mnist/versions/%b", b"/?%b")
    return get((form[text[0] % len(form)] % text).decode())


def long_heads() -> Named:
    """Yield requests whose heads are over the limit. They must be rejected, however they are cut into packets."""
    for size in (33_000, 50_000, 65_000, 100_000, 1_000_000):
        yield f"a header of {size} bytes", get("/v2/health/live", b"x: " + b"a" * size)
        yield f"headers of {size} bytes", get("/v2/health/live", *[b"x: " + b"a" * 96] * (size // 100))
        yield f"a path of {size} bytes", get("/" + "a" * size)


def upgrades() -> Named:
    """Yield requests for another protocol. Their bodies look like requests, and are none."""
    inner = get("/metrics", b"content-length: 784")
    body = inner + bytes(784 - len(inner))
    for value in ("h2c", "websocket", "TLS/1.0, h2c"):
        for connection in ("Upgrade", "Upgrade, HTTP2-Settings"):
            headers = {"Connection": connection, "Upgrade": value, "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"}
            yield f"Upgrade: {value}, {connection}", Request(PREDICT, PIXELS, body, headers).as_bytes()


def ordinary() -> Named:
    yield "pixels", Request(PREDICT, PIXELS, digits().tobytes()).as_bytes()
    yield "PNG", Request(PREDICT, "image/png", encode_picture(digits()[0])).as_bytes()
    yield "form", Request(PREDICT, FORM, bombs.form(bombs.file_part(encode_picture(digits()[0])))).as_bytes()
    yield "inference", Request(INFER, PIXELS, digits().tobytes(), {"Inference-Header-Content-Length": "0"}).as_bytes()


def drawings() -> Named:
    """Yield thousands of pictures that all differ, so that each of them is a correction to store."""
    draw = np.random.default_rng(0)
    for number in range(3000):
        image = digits()[0].copy()
        image[10:14, 10:14] = draw.integers(0, 256, (4, 4))
        yield f"drawing {number}", encode_picture(image)


def of_images(bodies: Callable[[np.ndarray], Named]) -> Callable[[], Named]:
    return lambda: bodies(digits(40))


def pictures(bodies: Callable[[], Named]) -> Attack:
    return Attack(posts(PREDICT, "image/png", bodies))


inferences = partial(posts, INFER, JSON)
corrections = partial(posts, FEEDBACK, "image/png")
forms = partial(posts, PREDICT, FORM)
unread = posts("/predict?include=image", PIXELS, lambda: pixels(1024))

ATTACKS: dict[str, Attack | Together] = {
    "nothing": Attack(lambda: iter(()), clients.idle, 1),
    "narrow pictures": pictures(bombs.narrow_pictures),
    "large pictures": pictures(bombs.large_pictures),
    "specks": pictures(bombs.specks),
    "progressive JPEG of many scans": pictures(bombs.many_scans),
    "full pages": pictures(of_images(bombs.full_pages)),
    "full pages of numbers": Attack(posts("/predict?mode=number", "image/png", of_images(bombs.full_pages))),
    "large pictures of numbers": Attack(posts("/predict?mode=number", "image/png", bombs.large_pictures)),
    "BMP with run lengths": pictures(bombs.run_lengths),
    "plain PNM and PFM": pictures(bombs.plain_pixmaps),
    "texts and profiles in PNG": pictures(bombs.text_chunks),
    "image data of PNG in many pieces": pictures(bombs.pieces_of_data),
    "corrections": Attack(corrections(drawings)),
    "corrections with large pictures": Attack(
        joined(*map(corrections, (bombs.pieces_of_data, bombs.text_chunks, bombs.large_pictures)))
    ),
    "forms of large pictures": Attack(forms(bombs.forms_of_pictures)),
    "charsets in forms": Attack(forms(bombs.charsets)),
    "boundaries and headers in forms": Attack(forms(bombs.boundaries)),
    "values in JSON": Attack(posts(PREDICT, JSON, of_images(bombs.json_values))),
    "values in inference requests": Attack(inferences(bombs.inference_values)),
    "gzip bombs": Attack(inferences(bombs.gzip_bombs, content_encoding="gzip")),
    "one output named many times": Attack(inferences(of_images(bombs.repeated_outputs), content_encoding="gzip")),
    "largest batches": Attack(unread, allowed=ANSWERED),
    "clients that never read, 1024 images": Attack(large_responses, clients.silent, MANY),
    "clients that never read, pipelined": Attack(joined(pipelined_pages, pipelined_digits), clients.silent, MANY),
    "slow readers": Attack(unread, clients.slow_reader, MANY),
    "unfinished bodies": Attack(largest_bodies, clients.unfinished, MANY),
    "unfinished forms": Attack(largest_forms, clients.unfinished, MANY),
    "small chunks": Attack(small_chunks),
    "small chunks of many clients": Attack(
        lambda: iter([("13 images in chunks of one byte", chunked(PIXELS, digits(13).tobytes(), 1))]),
        connections=MANY,
    ),
    "slow senders": Attack(joined(ordinary, small_chunks), clients.slow_sender, 500),
    "connections that are reset": Attack(ordinary, clients.resetting, 20),
    "300 connections at once": Attack(ordinary, clients.crowd, 1, ANSWERED),
    "half-closed connections": Attack(ordinary, clients.half_closed, allowed=ANSWERED),
    "bodies over the limit": Attack(too_large_bodies, clients.deaf, allowed=TOO_LARGE),
    "heads over the limit": Attack(long_heads, allowed=frozenset({"431", "414"})),
    "pipelined requests": Attack(ordinary, clients.pipelining, allowed=ANSWERED),
    "upgrades": Attack(upgrades, clients.smuggler, allowed=ANSWERED),
    "distinct queries": Attack(distinct(lambda text: get("/v2/health/live?" + text.decode()))),
    "distinct queries of predictions": Attack(
        distinct(lambda text: Request(f"/predict?{text.decode()}", PIXELS, bytes(784)).as_bytes())
    ),
    "distinct headers": Attack(joined(distinct(texts_in_headers, ","), distinct(texts_in_headers, ";"))),
    "distinct paths": Attack(distinct(texts_in_paths)),
}

# Each of these holds memory in another place: received bytes, inflated bytes, a decoded picture, unread responses.
ATTACKS["all memory at once"] = Together(
    tuple(
        dataclasses.replace(attack, connections=connections)
        for name, connections in {
            "unfinished bodies": 30,
            "unfinished forms": 30,
            "gzip bombs": 4,
            "values in inference requests": 4,
            "large pictures": 4,
            "clients that never read, 1024 images": 30,
        }.items()
        if isinstance(attack := ATTACKS[name], Attack)
    )
)

RANDOM = "random requests"


async def run_random(port: int, count: int, seed: int, connections: int = 12) -> Outcome:
    """Send ``count`` requests of benchmarks/hostile.py, each over a new connection that is closed on one side."""
    requests: Iterable[tuple[str, bytes]] = hostile_requests(golden_digits()[0], seed)
    taken: Iterator[tuple[str, bytes]] = itertools.islice(requests, count)
    return await clients.run(clients.half_closed, connections, Target(port, taken))


def summary(outcome: Outcome) -> str:
    """Return the statuses and how often each occurred, in one line."""
    return ", ".join(f"{status} {count}" for status, count in sorted(outcome.statuses.items()))


def described(failures: Iterable[tuple[str, str, bytes]]) -> Iterator[str]:
    """Yield a line for each kind of failure, with the start of the first request of its kind."""
    seen = set()
    for name, status, content in failures:
        if (name, status) not in seen:
            seen.add((name, status))
            yield f"{name}: {status}: {json.dumps(content.decode('latin-1'))}"
