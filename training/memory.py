"""How this process keeps memory."""

from __future__ import annotations

import ctypes
import sys

# M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h, and the largest values that they take.
TRIM_THRESHOLD, LARGEST_TRIM = -1, 2**31 - 1
MMAP_THRESHOLD, LARGEST_MMAP = -3, 32 * 2**20


def keep_freed_memory() -> None:
    """Make glibc keep the memory that a training step frees, and give it to the next step.

    Otherwise it goes back to the kernel, which fills new pages with zeros at each step. Without glibc this does
    nothing. It changes the whole process, so only commands call it.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc and hasattr(libc, "mallopt"):
        libc.mallopt(TRIM_THRESHOLD, LARGEST_TRIM)
        libc.mallopt(MMAP_THRESHOLD, LARGEST_MMAP)
