"""Clients of a running service, for the tests of this folder."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.support import PIXELS, until

DIGIT = bytes(784)
HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\ncontent-length: 784\r\n\r\n"


def get(url):
    # A worker on a busy machine may need longer than httpx waits by default.
    return httpx.get(url, timeout=60)


def predict(client, body=DIGIT, **headers):
    return client.post("/predict", content=body, headers=PIXELS | headers)


def connect(url):
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def children(pid):
    """Return the worker processes of a supervisor."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        # A process that has just ended has no command line any more.
        if b"serving.server.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
            found.append(int(child))
    return found


def workers_of(process, number=2):
    """Return the workers of a supervisor when there are ``number`` of them."""
    until(lambda: len(children(process.pid)) == number)
    return children(process.pid)
