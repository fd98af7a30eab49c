"""Download a file, within limits of time and size."""

from __future__ import annotations

import http.client
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import click

# Seconds without a byte after which a download fails, and seconds that one file may take in all.
TIMEOUT, TOTAL_TIMEOUT = 5.0, 300.0
CHUNK_SIZE = 1 << 16
# The largest file that is downloaded, the training images of Fashion-MNIST, has 26 MB.
MAX_BYTES = 40_000_000


def download(url: str) -> bytes:
    """Return what is at ``url``, and show the progress.

    Raises:
        OSError: it cannot be read, it is larger than MAX_BYTES, or it takes longer than TOTAL_TIMEOUT.
    """
    result: list[bytes | Exception] = []

    def read() -> None:
        try:
            result.append(_read(url, time.monotonic() + TOTAL_TIMEOUT))
        except Exception as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # It holds the connection.
            result.append(error)

    # TIMEOUT is for one wait. A server that sends a byte every few seconds, perhaps of its headers, never exceeds it.
    # So the download has a thread, which is left behind after TOTAL_TIMEOUT.
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(TOTAL_TIMEOUT)
    found = result[0] if result else _too_slow(url)
    if isinstance(found, bytes):
        return found
    if isinstance(found, OSError | http.client.HTTPException | ValueError):
        raise OSError(f"{getattr(found, 'reason', None) or found}") from found
    raise found


def _read(url: str, deadline: float) -> bytes:
    chunks, size = [], 0
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310 (the addresses are torchvision's)
        length = int(response.headers.get("Content-Length") or 0)
        # read1() returns what has arrived, and does not wait for a whole chunk.
        received = iter(lambda: response.read1(CHUNK_SIZE), b"")
        for chunk in _with_progress(received, length, url.rsplit("/", 1)[-1]):
            chunks.append(chunk)
            size += len(chunk)
            if max(length, size) > MAX_BYTES:
                raise OSError(f"{url} has more than {MAX_BYTES} bytes")
            if time.monotonic() > deadline:
                raise _too_slow(url)
    if size < length:
        raise OSError(f"{url} is cut short: {size} of {length} bytes arrived")
    return b"".join(chunks)


def _too_slow(url: str) -> OSError:
    return TimeoutError(f"{url} was not complete after {TOTAL_TIMEOUT:g} seconds")


def _with_progress(chunks: Iterator[bytes], length: int, label: str) -> Iterator[bytes]:
    bar: Any = click.progressbar(length=length or None, label=f"  {label}", file=sys.stderr)
    with bar:
        for chunk in chunks:
            bar.update(len(chunk))
            yield chunk
