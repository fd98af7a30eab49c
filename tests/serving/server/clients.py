"""Clients of a running service."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.support import PIXELS, until

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


@contextlib.contextmanager
def constant_load(url, body=DIGIT):
    """Send the body from four clients without a pause. Yield the list of the statuses and contents of the responses."""
    stop, responses = threading.Event(), []

    def send():
        with httpx.Client(base_url=url, timeout=60) as client:
            while not stop.is_set():
                response = predict(client, body)
                responses.append((response.status_code, response.json()))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield responses
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def served_versions(url):
    """Return the versions that respond on eight new connections, which may go to different workers."""
    request = {"content": DIGIT, "headers": PIXELS, "timeout": 60}
    return {httpx.post(f"{url}/predict", **request).json()["model"]["version"] for _ in range(8)}


def connect(url):
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def children(pid):
    """Return the worker processes of a supervisor."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        # A process that has just ended has no command line or no folder any more.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"serving.server.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def workers_of(process, number=2):
    """Return the workers of a supervisor when there are ``number`` of them."""
    until(lambda: len(children(process.pid)) == number)
    return children(process.pid)


def ask(url, *pieces):
    """Send the pieces over a new connection, one packet each, and return all that comes back."""
    with connect(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            threading.Event().wait(0.05)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def read_response(stream):
    """Read one response from a file object. Return its status, headers and body."""
    status = int(stream.readline().split()[1])
    headers = {}
    while (line := stream.readline()) != b"\r\n":
        name, value = line.decode("latin-1").strip().split(": ", 1)
        assert name not in headers, f"{name} comes twice"
        headers[name] = value
    return status, headers, stream.read(int(headers.get("content-length", 0)))


def parsed(content):
    """Return the responses in what a connection has received."""
    stream = io.BytesIO(content)
    responses = []
    while stream.tell() < len(content):
        responses.append(read_response(stream))
    return responses


def metric(url, name):
    """Return the value of a series, such as ``mnist_closed_connections_total{reason="malformed"}``."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as response:
        lines = response.read().decode().splitlines()
    [line] = [line for line in lines if line.startswith(name + " ")]
    return float(line.split()[1])
