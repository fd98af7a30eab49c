"""A server on core 0 with all its processes: start it until it responds, measure its memory, and stop it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.footprint import family

START_SECONDS = 120.0
STOP_SECONDS = 5.0


@dataclass(frozen=True)
class Running:
    """A server that has responded to a request."""

    pid: int
    response: Any
    """Its first response."""
    start_seconds: float
    """From the start of the process to the end of its first response."""

    def memory(self) -> float:
        """Return the memory of all its processes in MB. A page that n processes share counts 1/n for each (PSS)."""
        kilobytes = 0
        for pid in family(self.pid):
            # A process may end at any moment.
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                kilobytes += sum(map(int, re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)))
        return kilobytes * 1024 / 1e6


@contextlib.contextmanager
def start(
    command: list[str], folder: Path, environment: dict[str, str], log: Path, ask: Callable[[], Any | None]
) -> Iterator[Running]:
    """Run a server on core 0 until the end of the block, after ``ask`` has returned a response that is not None.

    Its output goes to the file ``log``.

    Raises:
        click.ClickException: the server ended, or did not respond within ``START_SECONDS``.
    """
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", "0", *command], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        while (response := ask()) is None:
            if process.poll() is not None:
                raise click.ClickException(f"ended before it responded: {last_line(log)}")
            if time.perf_counter() - started > START_SECONDS:
                raise click.ClickException(f"did not respond within {START_SECONDS:.0f} s: {last_line(log)}")
            time.sleep(0.01)
        yield Running(process.pid, response, time.perf_counter() - started)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and all its descendants: first with SIGTERM, and what is left after some seconds with SIGKILL."""
    handles = []
    for pid in family(process.pid):
        # A handle never means another process, unlike the ID of a process that has ended.
        with contextlib.suppress(ProcessLookupError):
            handles.append(os.pidfd_open(pid))
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
    process.wait()


def last_line(log: Path) -> str:
    """Return the last line that is not empty, at most 200 characters of it."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "no output"
