"""Pictures made to exhaust the service. It responds to each in time, with little memory, and to other clients too."""

from __future__ import annotations

import re
import signal
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serving.pictures.files import PALETTE, RGB, RGBA, black_png, chunk, encoded, many_scans, rle_bmp, slow_pgm
from tests.support import service

# Peak of the service and the process that decodes large pictures, together.
MAX_MEMORY = 256_000_000 // 1024  # kB
FORM = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n%b\r\n'
SMALL = black_png(40, 40)


def form(pictures):
    return b"".join(FORM % picture for picture in pictures) + b"--x--\r\n"


def bombs():
    """Return each picture or form, and the status of its response if its deadline has not passed."""
    return {
        "a row of 25 million pixels": (black_png(25_000_000, 1, 1), 413),
        "a column of 16,384 pixels": (black_png(1500, 16_384, 1), 200),
        "a transparent palette": (
            black_png(5000, 5000, 8, PALETTE, [chunk(b"PLTE", bytes(768)), chunk(b"tRNS", bytes([9] * 256))]),
            200,
        ),
        "RGBA of 16 bits": (black_png(5000, 5000, 16, RGBA), 200),
        "BMP with run lengths": (rle_bmp(25_000_000, 1), 400),
        "PGM as text": (b"P2\n" + b"#\n" * 500_000, 400),
        "PFM": (b"Pf\n28 28\n-1.0\n" + np.full(784, np.nan, np.float32).tobytes(), 400),
        "thousands of scans": (many_scans(1000, 5000), 413),
        "dozens of scans": (many_scans(3000, 80), 200),
        "rescaled in Python": (slow_pgm(1500), 200),
        "WebP": (encoded(Image.fromarray(np.zeros((2400, 2400), np.uint8)), "WEBP"), 200),
        "form of large pictures": (form([black_png(2500, 2500, 8, RGB)] * 20), 413),
        "form of many pictures": (form([black_png(5000, 5000, 8, RGBA)] * 4), 200),
    }


def post(address, body):
    """Return the status of the response."""
    kind = "multipart/form-data; boundary=x" if body.startswith(b"--x") else "image/x"
    request = urllib.request.Request(f"{address}/predict", body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def peak_of(pid):
    """Return the largest memory that a process had since its peak was forgotten, in kB."""
    try:
        return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])
    except (OSError, TypeError):  # It has ended.
        return 0


def forget_peaks(*pids):
    for pid in pids:
        with suppress(OSError):  # It has ended.
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def children_of(pid):
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if f"\nPPid:\t{pid}\n" in status.read_text():
                yield status.parent.name
        except OSError:
            continue


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_picture_hurts_the_service():
    with service("--work-timeout", "2") as (address, process), ThreadPoolExecutor(8) as pool:
        for name, (bomb, status) in bombs().items():
            # The start, too, needs 30 MB more than a service that waits for requests.
            forget_peaks(process.pid, *children_of(process.pid))
            attack = [pool.submit(post, address, bomb) for _ in range(6)]
            meanwhile = 0
            while not all(attacker.done() for attacker in attack):
                started = time.monotonic()
                assert post(address, SMALL) == 200, name
                assert time.monotonic() - started < 5, name
                meanwhile += 1
                own, decoder = peak_of(process.pid), max(map(peak_of, children_of(process.pid)), default=0)
                assert own + decoder < MAX_MEMORY, (name, own, decoder)
            # So many large ones at a time may take longer than the deadline: the wait for others, or one by itself.
            assert {attacker.result() for attacker in attack} <= {status, 429, 504}, name


def test_stuck_decoder_does_not_delay_shutdown():
    # The picture takes several seconds on a fast machine too, so that it always reaches this deadline.
    with service("--drain", "0", "--work-timeout", "1") as (address, process), ThreadPoolExecutor(2) as pool:
        stuck = pool.submit(post, address, slow_pgm())
        while post(address, SMALL) == 200 and not any(children_of(process.pid)):
            pass
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert time.monotonic() - started < 15
        assert stuck.result() in (429, 504)
