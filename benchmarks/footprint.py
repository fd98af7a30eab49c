"""Measure the memory, the temporary files and the processor time of other processes. Linux only."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import threading
import time
from pathlib import Path

MB = 1_000_000

# Seconds between two readings.
INTERVAL = 0.02
TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    members = [pid]
    for member in members:
        # A process may end at any moment.
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{member}/task").iterdir():
                members += map(int, (task / "children").read_text().split())
    return members


def resident(pid: int) -> float:
    """Return the resident memory of one process in MB, and 0 if it has ended."""
    return _status(pid, "VmRSS")


def peak(pid: int) -> float:
    """Return the largest resident memory of one process in MB, since :func:`forget_peak`."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> float:
    try:
        match = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(match[1]) * 1024 / MB if match else 0.0


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def temporary_files(pid: int) -> float:
    """Return the size, in MB, of the files without a name that one process has open."""
    size = 0
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if "(deleted)" in str(link.readlink()):
                    size += link.stat().st_size
    return size / MB


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process and its descendants have used."""
    total = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            # The name of the program, in brackets, may have spaces. Eleven fields stand between it and the two times.
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def seconds_of_ended_commands() -> float:
    """Return the processor time of all commands that this process has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Footprint:
    """Reads, on a thread, the memory of a process and its descendants, and keeps the largest sum.

    Temporary files count as memory: in a container the folder for them is usually a file system in memory.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.largest = 0.0
        """The largest sum in MB."""
        self.files = 0.0
        """The largest size of the temporary files in MB."""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Footprint:
        forget_peak(self.pid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        # The system keeps the peak of each process, so no peak between two readings is lost for the worker itself.
        self.largest = max(self.largest, peak(self.pid))

    def _read(self) -> None:
        while not self._end.wait(INTERVAL):
            members = family(self.pid)
            files = sum(map(temporary_files, members))
            self.files = max(self.files, files)
            self.largest = max(self.largest, sum(map(resident, members)) + files)


def seconds_until_idle(pid: int, limit: float) -> float:
    """Wait until the processes use less than a fifth of a core, for at most ``limit`` seconds. Return the time."""
    started = time.monotonic()
    while (waited := time.monotonic() - started) < limit:
        before = processor_seconds(pid)
        time.sleep(0.25)
        if processor_seconds(pid) - before < 0.05:
            break
    return waited
