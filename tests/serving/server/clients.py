"""Clients of a running service, for the tests of this folder."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import httpx

from tests.support import PIXELS

DIGIT = bytes(784)
HEAD = (
    b"POST /predict HTTP/1.1\r\nhost: localhost\r\n"
    b"content-type: application/octet-stream\r\ncontent-length: 784\r\n\r\n"
)


def get(url):
    # A worker on a busy machine may need longer than httpx waits by default.
    return httpx.get(url, timeout=60)


def predict(client, body=DIGIT, **headers):
    return client.post("/predict", content=body, headers=PIXELS | headers)


def connect(url):
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)
