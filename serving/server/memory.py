"""Give back the memory that only the start needed, and keep none of what large requests take."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# From linux/mman.h and malloc.h.
MADV_DONTNEED = 4
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8

# glibc returns freed memory beyond this many bytes to the system, and takes larger buffers from the system directly.
KEPT_BYTES = 1 << 18


def settle() -> None:
    """Give back memory. Call it once, when everything is loaded and before the first request.

    Setting up a session runs through a large part of onnxruntime, and answering requests through a small one. Code and
    constants are mapped from files and never change, so a page that is given back and needed again comes from the
    system's cache. This saves a third of a worker's resident memory.
    """
    gc.collect()
    # What exists now stays; later collections need not look at it again.
    gc.freeze()
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for begin, end in _unchanged_file_mappings():
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_DONTNEED)
        # For glibc's allocator. By default its thresholds rise with the largest buffer ever freed, and each thread
        # keeps a heap of its own.
        libc.malloc_trim(0)
        for parameter, value in ((M_MMAP_THRESHOLD, KEPT_BYTES), (M_TRIM_THRESHOLD, KEPT_BYTES), (M_ARENA_MAX, 1)):
            libc.mallopt(parameter, value)


def _unchanged_file_mappings() -> Iterator[tuple[int, int]]:
    """Yield the address ranges that hold exactly what a file holds: read-only, and not changed by the loader either."""
    mappings = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    for mapping in mappings[1:]:
        addresses, permissions, _, _, inode = mapping.split(maxsplit=5)[:5]
        changed = sum(map(int, re.findall(r"^(?:Anonymous|Swap): +(\d+)", mapping, re.MULTILINE)))
        if "w" not in permissions and inode != "0" and not changed:
            begin, end = addresses.split("-")
            yield int(begin, 16), int(end, 16)
