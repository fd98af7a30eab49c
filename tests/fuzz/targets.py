"""The fuzz targets: for each parser of untrusted bytes, a function that sends it an input and checks the result.

In this list, the dots stand for the input:

    pictures     POST /predict with a picture: ...
    forms        POST /predict with a Content-Type ... and, after an empty line, a body
    json         POST /predict with JSON: ...
    inference    POST /v2/models/mnist/infer with headers ... and, after an empty line, a body
    query        POST ... with the pixels of a digit
    headers      POST /predict and GET /style.css with headers ..., at a service with keys
    protocol     ... as the packets of one connection
    manifest     a bundle with the manifest ...
    golden       a bundle with the golden digits ..., and their right digest
"""

from __future__ import annotations

import gzip
from collections.abc import Callable

from tests.fuzz import bundles, connection, repair
from tests.fuzz.application import LONGEST, reply

DIGIT = bytes(400) + b"\xff" * 60 + bytes(324)
KEY = b"authorization: Bearer secret\n"


def pictures(content: bytes) -> None:
    """Send the input as it is. If it is a PNG, send it with the right checksums too."""
    reply(b"POST /predict\ncontent-type: image/png\n\n" + content, LONGEST)
    reply(b"POST /predict?mode=number\ncontent-type: image/png\n\n" + content, LONGEST)
    if content.startswith(repair.PNG):
        reply(b"POST /predict\ncontent-type: image/png\n\n" + repair.png(content), LONGEST)


def forms(content: bytes) -> None:
    reply(b"POST /predict\ncontent-type: " + content, LONGEST)


def json(content: bytes) -> None:
    reply(b"POST /predict\ncontent-type: application/json\n\n" + content)


def inference(content: bytes) -> None:
    """Send the input as it is. If its headers name gzip, send its body compressed too."""
    reply(b"POST /v2/models/mnist/infer\n" + content)
    head, separator, body = content.partition(b"\n\n")
    if b"gzip" in head:
        reply(b"POST /v2/models/mnist/infer\ncontent-encoding: gzip\n" + head + separator + gzip.compress(body, 1))


def golden(content: bytes) -> None:
    """Load the input as it is, or as two arrays of an archive with the right checksums."""
    bundles.load_golden(repair.npz(content) if repair.CUT in content else content)


def query(content: bytes) -> None:
    target = content.partition(b"\n")[0]
    for method in (b"POST", b"GET"):
        reply(method + b" " + target + b"\ncontent-type: application/octet-stream\n\n" + DIGIT)


def headers(content: bytes) -> None:
    lines = content.replace(b"\n\n", b"\n")
    for line in (
        b"POST /predict\ncontent-type: application/octet-stream\n",
        b"GET /style.css\n",
        b"OPTIONS /predict\n",
    ):
        for key in (b"", KEY):
            reply(line + key + lines + b"\n\n" + DIGIT, predict_keys="secret", cors_origins="https://a.example")


TARGETS: dict[str, Callable[[bytes], object]] = {
    "pictures": pictures,
    "forms": forms,
    "json": json,
    "inference": inference,
    "query": query,
    "headers": headers,
    "protocol": connection.feed,
    "manifest": bundles.load_manifest,
    "golden": golden,
}
