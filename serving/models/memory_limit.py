"""A limit for the memory that loading a bundle may take. A graph of a few bytes can ask for a tensor of terabytes."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATUS = Path("/proc/self/status")

_lock = threading.Lock()


@contextmanager
def memory_limit(more: int) -> Iterator[None]:
    """Let the process take at most ``more`` bytes inside the ``with`` statement, in addition to what it has.

    Beyond the limit, the system gives no memory, and libraries raise MemoryError or an error of their own. The limit
    holds for all threads: meanwhile they share these bytes. There is no limit where the system has none or forbids it.
    """
    with _lock:
        before = resource.getrlimit(resource.RLIMIT_DATA)
        data = re.search(r"^VmData:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE) if STATUS.exists() else None
        if data:
            bounds = [bound for bound in before if bound != resource.RLIM_INFINITY]
            _set((min(int(data[1]) * 1024 + more, *bounds, sys.maxsize), before[1]))
        try:
            yield
        finally:
            _set(before)


def _set(limits: tuple[int, int]) -> None:
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, limits)
