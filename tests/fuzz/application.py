"""Send the application a request that may be anything, and check the rules for every response."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import re
import time
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import httptools

from serving.api.app import create_app
from serving.settings import Settings

# What the server accepts as a header and a target.
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
FORBIDDEN_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
FORBIDDEN_IN_TARGET = re.compile(rb"[\x00-\x20\x7f-\xff]")

# Other 5xx are a fault of the service. These are not: the model is unavailable, the deadline passed, the disk is full.
REASONABLE = {503, 504, 507}

# Processor time for one input, in seconds. Other programs on the machine do not change it.
QUICK = 1.0
# For pictures, the budget of the service is --work-timeout and one second more.
LONGEST = Settings.work_timeout + 1


class Reply(NamedTuple):
    """A response of the application."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class NoErrors(logging.Handler):
    """Fails if the service logs an error inside ``with NoErrors()``. No request may cause an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def __enter__(self) -> None:
        logging.getLogger().addHandler(self)

    def __exit__(self, kind: object, *_: object) -> None:
        logging.getLogger().removeHandler(self)
        assert kind or not self.lines, "\n".join(self.lines)


@contextlib.contextmanager
def within(limit: float) -> Iterator[None]:
    """Check that the block takes less than ``limit`` seconds of processor time."""
    started = time.process_time()
    yield
    seconds = time.process_time() - started
    assert seconds < limit, f"{seconds:.1f} s of processor time"


@functools.cache
def event_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@functools.cache
def application(**settings: object):
    return create_app(Settings(**settings))


def reply(request: bytes, limit: float = QUICK, **settings: object) -> Reply | None:
    """Send a request to an application with these settings, and return the response once it is checked.

    Return None if the server would not let such a request pass to the application.

    Args:
        request: ``METHOD /path?query``, then a line for each header, an empty line, and the body.
        limit: processor time that it may take, in seconds.
    """
    scope, body = parsed(request)
    if scope is None:
        return None
    messages: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict) -> None:
        messages.append(message)

    app = application(**settings)
    with NoErrors(), within(limit):
        event_loop().run_until_complete(app(scope, receive, send))
    return checked(scope, messages)


def parsed(request: bytes) -> tuple[dict | None, bytes]:
    """Return the ASGI scope that uvicorn would make of a request, and the body; no scope if uvicorn would reject it."""
    head, _, body = request.partition(b"\n\n")
    line, *fields = head.split(b"\n")
    method, _, target = line.partition(b" ")
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return None, body
    if FORBIDDEN_IN_TARGET.search(target) or method not in (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS"):
        return None, body
    headers = [(b"host", b"127.0.0.1")]
    for field in fields:
        name, _, value = field.partition(b":")
        if NAME.fullmatch(name) and not FORBIDDEN_IN_VALUE.search(value) and name.lower() != b"content-length":
            headers.append((name.lower(), value.strip(b" \t")))
    headers.append((b"content-length", b"%d" % len(body)))
    path = url.path or b"/"
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method.decode(),
        "scheme": "http",
        "path": re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), path).decode(
            "utf-8", "replace"
        ),
        "raw_path": path,
        "query_string": url.query or b"",
        "root_path": "",
        "headers": headers,
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 1),
        "state": {},
    }, body


def checked(scope: dict, messages: list[dict]) -> Reply:
    start, *bodies = messages
    assert start["type"] == "http.response.start"
    assert [message["type"] for message in bodies] == ["http.response.body"] * len(bodies)
    assert not bodies[-1].get("more_body")
    found = Reply(start["status"], dict(start["headers"]), b"".join(message.get("body", b"") for message in bodies))
    assert found.status < 500 or found.status in REASONABLE, found
    for name, value in start["headers"]:
        assert NAME.fullmatch(name), name
        assert not re.search(rb"[\r\n\0]", value), (name, value)
    # A response of the router to OPTIONS has no content, and does not give its length.
    if found.body or (scope["method"] != "HEAD" and found.status not in (204, 304)):
        assert int(found.headers[b"content-length"]) == len(found.body)
        check_body(scope["path"], found)
    return found


def check_body(path: str, found: Reply) -> None:
    """Check that the body is what its status and its headers say."""
    body = found.body
    if b"content-encoding" in found.headers:
        body = zlib.decompress(body, zlib.MAX_WBITS | 32)
    kind = found.headers.get(b"content-type", b"")
    if found.status >= 400 and re.match("/v2(/|$)", path):
        assert json.loads(body)["error"]
    elif found.status >= 400:
        assert json.loads(body)["status"] == found.status
    elif path == "/predict":
        for prediction in json.loads(body)["predictions"]:
            digits = [digit for line in prediction.get("lines", []) for digit in line["digits"]]
            for digit in digits if "lines" in prediction else [prediction]:
                assert len(digit["probabilities"]) == 10
            assert prediction["accepted"] is (prediction["reason"] is None)
    elif path.endswith("/infer"):
        length = int(found.headers.get(b"inference-header-content-length", len(body)))
        outputs = json.loads(body[:length])["outputs"]
        sizes = [output["parameters"]["binary_data_size"] for output in outputs if "data" not in output]
        assert sum(sizes) == len(body) - length
    elif kind.startswith(b"application/json"):
        json.loads(body)
