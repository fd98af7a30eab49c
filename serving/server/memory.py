"""Memory: what only the start needed is given back, and what large requests take is not kept."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# linux/mman.h, malloc.h
MADV_DONTNEED = 4
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8


def settle() -> None:
    """To be called once, when everything is loaded and before requests come.

    Setting up a session runs through a large part of onnxruntime, and through a small one ever after. Code and
    constants are mapped from files and never changed, so a page that is given back and needed again comes from
    the system's cache. A third of a worker's resident memory goes this way.
    """
    gc.collect()
    # What is there now stays: later collections need not look at it again.
    gc.freeze()
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for begin, end in _as_in_their_files():
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_DONTNEED)
        # The allocator, if it is glibc's: what is free goes back now; large buffers always, where by default the
        # limit rises to the largest that was ever freed; and threads share one heap instead of keeping each its own.
        libc.malloc_trim(0)
        for parameter, value in ((M_MMAP_THRESHOLD, 1 << 18), (M_TRIM_THRESHOLD, 1 << 18), (M_ARENA_MAX, 1)):
            libc.mallopt(parameter, value)


def _as_in_their_files() -> Iterator[tuple[int, int]]:
    """Addresses that hold what a file holds: nobody can write there, nor has the loader before it locked them."""
    mappings = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    for mapping in mappings[1:]:
        addresses, permissions, _, _, inode = mapping.split(maxsplit=5)[:5]
        changed = sum(map(int, re.findall(r"^(?:Anonymous|Swap): +(\d+)", mapping, re.MULTILINE)))
        if "w" not in permissions and inode != "0" and not changed:
            begin, end = addresses.split("-")
            yield int(begin, 16), int(end, 16)
