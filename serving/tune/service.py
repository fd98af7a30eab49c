"""Run the service that is measured, as a user would run it, and measure one trial after the other."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from serving.errors import TuneError
from serving.machine import allow_files
from serving.settings import PREFIX
from serving.tune import load
from serving.tune.search import MAX_CONNECTIONS, MAX_PER_WORKER, Result, Trial

# The service ends with this process, however this process ends: its standard input is then closed.
PROGRAM = """
import os, signal, threading
def end_with_parent():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end_with_parent, daemon=True).start()
from serving.cli import serve
serve()
"""
# Seconds in which all workers must be ready, and in which the service must stop.
START_SECONDS, STOP_SECONDS = 60.0, 30.0
LOOK_SECONDS = 0.05
# The share of a measurement that comes before it and does not count.
WARM_UP = 0.2

MODELS = re.compile(rb"^mnist_model_loaded\{.*\} (\d+)", re.MULTILINE)


class Measured:
    """Measures trials, and keeps the service running while the next trial needs the same settings.

    Use it in ``with``.

    Args:
        arguments: the settings of the service that are not tuned, as flags.
        picture: a file to send; without one, the raw pixels of images are sent.
        seconds: the time of one measurement.
    """

    def __init__(self, arguments: list[str], picture: Path | None, seconds: float) -> None:
        self._arguments = arguments
        self._picture = picture.read_bytes() if picture else None
        self.seconds = seconds
        self.share = 0.0
        """The largest share of a core that the load took."""
        self._running = contextlib.ExitStack()
        self._settings: tuple[int, int] | None = None
        self._port = 0

    def __enter__(self) -> Measured:
        allow_files(4 * MAX_CONNECTIONS)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def measure(self, trial: Trial) -> Result:
        """Return what a trial finds.

        Raises:
            TuneError: the service does not start, or does not respond as it should.
        """
        try:
            return self._measure(trial)
        except OSError as error:
            raise TuneError(f"the measured service cannot be reached: {error}") from error

    def _measure(self, trial: Trial) -> Result:
        settings = trial.workers, trial.limit or 2 * MAX_PER_WORKER * trial.workers
        if settings != self._settings:
            self._running.close()
            self._settings, self._port = settings, self._running.enter_context(self._service(*settings))
        found = load.drive(
            self._port, self._request(trial.images), trial.connections, self.seconds, WARM_UP * self.seconds
        )
        self.share = max(self.share, found.share)
        total = len(found.latencies) + found.rejected
        return Result(trial, found.rate, found.percentile(0.5), found.percentile(0.99), found.rejected / max(1, total))

    def _request(self, images: int) -> bytes:
        kind, body = [], self._picture  # The service recognises a picture by its first bytes.
        if body is None:
            kind, body = ["content-type: application/octet-stream"], _pixels(images)
        lines = ["POST /predict HTTP/1.1", "host: localhost", *kind, f"content-length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body

    @contextlib.contextmanager
    def _service(self, workers: int, limit: int) -> Iterator[int]:
        """Run the service, and yield its port when all its workers are ready."""
        options = ["--port", "0", "--workers", str(workers), "--max-concurrency", str(limit)]
        options += ["--max-connections", str(4 * MAX_PER_WORKER * workers), "--log-level", "error", "--drain", "0"]
        variables = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "OTEL_"))}
        process = subprocess.Popen(  # noqa: S603 (our own program)
            [sys.executable, "-P", "-c", PROGRAM, *options, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=variables | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        errors: list[str] = []
        # A full pipe would stop the service.
        reading = threading.Thread(target=lambda: errors.extend(process.stderr or []), daemon=True)
        reading.start()
        try:
            port = _port_of(process)
            if not port:
                reading.join(1)
                reason = errors[-1].strip().removeprefix("Error: ") if errors else "it gave no reason"
                raise TuneError(f"the measured service did not start: {reason}")
            _wait_for_workers(port, workers)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _port_of(process: subprocess.Popen[str]) -> int:
    """Return the port that the service announces, or 0 if it ends before."""
    for line in process.stdout or []:
        if found := re.match(r"http://\S+:(\d+)", line):
            return int(found[1])
    return 0


def _wait_for_workers(port: int, workers: int) -> None:
    """Wait until all workers have loaded the model. The service announces itself when the first one has."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        loaded = [int(count) for count in MODELS.findall(_metrics(port))]
        if max(loaded, default=0) >= workers:
            return
        time.sleep(LOOK_SECONDS)
    raise TuneError(f"not all of {workers} workers were ready after {START_SECONDS:g} s")


def _metrics(port: int) -> bytes:
    # Not urllib, which would ask the proxy of the environment.
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read()


def _pixels(images: int) -> bytes:
    """Return the pixels of some images: a vertical stroke, which is a one."""
    row = bytes([0] * 13 + [255] * 2 + [0] * 13)
    image = bytes(4 * 28) + 20 * row + bytes(4 * 28)
    return images * image
