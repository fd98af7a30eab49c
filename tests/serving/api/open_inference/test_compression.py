"""Which encoding a response gets, and how compressed requests are bounded."""

from __future__ import annotations

import gzip
import zlib

import pytest

from serving.api.open_inference.compression import (
    MAX_HEADER_LENGTH,
    MIN_BYTES,
    compress,
    decompress,
    preferred_encoding,
)
from serving.errors import InputError, InputTooLargeError, UnsupportedInputError

CONTENT = b"0123456789" * 1000

PREFERRED = {
    "gzip": "gzip",
    "GZIP": "gzip",
    "deflate": "deflate",
    "deflate, gzip": "gzip",
    "gzip;q=0.5, deflate;q=0.8": "deflate",
    "br, gzip;q=0.1": "gzip",
    "*": "gzip",
    "*;q=0.5": "gzip",
    "gzip;q=0, *": "deflate",
    "gzip, *;q=0": "gzip",
    "identity;q=0.5, gzip": "gzip",
    "identity;q=0, *": "gzip",
    "gzip;q=0": None,
    "gzip;q=0.": None,
    "gzip;q=0.00": None,
    "gzip ; Q = 0.000": None,
    "gzip;q=0.001": "gzip",
    "gzip;q=1.000": "gzip",
    "gzip;level=1;q=0": None,
    "gzip;q=0, deflate;q=0.": None,
    "*;q=0.0": None,
    "*;q=0, deflate": "deflate",
    "gzip;q=0.0, *;q=0.5": "deflate",
    "identity;q=0": None,
    "identity;q=0, gzip;q=0.0": None,
    "identity, *;q=0": None,
    "identity;q=0.5, gzip;q=0.4": None,
    "gzip;q=2": None,
    "gzip;q=nan": None,
    "gzip; q=0.000": None,
    "gzip;q=0, deflate;q=0": None,
    "*;q=0": None,
    "identity": None,
    "identity, gzip;q=0.5": None,
    "br": None,
    "notgzip": None,
    "": None,
    ",": None,
    # Malformed qualities. A client cannot make the parser fail.
    "gzip;q=": "gzip",
    "gzip;q=high": "gzip",
    "gzip;q=inf": None,
    "gzip;q=-1": None,
    'gzip;q="0"': None,
    'gzip;q="': "gzip",
    "gzip" + "," * MAX_HEADER_LENGTH: None,
}


@pytest.mark.parametrize(("header", "expected"), PREFERRED.items(), ids=lambda value: str(value)[:30])
def test_encoding_that_accept_encoding_prefers(header, expected):
    assert preferred_encoding(header) == expected


@pytest.mark.parametrize(("encoding", "unpack"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)])
def test_compressed_response_unpacks_to_the_same_bytes(encoding, unpack):
    compressed, headers = compress(CONTENT, encoding)
    assert len(compressed) < len(CONTENT)
    assert unpack(compressed) == CONTENT
    assert dict(headers) == {b"content-encoding": encoding.encode(), b"vary": b"Accept-Encoding"}


@pytest.mark.parametrize(
    ("content", "accepted"), [(CONTENT, ""), (CONTENT, "gzip;q=0"), (b"0" * (MIN_BYTES - 1), "gzip")]
)
def test_response_is_not_compressed(content, accepted):
    assert compress(content, accepted) == (content, [])


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(CONTENT, ""), (gzip.compress(CONTENT), "gzip"), (zlib.compress(CONTENT), "deflate")],
    ids=["no encoding", "gzip", "deflate"],
)
def test_request_is_decompressed(body, encoding):
    assert decompress(body, encoding, len(CONTENT)) == CONTENT


AFTER_THE_END = {
    "a byte": b"\0",
    "zeros": bytes(512),
    "text": b"GET / HTTP/1.1",
    "a second member": gzip.compress(b"more"),
    "many members": gzip.compress(b"") * 100_000,
    "half a member": gzip.compress(b"more")[:10],
}


@pytest.mark.parametrize("rest", AFTER_THE_END.values(), ids=AFTER_THE_END.keys())
@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_nothing_may_follow_the_compressed_body(rest, encoding, pack):
    with pytest.raises(InputError, match=f"{len(rest)} bytes follow"):
        decompress(pack(CONTENT) + rest, encoding, len(CONTENT))


@pytest.mark.parametrize(
    ("body", "encoding", "error"),
    [
        (gzip.compress(CONTENT + b"0"), "gzip", InputTooLargeError),
        (gzip.compress(bytes(20_000_000)), "gzip", InputTooLargeError),
        (CONTENT, "gzip", InputError),
        (gzip.compress(CONTENT)[:-10], "gzip", InputError),
        (CONTENT, "br", UnsupportedInputError),
        (gzip.compress(CONTENT), "gzip, gzip", UnsupportedInputError),
    ],
    ids=["one byte too many", "bomb", "not compressed", "truncated", "unknown encoding", "two encodings"],
)
def test_request_that_cannot_be_decompressed_is_rejected(body, encoding, error):
    with pytest.raises(error):
        decompress(body, encoding, len(CONTENT))
