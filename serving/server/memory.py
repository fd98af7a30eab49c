"""Return memory to the system: what only the start of the service needed, and what large requests have used."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# Seconds between two looks at the memory. It is returned if the process has this many bytes more than at its start.
MEMORY_INTERVAL = 5.0
SPARE_BYTES = 1 << 26
# If less than this can be returned, the memory is in use, and the next attempt is made after these seconds.
LEAST_BYTES, LATER = 1 << 23, 60.0

# glibc takes buffers of this many bytes from the system directly and returns them when they are freed. It also returns
# other freed memory beyond this. Responses to large batches have up to 4 MB. With a limit of 4 MB for this, freed ones
# lay between others that clients had not read, and a worker took 30 MB more. The canvas of a page, 280x280 pixels with
# transparency, has 314 kB: with a limit of 256 kB, decoding it takes 1.5 times as long.
KEPT_BYTES = 1 << 19

# From linux/mman.h and malloc.h.
MADV_DONTNEED = 4
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8


def settle() -> None:
    """Return memory to the system. Call this once, when everything is loaded and before the first request.

    Setting up a session uses a large part of onnxruntime's code, and inference uses a small part. Code and constants
    are mapped from files and never change. If a page of them is returned and needed again, the system reads it from its
    cache. This saves a third of a worker's resident memory.
    """
    gc.collect()
    # What exists now is never freed, so later collections can skip it.
    gc.freeze()
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for begin, end in _unchanged_file_mappings():
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_DONTNEED)
        # For glibc's allocator. By default its thresholds rise with the largest buffer ever freed, and each thread
        # keeps its own heap.
        libc.malloc_trim(0)
        for parameter, value in ((M_MMAP_THRESHOLD, KEPT_BYTES), (M_TRIM_THRESHOLD, KEPT_BYTES), (M_ARENA_MAX, 1)):
            libc.mallopt(parameter, value)


class Spare:
    """Returns memory that large requests have used. Create it when everything is loaded.

    The allocator keeps freed memory as long as something behind it is in use. After a flood of calls over gRPC this was
    nearly a gigabyte.
    """

    def __init__(self) -> None:
        self._most = _resident() + SPARE_BYTES
        self._next = 0.0

    def look(self) -> None:
        """Return memory to the system if this process has much more than at its start."""
        before = _resident()
        if before < self._most or time.monotonic() < self._next:
            return
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        if before - _resident() < LEAST_BYTES:
            self._next = time.monotonic() + LATER


def _resident() -> int:
    """Return the bytes of memory that this process has, 0 if the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _unchanged_file_mappings() -> Iterator[tuple[int, int]]:
    """Yield the address ranges that are mapped from a file, are read-only, and were not changed by the loader."""
    mappings = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    for mapping in mappings[1:]:
        addresses, permissions, _, _, inode = mapping.split(maxsplit=5)[:5]
        changed = sum(map(int, re.findall(r"^(?:Anonymous|Swap): +(\d+)", mapping, re.MULTILINE)))
        if "w" not in permissions and inode != "0" and not changed:
            begin, end = addresses.split("-")
            yield int(begin, 16), int(end, 16)
